//! Hand-backs to a standard queue: their content, their delay, and the records that are reported instead.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{answering, causes, ids, long_ago};

fn rig_with_queue(gateway: MemoryGateway, outbound: QueueDouble) -> Rig {
    Rig::on(gateway, TableDouble::default(), outbound, QueueDouble::taking())
}

mod message {
    use super::*;

    /// Every other field keeps its value, also one that this version does not know; the payload keeps its bytes.
    #[tokio::test(start_paused = true)]
    async fn keeps_fields_for_unfinished_connections() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| match connection {
            "a" => status(200),
            "b" => status(410),
            "c" => status(413),
            _ => status(429),
        }));
        let body = r#"{"trace": {"x": [1.0]}, "version":1,"id":"m","to":{"connections":["a","b","c","d","e"],"via":1.5},
            "payload": { "b": 1.0 , "a": [ ] }, "request":{"id":"r","seq":7,"span":"s"},"supersedable":true,
            "expires_at":1764000099000}"#;
        let mut event = batch([body]);
        let record = &mut event.records[0];
        record.attributes.insert("MessageGroupId".to_owned(), "acme".to_owned());
        record
            .attributes
            .insert("AWSTraceHeader".to_owned(), "Root=1-5759e988-bd862e3fe1be46a994272793".to_owned());
        record.attributes.insert("ApproximateReceiveCount".to_owned(), "3".to_owned());
        assert_eq!(rig.invoke(event).await?, ids([]));

        let back = rig.handed_back();
        let expected = json!({
            "version": 1,
            "id": "m",
            "to": { "connections": ["d", "e"], "via": 1.5 },
            "request": { "id": "r", "seq": 7, "span": "s" },
            "supersedable": true,
            "expires_at": 1_764_000_099_000_u64,
            "retry": { "count": 1, "receives": 2, "since": EPOCH_MILLIS, "cause": "429" },
            "trace": { "x": [1.0] },
        });
        let mut found = back[0].json_with_raw_payload("{ \"b\": 1.0 , \"a\": [ ] }");
        assert_eq!(found.as_object_mut().unwrap().remove("payload"), Some(Value::Null));
        assert_eq!((back.len(), found), (1, expected));
        assert_eq!(back[0].group.as_deref(), Some("acme"));
        assert_eq!(back[0].trace.as_deref(), Some("Root=1-5759e988-bd862e3fe1be46a994272793"));
        assert!(back[0].attributes.is_empty() && back[0].deduplication_id.is_none());

        let dead = rig.dead();
        assert_eq!((dead.len(), &dead[0].json()["to"]), (1, &json!({ "connection": "c", "via": 1.5 })));
        assert_eq!(dead[0].group.as_deref(), Some("acme"));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn retry_counts_span_all_copies() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        let mut body = message("m", &["a"]);
        body["retry"] = json!({ "count": 4, "receives": 2, "since": 1_763_999_999_000_u64, "cause": "500" });
        let mut event = batch([body.to_string()]);
        event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "2".to_owned());
        rig.invoke(event).await?;
        let retry = json!({ "count": 5, "receives": 3, "since": 1_763_999_999_000_u64, "cause": "429" });
        assert_eq!(rig.handed_back()[0].json()["retry"], retry);
        Ok(())
    }

    /// The audience stays the user; `retry.done` has the connections that were served.
    #[tokio::test(start_paused = true)]
    async fn user_message_lists_served_connections() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| match connection {
            "served" => status(200),
            "gone" => status(410),
            _ => status(429),
        }));
        for id in ["served", "gone", "slow", "before"] {
            rig.table.client().put(&connection(id, long_ago())).await?;
        }
        let to = json!({ "user": { "tenant": "acme", "user": "anna" } });
        let retry =
            json!({ "count": 1, "receives": 0, "since": EPOCH_MILLIS, "cause": "429", "done": ["before"] });
        let body = json!({ "version": 1, "id": "m", "to": to, "payload": 1, "retry": retry });
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));

        let back = rig.handed_back()[0].json();
        assert_eq!((&back["to"], &back["retry"]["count"]), (&to, &json!(2)));
        let done: BTreeSet<_> =
            back["retry"]["done"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert_eq!(done, BTreeSet::from(["before", "served"]));
        assert!(rig.worker.gateway.texts("before").is_empty(), "a served connection gets no second copy");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn unconfirmed_copy_is_reported() -> anyhow::Result<()> {
        for fault in [Entry::Refused, Entry::NotTaken, Entry::Unmentioned] {
            let outbound =
                QueueDouble::new(
                    move |entry| if entry.message_body().contains("\"2\"") { fault } else { Entry::Taken },
                );
            let rig = rig_with_queue(MemoryGateway::always(status(429)), outbound);
            let bodies = ["1", "2", "3"].map(|id| message(id, &[id]).to_string());
            assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-1"]), "{fault:?}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn failing_queue_reports_records() -> anyhow::Result<()> {
        let rig = rig_with_queue(
            answering(|connection| status(if connection == "2" { 200 } else { 429 })),
            QueueDouble::failing("AccessDenied"),
        );
        let bodies = ["1", "2", "3"].map(|id| message(id, &[id]).to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn oversized_copy_is_reported() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        let mut body = message("m", &["a"]);
        body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 11).into();
        assert_eq!(body.to_string().len(), 1024 * 1024 - 1);
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids(["record-0"]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    /// The record is reported although the hand-back for its other connection is confirmed.
    #[tokio::test(start_paused = true)]
    async fn unconfirmed_dead_letter_is_reported() -> anyhow::Result<()> {
        let gateway = answering(|connection| status(if connection == "a" { 413 } else { 429 }));
        let dead_letters = QueueDouble::new(|_| Entry::NotTaken);
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), dead_letters);
        assert_eq!(rig.invoke(batch([message("m", &["a", "b"]).to_string()])).await?, ids(["record-0"]));
        Ok(())
    }
}

mod answers {
    use super::*;

    /// Every status except 2xx, 400, 410 and 413 says nothing about the message or the connection.
    #[tokio::test(start_paused = true)]
    async fn unspecific_status_hands_message_back() -> anyhow::Result<()> {
        let others = (300..600).filter(|code| ![400, 410, 413].contains(code));
        for code in others.chain([100, 199, 600]) {
            let rig = Rig::new(MemoryGateway::always(status(code)));
            assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
            assert_eq!(causes(&rig), [("m".to_owned(), code.to_string())]);
            assert!(rig.dead().is_empty());
        }
        Ok(())
    }

    /// The later messages of the lane are handed back without a post.
    #[tokio::test(start_paused = true)]
    async fn failure_hands_rest_of_lane_back() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, nth| {
            (Duration::ZERO, status(if nth == 1 { 429 } else { 200 }))
        }));
        let bodies = ["1", "2", "3", "4"].map(|id| message(id, &["a"]).to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\""]);
        let behind = "behind a message that was handed back";
        let expected = [("2", "429"), ("3", behind), ("4", behind)];
        assert_eq!(causes(&rig), expected.map(|(id, cause)| (id.to_owned(), cause.to_owned())));
        Ok(())
    }
}

