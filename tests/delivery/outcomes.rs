//! Each outcome, by its name.

use std::time::Duration;

use delivery_worker::classify::PostResult;
use serde_json::json;
use streamer_connections::Connection;
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message, record},
    gateway::{MemoryGateway, status},
    worker::{POLICY, Rig, TIMEOUT},
};
use tokio::time::Instant;

use crate::{answering, ids, old};

fn on(gateway: MemoryGateway, table: TableDouble) -> Rig {
    Rig::on(gateway, table, QueueDouble::taking(), QueueDouble::taking())
}

async fn connected(rig: &Rig, ids: &[&str]) {
    for id in ids {
        rig.table.client().put(&connection(id, old())).await.unwrap();
    }
}

fn to_user(id: &str) -> serde_json::Value {
    json!({ "version": 1, "id": id, "to": { "user": { "tenant": "acme", "user": "anna" } }, "payload": id })
}

mod delivered {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_message_that_api_gateway_accepts_is_acknowledged() -> anyhow::Result<()> {
        for accepted in [200, 202, 204, 299] {
            let rig = Rig::new(MemoryGateway::always(status(accepted)));
            assert_eq!(rig.invoke(batch([message("m", &["a", "b"]).to_string()])).await?, ids([]));
            let texts = |connection| rig.worker.gateway.texts(connection);
            assert_eq!((texts("a"), texts("b")), (vec!["\"m\"".into()], vec!["\"m\"".into()]));
            assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_named_twice_gets_the_message_once() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        rig.invoke(batch([message("m", &["a", "b", "a"]).to_string()])).await?;
        assert_eq!(rig.worker.gateway.texts("a").len(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn one_connection_gets_its_messages_one_at_a_time_in_order_of_arrival() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, place| {
            (Duration::from_millis(100 - 30 * place as u64), status(200))
        }));
        rig.invoke(batch(["1", "2", "3"].map(|id| message(id, &["a"]).to_string()))).await?;
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\"", "\"3\""]);
        assert_eq!(rig.worker.gateway.most_in_flight(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn connections_are_served_side_by_side_up_to_the_limit() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200))));
        let names: Vec<Vec<String>> =
            (0..3).map(|message| (0..100).map(|number| format!("{message}-{number}")).collect()).collect();
        let bodies = names.iter().enumerate().map(|(index, names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            message(&index.to_string(), &names).to_string()
        });
        let started = Instant::now();
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let most = rig.worker.gateway.most_in_flight();
        assert!((128..=131).contains(&most), "{most}: the limit grows by one for each round");
        assert_eq!(started.elapsed().as_millis(), 60, "300 posts in three waves");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_gets_it_on_every_live_connection_of_the_workers_endpoint() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        connected(&rig, &["a", "b"]).await;
        let endpoint = "https://other.example.com/production".to_owned();
        let elsewhere = Connection { endpoint, ..connection("elsewhere", old()) };
        let expired = Connection { expires_at: epoch(), ..connection("expired", old()) };
        for other in [elsewhere, expired] {
            rig.table.client().put(&other).await?;
        }
        assert_eq!(rig.invoke(batch([to_user("m").to_string()])).await?, ids([]));
        let posts = rig.worker.gateway.posts().into_iter().map(|post| post.connection);
        assert_eq!(posts.collect::<Vec<_>>(), ["a", "b"]);
        assert!(rig.handed_back().is_empty());
        Ok(())
    }
}

