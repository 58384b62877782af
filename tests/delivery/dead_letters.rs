//! Dead letters for each reason: their content, and the records that are reported when a queue fails.

use std::time::Duration;

use serde_json::json;
use streamer_gateway::PostResult;
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, TIMEOUT, payload_limit},
};
use tokio::time::Instant;

use crate::{answering, connect, ids, message_to_anna};

mod rejected {
    use super::*;

    /// A message whose payload is over 128 KiB becomes a dead letter.
    #[tokio::test(start_paused = true)]
    async fn large_payload_is_not_posted() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let body = |bytes: usize| {
            let mut body = message("m", &["a", "b"]);
            body["payload"] = "x".repeat(bytes - 2).into();
            body.to_string()
        };
        let bodies = [body(128 * 1024), body(128 * 1024 + 1)];
        assert_eq!(rig.invoke(batch(bodies.clone())).await?, ids([]));
        assert_eq!(rig.worker.gateway.posts().len(), 2, "only the first message is posted");
        let dead = rig.dead();
        assert_eq!((dead.len(), &dead[0].json()), (1, &serde_json::from_str(&bodies[1])?));
        assert_eq!(dead[0].attribute("streamer.reason"), "rejected");
        let detail = "the payload has 131073 bytes, at most 131072 are posted";
        assert_eq!(dead[0].attribute("streamer.detail"), detail);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn lower_limit_of_payloads_holds() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::always(status(200)));
        rig.worker.payloads = payload_limit(32 * 1024);
        let body = |bytes: usize| {
            let mut body = message("m", &["a"]);
            body["payload"] = "x".repeat(bytes - 2).into();
            body.to_string()
        };
        let bodies = [body(32 * 1024), body(32 * 1024 + 1)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.posts().len(), 1);
        let [dead] = &rig.dead()[..] else { panic!("one dead letter") };
        let detail = "the payload has 32769 bytes, at most 32768 are posted";
        assert_eq!(dead.attribute("streamer.detail"), detail);
        Ok(())
    }

    /// The answers are 413, and a 400 that does not blame the connection id.
    #[tokio::test(start_paused = true)]
    async fn dead_letter_carries_answer_and_connections() -> anyhow::Result<()> {
        for code in [413, 400] {
            let answer = PostResult::Status { status: code, message: "{\"message\":\"no\"}".to_owned() };
            let rig = Rig::new(answering(
                move |connection| {
                    if connection == "a" { status(200) } else { answer.clone() }
                },
            ));
            assert_eq!(rig.invoke(batch([message("m", &["a", "b", "c"]).to_string()])).await?, ids([]));
            let dead = rig.dead();
            assert_eq!(dead.len(), 1, "one dead letter for a message and a reason");
            assert_eq!(dead[0].json()["to"], json!({ "connections": ["b", "c"] }), "{code}");
            assert_eq!(dead[0].attribute("streamer.reason"), "rejected");
            assert_eq!(dead[0].attribute("streamer.detail"), format!("{code}: {{\"message\":\"no\"}}"));
            assert_eq!(rig.worker.gateway.posts().len(), 3, "no connection is posted to twice");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn rejection_does_not_hold_up_lane() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, nth| {
            (Duration::ZERO, status(if nth == 0 { 413 } else { 200 }))
        }));
        rig.invoke(batch(["1", "2"].map(|id| message(id, &["a"]).to_string()))).await?;
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
        Ok(())
    }
}

mod poison {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn poison_keeps_its_body() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let body = "\n { \"version\": 1,\t\"id\": \"é\" }  ";
        assert_eq!(rig.invoke(batch([body.to_owned(), message("m", &["a"]).to_string()])).await?, ids([]));

        let dead = rig.dead();
        assert_eq!((dead.len(), dead[0].body.as_str()), (1, body));
        assert_eq!(dead[0].attribute("streamer.reason"), "poison");
        assert!(dead[0].attribute("streamer.detail").starts_with("`to` is missing; expected one of"));
        assert_eq!(dead[0].attribute("streamer.attempts"), "1");
        assert_eq!(dead[0].attribute("streamer.since"), EPOCH_MILLIS.to_string());
        assert_eq!(rig.worker.gateway.texts("a").len(), 1, "the other message is delivered");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn unconfirmed_dead_letter_is_reported() -> anyhow::Result<()> {
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
    async fn failing_dead_letter_queue_reports_records() -> anyhow::Result<()> {
        let failing = QueueDouble::failing("AWS.SimpleQueueService.NonExistentQueue");
        let gateway = MemoryGateway::always(status(200));
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), failing);
        let bodies = ["1".to_owned(), message("m", &["a"]).to_string(), "3".to_owned()];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn silent_queues_leave_last_300_ms() -> anyhow::Result<()> {
        let rig = Rig::unanswered(answering(|connection| status(if connection == "a" { 200 } else { 429 })));
        let started = Instant::now();
        let bodies =
            ["1".to_owned(), message("m", &["a"]).to_string(), message("n", &["a", "b"]).to_string()];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        // The worker stops early when the next pause, of up to 1 s, would pass the settling end.
        let (took, settling_end) = (started.elapsed(), TIMEOUT - Duration::from_millis(300));
        assert!((settling_end - Duration::from_secs(1)..=settling_end).contains(&took), "{took:?}");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn oversized_dead_letter_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let bodies = ["x".repeat(1024 * 1024), "x".repeat(1023 * 1024), "y".repeat(1023 * 1024)];
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0"]));
        assert_eq!(rig.dead_letters.batches().len(), 2, "two dead letters of nearly 1 MiB need two batches");
        Ok(())
    }
}

