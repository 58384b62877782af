//! Recipients that are absent: gone connections, and users without a connection.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use streamer_gateway::PostResult;
use streamer_tests::{
    doubles::TableDouble,
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{POLICY, Rig},
};
use tokio::time::Instant;

use crate::{answering, connect, ids, long_ago, message_to_anna, rig_with_table};

mod gone {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn status_410_removes_row() -> anyhow::Result<()> {
        let rig = rig_with_table(
            MemoryGateway::always(status(410)),
            TableDouble::with([("a", long_ago()), ("b", long_ago())]),
        );
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!(rig.table.connections(), ["b"]);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_connection_id_counts_as_410() -> anyhow::Result<()> {
        let invalid = PostResult::Status { status: 400, message: "Invalid connectionId: a".to_owned() };
        let rig = rig_with_table(MemoryGateway::always(invalid), TableDouble::with([("a", long_ago())]));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert!(rig.table.connections().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn status_410_without_row_is_gone() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(410)));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn gone_connection_ends_only_its_lane() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
        let bodies = [message("1", &["a", "b"]), message("2", &["a", "b"])];
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        assert_eq!((rig.worker.gateway.texts("a").len(), rig.worker.gateway.texts("b").len()), (1, 2));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    /// A 410 within the connect grace may come before the connection exists: its row stays.
    #[tokio::test(start_paused = true)]
    async fn connect_grace_hands_message_back() -> anyhow::Result<()> {
        let grace_start = epoch() - POLICY.connect_grace;
        let past = grace_start - Duration::from_millis(1);
        let table = TableDouble::with([("young", grace_start), ("past", past)]);
        let rig = rig_with_table(MemoryGateway::always(status(410)), table);
        let bodies = [message("1", &["young"]), message("2", &["past"])];
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        assert_eq!(rig.table.connections(), ["young"]);
        let back = rig.handed_back();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].json()["retry"]["cause"], "410 within the connect grace");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn failed_removal_hands_message_back() -> anyhow::Result<()> {
        let rig = rig_with_table(MemoryGateway::always(status(410)), TableDouble::failing());
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        let cause = rig.handed_back()[0].json()["retry"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("DeleteItem") && cause.contains("AccessDeniedException"), "{cause}");
        Ok(())
    }

    /// The worker waits for DeleteItem for 5 s, or less when the invocation ends sooner.
    #[tokio::test(start_paused = true)]
    async fn silent_table_delays_until_cutoff() -> anyhow::Result<()> {
        for (timeout, waited, cause) in
            [(30, 5000, "DeleteItem: no answer within 5 s"), (6, 4875, "deadline")]
        {
            let mut rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
            rig.worker.table = Some(TableDouble::silent());
            let started = Instant::now();
            let event = batch([message("1", &["a"]), message("2", &["b"])].map(|body| body.to_string()));
            assert_eq!(rig.invoke_within(epoch(), Duration::from_secs(timeout), event).await?, ids([]));
            assert_eq!(started.elapsed(), Duration::from_millis(waited));
            let back = rig.handed_back();
            assert_eq!(
                (&back[0].json()["to"], &back[0].json()["retry"]["cause"]),
                (&json!({ "connection": "a" }), &json!(cause))
            );
        }
        Ok(())
    }

    /// The answer comes after the grace, for a post within it.
    #[tokio::test(start_paused = true)]
    async fn grace_counts_at_time_of_post() -> anyhow::Result<()> {
        let table = TableDouble::with([("a", epoch() - Duration::from_millis(100))]);
        let rig =
            rig_with_table(MemoryGateway::scripted(|_, _| (Duration::from_millis(4950), status(410))), table);
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!((rig.table.connections(), rig.handed_back().len()), (vec!["a".to_owned()], 1));
        Ok(())
    }
}

/// A worker without a connection table, beside an API whose rows are elsewhere.
mod no_table {
    use super::*;

    fn rig(gateway: MemoryGateway) -> Rig {
        let mut rig = Rig::new(gateway);
        rig.worker.table = None;
        rig
    }