mod delay {
    use super::*;

    /// Returns every delay of a message that was handed back `count` times before, and first received this long ago, over
    /// 400 seeds.
    async fn delays(count: u32, millis: u64) -> BTreeSet<i32> {
        let mut delays = BTreeSet::new();
        for seed in 0..400 {
            fastrand::seed(seed);
            let rig = Rig::new(MemoryGateway::always(status(429)));
            let mut body = message("m", &["a"]);
            let since = EPOCH_MILLIS - millis;
            body["retry"] = json!({ "count": count, "receives": 0, "since": since, "cause": "429" });
            rig.invoke(batch([body.to_string()])).await.unwrap();
            delays.extend(rig.handed_back()[0].delay);
        }
        delays
    }

    /// The window grows from 1 s to 60 s.
    #[tokio::test(start_paused = true)]
    async fn is_random_within_doubling_window() {
        for (count, window) in [(0, 1), (1, 2), (3, 8), (6, 60), (1000, 60)] {
            assert_eq!(delays(count, 0).await, (0..=window).collect(), "handed back {count} times before");
        }
    }

    /// Not after few tries, which may have waited for something else.
    #[tokio::test(start_paused = true)]
    async fn is_long_after_five_minutes() {
        assert_eq!(delays(6, 300_000).await, (50..=90).collect());
        assert_eq!(delays(3, 300_000).await, (0..=8).collect());
    }

    /// A message that only lacked time is handed back with a delay of 0 or 1 s, however often that happened.
    #[tokio::test(start_paused = true)]
    async fn is_short_after_the_deadline() -> anyhow::Result<()> {
        let mut delays = BTreeSet::new();
        for seed in 0..50 {
            fastrand::seed(seed);
            let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(4999), status(200))));
            let bodies = (0..7).map(|id| {
                let mut body = message(&id.to_string(), &["a"]);
                body["retry"] = json!({ "count": 50, "receives": 0, "since": EPOCH_MILLIS, "cause": "429" });
                body.to_string()
            });
            rig.invoke(batch(bodies)).await?;
            delays.extend(rig.handed_back().iter().filter_map(|sent| sent.delay));
        }
        assert_eq!(delays, [0, 1].into());
        Ok(())
    }
}

mod panics {
    use super::*;

    /// The messages of the lane are reported and not handed back; other lanes go on.
    #[tokio::test(start_paused = true)]
    async fn reports_only_messages_of_its_lane() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| match connection {
            "a" => panic!("scripted panic"),
            "b" => status(429),
            _ => status(200),
        }));
        let bodies =
            [message("1", &["a", "b"]), message("2", &["b"]), message("3", &["c"]), message("4", &["a"])];
        let reported = rig.invoke(batch(bodies.map(|body| body.to_string()))).await?;
        assert_eq!(reported, ids(["record-0", "record-3"]));
        assert_eq!(rig.worker.gateway.texts("c"), ["\"3\""]);
        let handed_back: Vec<_> = causes(&rig).into_iter().map(|(id, _)| id).collect();
        assert_eq!(handed_back, ["2"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn repeated_panics_exhaust_message() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|_| panic!("scripted panic")));
        let mut event = batch([message("m", &["a"]).to_string()]);
        event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "10".to_owned());
        assert_eq!(rig.invoke(event).await?, ids([]));
        assert_eq!(rig.dead()[0].attribute("streamer.detail"), "the worker panicked");
        Ok(())
    }
}

/// The message passes its maximum age during the post.
#[tokio::test(start_paused = true)]
async fn age_counts_at_hand_back() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(4), status(429))));
    let mut body = message("m", &["a"]);
    let since = epoch() - Duration::from_secs(7800 - 2);
    let millis = since.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    body["retry"] = json!({ "count": 1, "receives": 0, "since": millis, "cause": "429" });
    rig.invoke(batch([body.to_string()])).await?;
    assert_eq!((rig.handed_back().len(), rig.dead().len()), (0, 1));
    Ok(())
}