mod exhausted {
    use super::*;

    /// Builds a message that was handed back before.
    fn retried(count: u32, receives: u32, since: u64) -> String {
        let mut body = message("m", &["a", "b"]);
        body["retry"] = json!({ "count": count, "receives": receives, "since": since, "cause": "500" });
        body.to_string()
    }

    /// Builds a worker that serves connection `a`, and whose posts to `b` are throttled.
    fn half_failing() -> Rig {
        Rig::new(answering(|connection| status(if connection == "a" { 200 } else { 429 })))
    }

    /// The dead letter is for the unfinished connections, with the last cause as its detail.
    #[tokio::test(start_paused = true)]
    async fn max_age_makes_dead_letter() -> anyhow::Result<()> {
        let age = 7_800_000;
        let rig = half_failing();
        assert_eq!(rig.invoke(batch([retried(90, 0, EPOCH_MILLIS - age + 1)])).await?, ids([]));
        assert_eq!((rig.handed_back().len(), rig.dead().len()), (1, 0), "1 ms before the maximum age");

        let rig = half_failing();
        assert_eq!(rig.invoke(batch([retried(90, 2, EPOCH_MILLIS - age)])).await?, ids([]));
        assert!(rig.handed_back().is_empty());
        let dead = rig.dead();
        assert_eq!(dead.len(), 1);
        let expected = json!({ "version": 1, "id": "m", "to": { "connection": "b" }, "payload": "m" });
        assert_eq!(dead[0].json(), expected, "for unfinished connections, without `retry`");
        assert_eq!(dead[0].attribute("streamer.reason"), "exhausted");
        assert_eq!(dead[0].attribute("streamer.detail"), "429", "the last cause");
        assert_eq!(dead[0].attribute("streamer.attempts"), "93");
        assert_eq!(dead[0].attribute("streamer.since"), (EPOCH_MILLIS - age).to_string());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn age_does_not_matter_once_delivered() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        assert_eq!(rig.invoke(batch([retried(90, 50, 0)])).await?, ids([]));
        assert!(rig.dead().is_empty());
        Ok(())
    }

    /// Possible crashes are every receive of this copy, and all but the first of each earlier copy.
    #[tokio::test(start_paused = true)]
    async fn ten_possible_crashes_exhaust_message() -> anyhow::Result<()> {
        for (earlier, of_this_copy, exhausted) in [(0, 9, false), (0, 10, true), (8, 1, false), (8, 2, true)]
        {
            let rig = half_failing();
            let mut event = batch([retried(40, earlier, EPOCH_MILLIS)]);
            let count = ("ApproximateReceiveCount".to_owned(), of_this_copy.to_string());
            event.records[0].attributes.extend([count]);
            assert_eq!(rig.invoke(event).await?, ids([]));
            assert_eq!(rig.dead().len() == 1, exhausted, "{earlier} and {of_this_copy}");
            assert_eq!(rig.handed_back().len() == 1, !exhausted);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn unconfirmed_dead_letter_keeps_record() -> anyhow::Result<()> {
        let gateway = MemoryGateway::always(status(429));
        let dead_letters = QueueDouble::new(|_| Entry::NotTaken);
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), dead_letters);
        let event = [retried(90, 0, 0), message("n", &["c"]).to_string()];
        assert_eq!(rig.invoke(batch(event)).await?, ids(["record-0"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn dead_letter_keeps_user_as_audience() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        connect(&rig, &["a"]).await;
        let mut body = message_to_anna("m");
        body["retry"] = json!({ "count": 9, "receives": 0, "since": 0, "cause": "503", "done": ["b"] });
        rig.invoke(batch([body.to_string()])).await?;
        assert_eq!(rig.dead()[0].json(), message_to_anna("m"), "a client that gets a copy sees the same id");
        Ok(())
    }
}