    #[tokio::test(start_paused = true)]
    async fn named_connections_get_their_messages() -> anyhow::Result<()> {
        let rig = rig(MemoryGateway::always(status(200)));
        let to_one = json!({ "version": 1, "id": "2", "to": { "connection": "c" }, "payload": 2 });
        let bodies = [message("1", &["a", "b"]), to_one];
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        let received = ["a", "b", "c"].map(|connection| rig.worker.gateway.texts(connection).len());
        assert_eq!((received, rig.dead().len()), ([1, 1, 1], 0));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn users_and_tenants_become_dead_letters() -> anyhow::Result<()> {
        let to_shard = json!({ "tenant": "acme", "shard": 3 });
        for to in [message_to_anna("m")["to"].clone(), json!({ "tenant": "acme" }), to_shard] {
            let rig = rig(MemoryGateway::always(status(200)));
            let body = json!({ "version": 1, "id": "m", "to": to, "payload": 1 });
            assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
            assert!(rig.handed_back().is_empty() && rig.worker.gateway.posts().is_empty());
            let dead = rig.dead().pop().unwrap();
            assert_eq!((&dead.json()["to"], dead.attribute("streamer.reason")), (&to, "rejected"));
            let detail = dead.attribute("streamer.detail");
            assert!(detail.starts_with("no connection table is configured"), "{detail}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn expired_message_needs_no_dead_letter() -> anyhow::Result<()> {
        let rig = rig(MemoryGateway::always(status(200)));
        let mut body = message_to_anna("m");
        body["expires_at"] = EPOCH_MILLIS.into();
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
        assert!(rig.dead().is_empty());
        Ok(())
    }

    /// A connection is at least as old as a message for it.
    #[tokio::test(start_paused = true)]
    async fn message_age_decides_about_410() -> anyhow::Result<()> {
        let millisecond = Duration::from_millis(1);
        for (age, back) in [(POLICY.connect_grace - millisecond, 1), (POLICY.connect_grace, 0)] {
            let rig = rig(MemoryGateway::always(status(410)));
            let event = batch([message("m", &["a"]).to_string()]);
            assert_eq!(rig.invoke_at(epoch() + age, event).await?, ids([]));
            assert_eq!((rig.handed_back().len(), rig.dead().len()), (back, 0), "{age:?}");
        }
        Ok(())
    }
}

/// Users without a connection, who may be reconnecting. After the away grace the outcome is `no_recipient`.
mod away {
    use super::*;

    /// A served user gets no second copy after a slow connection is gone; a user with a stale connection gets the
    /// message on the fresh one.
    #[tokio::test(start_paused = true)]
    async fn reconnected_user_gets_message_once() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, nth| {
            let code = match (connection, nth) {
                ("slow", 0) => 429,
                ("slow", _) => 410,
                _ => 200,
            };
            (Duration::ZERO, status(code))
        }));
        connect(&rig, &["served", "slow"]).await;
        rig.invoke(batch([message_to_anna("m").to_string()])).await?;
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert!(rig.worker.gateway.texts("slow").len() == 2 && rig.handed_back().len() == 1);

        let rig = Rig::new(answering(|connection| status(if connection == "stale" { 410 } else { 200 })));
        connect(&rig, &["stale"]).await;
        rig.invoke(batch([message_to_anna("m").to_string()])).await?;
        connect(&rig, &["fresh"]).await;
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert_eq!(
            (rig.worker.gateway.texts("stale").len(), rig.worker.gateway.texts("fresh").len()),
            (1, 1)
        );
        assert_eq!(rig.handed_back().len(), 1, "the fresh connection has the message");
        Ok(())
    }