mod gone {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_410_removes_the_row_and_the_message_is_acknowledged() -> anyhow::Result<()> {
        let rig = on(MemoryGateway::always(status(410)), TableDouble::with([("a", old()), ("b", old())]));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!(rig.table.connections(), ["b"]);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_400_that_blames_the_connection_id_is_as_good_as_a_410() -> anyhow::Result<()> {
        let invalid = PostResult::Status { status: 400, message: "Invalid connectionId: a".to_owned() };
        let rig = on(MemoryGateway::always(invalid), TableDouble::with([("a", old())]));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert!(rig.table.connections().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_410_without_a_row_is_gone_too() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(410)));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_gone_connection_ends_its_lane_and_no_other() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
        let bodies = [message("1", &["a", "b"]), message("2", &["a", "b"])];
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        assert_eq!((rig.worker.gateway.texts("a").len(), rig.worker.gateway.texts("b").len()), (1, 2));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn within_the_connect_grace_the_row_stays_and_the_message_is_handed_back() -> anyhow::Result<()> {
        let young = epoch() - POLICY.connect_grace;
        let table = TableDouble::with([("young", young), ("past", young - Duration::from_millis(1))]);
        let rig = on(MemoryGateway::always(status(410)), table);
        let bodies = [message("1", &["young"]), message("2", &["past"])];
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        assert_eq!(rig.table.connections(), ["young"]);
        let back = rig.handed_back();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].json()["retry"]["cause"], "410 within the connect grace");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_that_cannot_be_removed_hands_the_message_back() -> anyhow::Result<()> {
        let rig = on(MemoryGateway::always(status(410)), TableDouble::failing());
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        let cause = rig.handed_back()[0].json()["retry"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("DeleteItem") && cause.contains("AccessDeniedException"), "{cause}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_table_delays_until_the_cutoff() -> anyhow::Result<()> {
        for (timeout, waited, cause) in
            [(30, 5000, "DeleteItem: no answer within 5 s"), (6, 4875, "deadline")]
        {
            let mut rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
            rig.worker.table = TableDouble::silent();
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

    #[tokio::test(start_paused = true)]
    async fn the_connect_grace_counts_when_it_was_posted_to() -> anyhow::Result<()> {
        let table = TableDouble::with([("a", epoch() - Duration::from_millis(100))]);
        let rig = on(MemoryGateway::scripted(|_, _| (Duration::from_millis(4950), status(410))), table);
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!((rig.table.connections(), rig.handed_back().len()), (vec!["a".to_owned()], 1));
        Ok(())
    }
}

mod expired {
    use super::*;

    fn expiring(id: &str, at: u64) -> String {
        let mut body = message(id, &["a"]);
        body["expires_at"] = at.into();
        body.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_past_its_expiry_is_not_posted_and_acknowledged() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let bodies =
            [expiring("now", EPOCH_MILLIS), expiring("soon", EPOCH_MILLIS + 1), expiring("never", u64::MAX)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"soon\"", "\"never\""]);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_expiry_counts_when_its_turn_comes() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(1), status(200))));
        let bodies = [expiring("1", u64::MAX), expiring("2", EPOCH_MILLIS + 900), expiring("3", u64::MAX)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"3\""]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn it_counts_before_another_try_too() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(1), status(503))));
        assert_eq!(rig.invoke(batch([expiring("1", EPOCH_MILLIS + 900)])).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a").len(), 1);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_worthless_needs_no_dead_letter() -> anyhow::Result<()> {
        let mut body = message("m", &["a"]);
        body["expires_at"] = 1.into();
        body["payload"] = "x".repeat(200_000).into();
        body["retry"] = json!({ "count": 1, "receives": 0, "since": 0, "cause": "503" });
        for rig in
            [Rig::new(MemoryGateway::always(status(200))), Rig::fifo(MemoryGateway::always(status(200)))]
        {
            assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
            assert!(rig.dead().is_empty() && rig.worker.gateway.posts().is_empty());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn for_a_user_nobody_is_looked_for_any_more() -> anyhow::Result<()> {
        let rig = on(MemoryGateway::always(status(200)), TableDouble::failing());
        let mut body = to_user("m");
        body["expires_at"] = EPOCH_MILLIS.into();
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }
}

mod superseded {
    use super::*;

    fn progress(id: &str, seq: u64, connections: &[&str]) -> String {
        let mut body = message(id, connections);
        body["request"] = json!({ "id": "r", "seq": seq });
        body["supersedable"] = true.into();
        body.to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn a_progress_is_left_out_for_a_later_message_of_its_request_and_connection() -> anyhow::Result<()>
    {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let bodies = [progress("1", 1, &["a", "b"]), progress("3", 3, &["a"]), progress("2", 2, &["a"])];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(
            (rig.worker.gateway.texts("a"), rig.worker.gateway.texts("b")),
            (vec!["\"3\"".into()], vec!["\"1\"".into()])
        );
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_back_goes_back_alone_and_its_predecessor_is_not_missed() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        let bodies = [progress("1", 1, &["a"]), progress("2", 2, &["a"])];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let back: Vec<_> = rig.handed_back().iter().map(|sent| sent.json()["id"].clone()).collect();
        assert_eq!(back, ["2"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_too_large_supersedes_nothing() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let mut large: serde_json::Value = serde_json::from_str(&progress("2", 2, &["a"]))?;
        large["payload"] = "x".repeat(128 * 1024).into();
        assert_eq!(rig.invoke(batch([progress("1", 1, &["a"]), large.to_string()])).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\""]);
        Ok(())
    }
}

mod no_recipient {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reconnects_in_time_gets_it_and_nobody_twice() -> anyhow::Result<()> {
        // One connection is served, one is slow and then gone, and the client comes back as a third.
        let rig = Rig::new(MemoryGateway::scripted(|connection, place| {
            let code = match (connection, place) {
                ("slow", 0) => 429,
                ("slow", _) => 410,
                _ => 200,
            };
            (Duration::ZERO, status(code))
        }));
        connected(&rig, &["served", "slow"]).await;
        rig.invoke(batch([to_user("m").to_string()])).await?;
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert!(rig.worker.gateway.texts("slow").len() == 2 && rig.handed_back().len() == 1);

        let rig = Rig::new(answering(|connection| status(if connection == "stale" { 410 } else { 200 })));
        connected(&rig, &["stale"]).await;
        rig.invoke(batch([to_user("m").to_string()])).await?;
        connected(&rig, &["fresh"]).await;
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert_eq!(
            (rig.worker.gateway.texts("stale").len(), rig.worker.gateway.texts("fresh").len()),
            (1, 1)
        );
        assert_eq!(rig.handed_back().len(), 1, "it has arrived");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_never_reached_is_waited_for_whatever_became_of_which_connection() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|connection, place| {
            (Duration::ZERO, status(if connection == "stale" || place > 0 { 410 } else { 429 }))
        }));
        connected(&rig, &["stale", "slow"]).await;
        rig.invoke(batch([to_user("m").to_string()])).await?;
        assert_eq!(
            rig.handed_back()[0].json()["retry"]["done"],
            serde_json::Value::Null,
            "what is gone is not done"
        );
        rig.invoke(batch([rig.handed_back()[0].body.clone()])).await?;
        assert_eq!(rig.handed_back()[1].json()["retry"]["cause"], "user away");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_who_is_away_is_waited_for_30_s_from_the_first_receipt_and_no_longer() -> anyhow::Result<()>
    {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let almost = epoch() + POLICY.away_grace - Duration::from_millis(1);
        assert_eq!(rig.invoke_at(almost, batch([to_user("m").to_string()])).await?, ids([]));
        let back = rig.handed_back();
        assert_eq!(back[0].json()["retry"]["cause"], "user away");
        assert_eq!(back[0].json()["to"], to_user("m")["to"]);

        let past = epoch() + POLICY.away_grace;
        assert_eq!(rig.invoke_at(past, batch([to_user("m").to_string()])).await?, ids([]));
        assert_eq!(rig.handed_back().len(), 1, "it ends, and is not handed back again");
        assert!(rig.dead().is_empty() && rig.worker.gateway.posts().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_receipt_is_that_of_the_first_copy() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let mut body = to_user("m");
        let since = EPOCH_MILLIS - 30_000;
        body["retry"] = json!({ "count": 3, "receives": 0, "since": since, "cause": "user away" });
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_cannot_be_asked_hands_the_message_back() -> anyhow::Result<()> {
        let rig = on(MemoryGateway::always(status(200)), TableDouble::failing());
        assert_eq!(rig.invoke(batch([to_user("m").to_string()])).await?, ids([]));
        let cause = rig.handed_back()[0].json()["retry"]["cause"].as_str().unwrap().to_owned();
        assert!(cause.contains("Query") && cause.contains("AccessDeniedException"), "{cause}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_does_not_answer_keeps_the_other_messages_for_5_s() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::always(status(200)));
        rig.worker.table = TableDouble::silent();
        let started = Instant::now();
        let bodies = [to_user("m"), message("n", &["a"])].map(|body| body.to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(started.elapsed(), Duration::from_secs(5));
        assert_eq!(rig.handed_back()[0].json()["retry"]["cause"], "Query: no answer within 5 s");
        assert_eq!(rig.worker.gateway.texts("a"), ["\"n\""]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_whose_connections_are_all_gone_may_be_reconnecting() -> anyhow::Result<()> {
        for (now, handed_back) in [(epoch(), 1), (epoch() + POLICY.away_grace, 0)] {
            let rig = Rig::new(MemoryGateway::always(status(410)));
            connected(&rig, &["a", "b"]).await;
            assert_eq!(rig.invoke_at(now, batch([to_user("m").to_string()])).await?, ids([]));
            assert!(rig.table.connections().is_empty());
            let back = rig.handed_back();
            assert_eq!(back.len(), handed_back);
            assert!(back.iter().all(|sent| sent.json()["retry"]["cause"] == "user away"));
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_of_whom_one_connection_has_it_is_not_waited_for() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| status(if connection == "a" { 410 } else { 200 })));
        connected(&rig, &["a", "b"]).await;
        assert_eq!(rig.invoke(batch([to_user("m").to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    /// One query for all its messages: or a later one could find somebody whom an earlier one did not.
    #[tokio::test(start_paused = true)]
    async fn a_user_is_looked_for_once_in_a_batch() -> anyhow::Result<()> {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counting = std::sync::Arc::clone(&asked);
        let works = move || counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 0;
        let rig = on(MemoryGateway::always(status(200)), TableDouble::of_user([("a", old())], works));
        let bodies = ["1", "2", "3"].map(|id| to_user(id).to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!((rig.handed_back().len(), rig.worker.gateway.posts().len()), (3, 0));
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), 1);
        Ok(())
    }
}

mod rejected {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_payload_over_128_kib_is_not_posted_and_goes_to_the_dead_letter_queue() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let body = |bytes: usize| {
            let mut body = message("m", &["a", "b"]);
            body["payload"] = "x".repeat(bytes - 2).into();
            body.to_string()
        };
        let bodies = [body(128 * 1024), body(128 * 1024 + 1)];
        assert_eq!(rig.invoke(batch(bodies.clone())).await?, ids([]));
        assert_eq!(rig.worker.gateway.posts().len(), 2, "the first message's");
        let dead = rig.dead();
        assert_eq!((dead.len(), &dead[0].json()), (1, &serde_json::from_str(&bodies[1])?));
        assert_eq!(dead[0].attribute("streamer.reason"), "rejected");
        let detail = "the payload has 131073 bytes, API Gateway delivers 131072";
        assert_eq!(dead[0].attribute("streamer.detail"), detail);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_413_and_a_400_that_does_not_blame_the_connection_go_there_with_what_was_said()
    -> anyhow::Result<()> {
        for code in [413, 400] {
            let answer = PostResult::Status { status: code, message: "{\"message\":\"no\"}".to_owned() };
            let rig = Rig::new(answering(
                move |connection| {
                    if connection == "a" { status(200) } else { answer.clone() }
                },
            ));
            assert_eq!(rig.invoke(batch([message("m", &["a", "b", "c"]).to_string()])).await?, ids([]));
            let dead = rig.dead();
            assert_eq!(dead.len(), 1, "one for a message and a reason");
            assert_eq!(dead[0].json()["to"], json!({ "connections": ["b", "c"] }), "{code}");
            assert_eq!(dead[0].attribute("streamer.reason"), "rejected");
            assert_eq!(dead[0].attribute("streamer.detail"), format!("{code}: {{\"message\":\"no\"}}"));
            assert_eq!(rig.worker.gateway.posts().len(), 3, "none is posted again");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn it_holds_up_nothing_on_a_standard_queue() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, place| {
            (Duration::ZERO, status(if place == 0 { 413 } else { 200 }))
        }));
        rig.invoke(batch(["1", "2"].map(|id| message(id, &["a"]).to_string()))).await?;
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
        Ok(())
    }
}

mod poison {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_no_message_goes_to_the_dead_letter_queue_untouched() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let body = "\n { \"version\": 1,\t\"id\": \"é\" }  ";
        assert_eq!(rig.invoke(batch([body.to_owned(), message("m", &["a"]).to_string()])).await?, ids([]));

        let dead = rig.dead();
        assert_eq!((dead.len(), dead[0].body.as_str()), (1, body));
        assert_eq!(dead[0].attribute("streamer.reason"), "poison");
        assert!(dead[0].attribute("streamer.detail").starts_with("`to` is missing; expected one of"));
        assert_eq!(dead[0].attribute("streamer.attempts"), "1");
        assert_eq!(dead[0].attribute("streamer.since"), EPOCH_MILLIS.to_string());
        assert_eq!(rig.worker.gateway.texts("a").len(), 1, "the others are delivered");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_dead_letter_queue_does_not_confirm_is_reported() -> anyhow::Result<()> {
        for fault in [Entry::Refused, Entry::NotTaken, Entry::Unmentioned] {
            let refuses_second =
                QueueDouble::new(move |entry| if entry.message_body() == "2" { fault } else { Entry::Taken });
            let gateway = MemoryGateway::always(status(200));
            let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), refuses_second);
            assert_eq!(rig.invoke(batch(["1", "2", "3"])).await?, ids(["record-1"]), "{fault:?}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_letter_queue_that_takes_nothing_has_it_reported() -> anyhow::Result<()> {
        let failing = QueueDouble::failing("AWS.SimpleQueueService.NonExistentQueue");
        let gateway = MemoryGateway::always(status(200));
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), failing);
        let bodies = ["1".to_owned(), message("m", &["a"]).to_string(), "3".to_owned()];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn queues_that_do_not_answer_are_not_waited_for_in_the_last_300_ms() -> anyhow::Result<()> {
        let rig = Rig::unanswered(answering(|connection| status(if connection == "a" { 200 } else { 429 })));
        let started = Instant::now();
        let bodies =
            ["1".to_owned(), message("m", &["a"]).to_string(), message("n", &["a", "b"]).to_string()];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        // Within the pause of up to 1 s that the time leaves no room for.
        let (took, settled) = (started.elapsed(), TIMEOUT - Duration::from_millis(300));
        assert!((settled - Duration::from_secs(1)..=settled).contains(&took), "{took:?}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_fit_beside_its_attributes_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let bodies = ["x".repeat(1024 * 1024), "x".repeat(1023 * 1024), "y".repeat(1023 * 1024)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0"]));
        assert_eq!(rig.dead_letters.batches().len(), 2, "two letters of nearly 1 MiB need two batches");
        Ok(())
    }
}

mod exhausted {
    use super::*;

    fn retried(count: u32, receives: u32, since: u64) -> String {
        let mut body = message("m", &["a", "b"]);
        body["retry"] = json!({ "count": count, "receives": receives, "since": since, "cause": "500" });
        body.to_string()
    }

    fn half_failing() -> Rig {
        Rig::new(answering(|connection| status(if connection == "a" { 200 } else { 429 })))
    }

    #[tokio::test(start_paused = true)]
    async fn past_its_age_a_message_that_would_be_handed_back_goes_to_the_dead_letter_queue()
    -> anyhow::Result<()> {
        let age = 7_800_000;
        let rig = half_failing();
        assert_eq!(rig.invoke(batch([retried(90, 0, EPOCH_MILLIS - age + 1)])).await?, ids([]));
        assert_eq!((rig.handed_back().len(), rig.dead().len()), (1, 0), "a moment before");

        let rig = half_failing();
        assert_eq!(rig.invoke(batch([retried(90, 2, EPOCH_MILLIS - age)])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        let dead = rig.dead();
        assert_eq!(dead.len(), 1);
        let expected = json!({ "version": 1, "id": "m", "to": { "connection": "b" }, "payload": "m" });
        assert_eq!(dead[0].json(), expected, "for the unfinished, and without `retry`");
        assert_eq!(dead[0].attribute("streamer.reason"), "exhausted");
        assert_eq!(dead[0].attribute("streamer.detail"), "429", "the last cause");
        assert_eq!(dead[0].attribute("streamer.attempts"), "93");
        assert_eq!(dead[0].attribute("streamer.since"), (EPOCH_MILLIS - age).to_string());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_delivered_is_not_asked_how_old_it_is() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        assert_eq!(rig.invoke(batch([retried(90, 50, 0)])).await?, ids([]));
        assert!(rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn ten_receives_that_may_have_killed_a_worker_are_enough_over_all_copies() -> anyhow::Result<()> {
        for (before, of_this_copy, given_up) in [(0, 9, false), (0, 10, true), (8, 1, false), (8, 2, true)] {
            let rig = half_failing();
            let mut event = batch([retried(40, before, EPOCH_MILLIS)]);
            let count = ("ApproximateReceiveCount".to_owned(), of_this_copy.to_string());
            event.records[0].attributes.extend([count]);
            assert_eq!(rig.invoke(event).await?, ids([]));
            assert_eq!(rig.dead().len() == 1, given_up, "{before} and {of_this_copy}");
            assert_eq!(rig.handed_back().len() == 1, !given_up);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn where_the_dead_letter_is_not_confirmed_the_message_stays() -> anyhow::Result<()> {
        let gateway = MemoryGateway::always(status(429));
        let dead_letters = QueueDouble::new(|_| Entry::NotTaken);
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), dead_letters);
        let event = [retried(90, 0, 0), message("n", &["c"]).to_string()];
        assert_eq!(rig.invoke(batch(event)).await?, ids(["record-0"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_stays_the_one_whom_the_dead_letter_is_for() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        connected(&rig, &["a"]).await;
        let mut body = to_user("m");
        body["retry"] = json!({ "count": 9, "receives": 0, "since": 0, "cause": "503", "done": ["b"] });
        rig.invoke(batch([body.to_string()])).await?;
        assert_eq!(rig.dead()[0].json(), to_user("m"), "who has it twice sees the same id");
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_without_message_ids_is_refused_before_anything_is_posted() {
    let rig = Rig::new(MemoryGateway::always(status(200)));
    let mut event = batch([message("1", &["a"]).to_string()]);
    let mut without = record(1, message("2", &["a"]).to_string());
    without.message_id = None;
    event.records.push(without);
    assert!(rig.invoke(event).await.is_err());
    assert!(rig.worker.gateway.posts().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_stands_in_an_event_twice_is_reported_once() -> anyhow::Result<()> {
    let rig = Rig::on(
        MemoryGateway::always(status(429)),
        TableDouble::default(),
        QueueDouble::failing("AccessDenied"),
        QueueDouble::taking(),
    );
    let mut event = batch([message("1", &["a"]).to_string()]);
    event.records.push(record(0, message("1", &["a"]).to_string()));
    assert_eq!(rig.invoke(event).await?, ids(["record-0"]));
    Ok(())
}
