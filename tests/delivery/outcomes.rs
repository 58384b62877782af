//! Outcomes without a dead letter or an absent recipient: delivered, expired and superseded.

use std::time::Duration;

use serde_json::{Value, json};
use streamer_connections::Connection;
use streamer_events::SqsEvent;
use streamer_tests::{
    doubles::{QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message, record},
    gateway::{MemoryGateway, status},
    worker::Rig,
};
use tokio::time::Instant;

use crate::{connect, ids, long_ago, message_to_anna, rig_with_table};

mod delivered {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn accepted_message_is_acknowledged() -> anyhow::Result<()> {
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
    async fn duplicate_connection_gets_message_once() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        rig.invoke(batch([message("m", &["a", "b", "a"]).to_string()])).await?;
        assert_eq!(rig.worker.gateway.texts("a").len(), 1);
        Ok(())
    }

    /// The posts to a connection are made one at a time, in order of arrival.
    #[tokio::test(start_paused = true)]
    async fn connection_gets_messages_in_order() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, nth| {
            (Duration::from_millis(100 - 30 * nth as u64), status(200))
        }));
        rig.invoke(batch(["1", "2", "3"].map(|id| message(id, &["a"]).to_string()))).await?;
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\"", "\"3\""]);
        assert_eq!(rig.worker.gateway.most_in_flight(), 1);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn connections_run_in_parallel_within_limit() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200))));
        let connections: Vec<Vec<String>> =
            (0..3).map(|message| (0..100).map(|number| format!("{message}-{number}")).collect()).collect();
        let bodies = connections.iter().enumerate().map(|(index, connections)| {
            let connections: Vec<_> = connections.iter().map(String::as_str).collect();
            message(&index.to_string(), &connections).to_string()
        });
        let started = Instant::now();
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let most = rig.worker.gateway.most_in_flight();
        assert!((128..=131).contains(&most), "{most}: the limit grows by one for each round of posts");
        assert_eq!(started.elapsed().as_millis(), 60, "300 posts in three rounds");
        Ok(())
    }

    /// Expired connections and those of other endpoints get no post.
    #[tokio::test(start_paused = true)]
    async fn every_live_connection_gets_user_message() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        connect(&rig, &["a", "b"]).await;
        let endpoint = "https://other.example.com/production".to_owned();
        let elsewhere = Connection { endpoint, ..connection("elsewhere", long_ago()) };
        let expired = Connection { expires_at: epoch(), ..connection("expired", long_ago()) };
        for row in [elsewhere, expired] {
            rig.table.client().put(&row).await?;
        }
        assert_eq!(rig.invoke(batch([message_to_anna("m").to_string()])).await?, ids([]));
        let posts = rig.worker.gateway.posts().into_iter().map(|post| post.connection);
        assert_eq!(posts.collect::<Vec<_>>(), ["a", "b"]);
        assert!(rig.handed_back().is_empty());
        Ok(())
    }
}

mod expired {
    use super::*;

    /// Builds a message that expires at `at`, in milliseconds since the Unix epoch.
    fn expiring(id: &str, at: u64) -> String {
        let mut body = message(id, &["a"]);
        body["expires_at"] = at.into();
        body.to_string()
    }

    /// The message is acknowledged.
    #[tokio::test(start_paused = true)]
    async fn expired_message_is_not_posted() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let bodies =
            [expiring("now", EPOCH_MILLIS), expiring("soon", EPOCH_MILLIS + 1), expiring("never", u64::MAX)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"soon\"", "\"never\""]);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    /// Messages may expire while earlier ones of their lane are posted.
    #[tokio::test(start_paused = true)]
    async fn expiry_is_checked_before_each_post() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(1), status(200))));
        let bodies = [expiring("1", u64::MAX), expiring("2", EPOCH_MILLIS + 900), expiring("3", u64::MAX)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"3\""]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn expiry_is_checked_before_retries() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(1), status(503))));
        assert_eq!(rig.invoke(batch([expiring("1", EPOCH_MILLIS + 900)])).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a").len(), 1);
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    /// Without its expiry, the message would be rejected for its size, or exhausted by its age.
    #[tokio::test(start_paused = true)]
    async fn expired_message_becomes_no_dead_letter() -> anyhow::Result<()> {
        let mut body = message("m", &["a"]);
        body["expires_at"] = (EPOCH_MILLIS - 1).into();
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
    async fn expired_message_reads_no_table() -> anyhow::Result<()> {
        let rig = rig_with_table(MemoryGateway::always(status(200)), TableDouble::failing());
        let mut body = message_to_anna("m");
        body["expires_at"] = EPOCH_MILLIS.into();
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }
}

mod superseded {
    use super::*;

    /// Builds a progress update: a supersedable message of the request `r`.
    fn progress(id: &str, seq: u64, connections: &[&str]) -> String {
        let mut body = message(id, connections);
        body["request"] = json!({ "id": "r", "seq": seq });
        body["supersedable"] = true.into();
        body.to_string()
    }

    /// The later message is of the same request, and replaces the update for its own connections only.
    #[tokio::test(start_paused = true)]
    async fn later_message_replaces_progress_update() -> anyhow::Result<()> {
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

    /// The superseded message is acknowledged without a post or a hand-back.
    #[tokio::test(start_paused = true)]
    async fn only_the_successor_is_handed_back() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        let bodies = [progress("1", 1, &["a"]), progress("2", 2, &["a"])];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let back: Vec<_> = rig.handed_back().iter().map(|sent| sent.json()["id"].clone()).collect();
        assert_eq!(back, ["2"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn oversized_message_supersedes_nothing() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let mut large: Value = serde_json::from_str(&progress("2", 2, &["a"]))?;
        large["payload"] = "x".repeat(128 * 1024).into();
        assert_eq!(rig.invoke(batch([progress("1", 1, &["a"]), large.to_string()])).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\""]);
        Ok(())
    }
}

/// Returns a batch of two messages, the second without the id that names it in the response.
fn with_unnamed() -> SqsEvent {
    let mut event = batch(["1", "2"].map(|id| message(id, &["a"]).to_string()));
    event.records[1].message_id = None;
    event
}

#[tokio::test(start_paused = true)]
async fn unnamed_record_is_delivered() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(200)));
    assert_eq!(rig.invoke(with_unnamed()).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
    Ok(())
}

/// SQS would delete it after any response. A hand-back needs no name, so only a failing queue leads here.
#[tokio::test(start_paused = true)]
async fn unnamed_unacknowledged_record_fails_the_batch() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(429)));
    assert_eq!(rig.invoke(with_unnamed()).await?, ids([]));
    assert_eq!(rig.handed_back().len(), 2);

    let rig = Rig::on(
        MemoryGateway::always(status(429)),
        TableDouble::default(),
        QueueDouble::failing("AccessDenied"),
        QueueDouble::taking(),
    );
    let error = rig.invoke(with_unnamed()).await.unwrap_err().to_string();
    assert!(error.starts_with("a record without messageId must be delivered again"), "{error}");

    let rig = Rig::fifo(MemoryGateway::always(status(429)));
    assert!(rig.invoke(with_unnamed()).await.is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn duplicate_record_is_reported_once() -> anyhow::Result<()> {
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