    /// One connection is gone in the first invocation, the other in the second.
    #[tokio::test(start_paused = true)]
    async fn unreached_user_is_awaited() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, nth| {
            (Duration::ZERO, status(if connection == "stale" || nth > 0 { 410 } else { 429 }))
        }));
        connect(&rig, &["stale", "slow"]).await;
        rig.invoke(batch([message_to_anna("m").to_string()])).await?;
        assert_eq!(
            rig.handed_back()[0].json()["retry"]["done"],
            Value::Null,
            "gone connections are not in `done`"
        );
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert_eq!(rig.handed_back()[1].json()["retry"]["cause"], "user away");
        Ok(())
    }

    /// The away grace starts with the first receive of the message.
    #[tokio::test(start_paused = true)]
    async fn grace_lasts_30_s() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let within_grace = epoch() + POLICY.away_grace - Duration::from_millis(1);
        assert_eq!(rig.invoke_at(within_grace, batch([message_to_anna("m").to_string()])).await?, ids([]));
        let back = rig.handed_back();
        assert_eq!(back[0].json()["retry"]["cause"], "user away");
        assert_eq!(back[0].json()["to"], message_to_anna("m")["to"]);

        let past_grace = epoch() + POLICY.away_grace;
        assert_eq!(rig.invoke_at(past_grace, batch([message_to_anna("m").to_string()])).await?, ids([]));
        assert_eq!(rig.handed_back().len(), 1, "the message is not handed back again");
        assert!(rig.dead().is_empty() && rig.worker.gateway.posts().is_empty());
        Ok(())
    }

    /// `retry.since` is the first receive of the first copy.
    #[tokio::test(start_paused = true)]
    async fn grace_starts_with_first_copy() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let mut body = message_to_anna("m");
        let since = EPOCH_MILLIS - 30_000;
        body["retry"] = json!({ "count": 3, "receives": 0, "since": since, "cause": "user away" });
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn failed_query_hands_message_back() -> anyhow::Result<()> {
        let rig = rig_with_table(MemoryGateway::always(status(200)), TableDouble::failing());
        assert_eq!(rig.invoke(batch([message_to_anna("m").to_string()])).await?, ids([]));
        let cause = rig.handed_back()[0].json()["retry"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("Query") && cause.contains("AccessDeniedException"), "{cause}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_table_delays_others_5_s() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::always(status(200)));
        rig.worker.table = Some(TableDouble::silent());
        let started = Instant::now();
        let bodies = [message_to_anna("m"), message("n", &["a"])].map(|body| body.to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert_eq!(rig.handed_back()[0].json()["retry"]["cause"], "Query: no answer within 5 s");
        assert_eq!(rig.worker.gateway.texts("a"), ["\"n\""]);
        Ok(())
    }

    /// The worker finds out only when it posts to the user's connections.
    #[tokio::test(start_paused = true)]
    async fn gone_user_may_be_reconnecting() -> anyhow::Result<()> {
        for (now, handed_back) in [(epoch(), 1), (epoch() + POLICY.away_grace, 0)] {
            let rig = Rig::new(MemoryGateway::always(status(410)));
            connect(&rig, &["a", "b"]).await;
            assert_eq!(rig.invoke_at(now, batch([message_to_anna("m").to_string()])).await?, ids([]));
            assert!(rig.table.connections().is_empty());
            let back = rig.handed_back();
            assert_eq!(back.len(), handed_back);
            assert!(back.iter().all(|sent| sent.json()["retry"]["cause"] == "user away"));
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn partly_reached_user_is_not_awaited() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
        connect(&rig, &["a", "b"]).await;
        assert_eq!(rig.invoke(batch([message_to_anna("m").to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    /// With a query per message, a later message could find a connection that an earlier one did not.
    #[tokio::test(start_paused = true)]
    async fn batch_queries_user_once() -> anyhow::Result<()> {
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        let works = move || counter.fetch_add(1, Ordering::Relaxed) > 0;
        let rig = rig_with_table(
            MemoryGateway::always(status(200)),
            TableDouble::of_user([("a", long_ago())], works),
        );
        let bodies = ["1", "2", "3"].map(|id| message_to_anna(id).to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!((rig.handed_back().len(), rig.worker.gateway.posts().len()), (3, 0));
        assert_eq!(queries.load(Ordering::Relaxed), 1);
        Ok(())
    }
}
