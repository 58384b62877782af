//! How a message goes back to a standard queue: what is sent, when, and what is reported instead.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use delivery_worker::{admission::Gate, classify::PostResult};
use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{Rig, TIMEOUT},
};
use tokio::time::Instant;

use crate::{answering, ids, old};

fn on_queues(gateway: MemoryGateway, outbound: QueueDouble) -> Rig {
    Rig::on(gateway, TableDouble::default(), outbound, QueueDouble::taking())
}

/// The messages' ids of what was handed back, with their causes.
fn causes(rig: &Rig) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let sent = rig.handed_back().into_iter().map(|sent| sent.json());
    sent.map(|body| (text(&body["id"]), text(&body["retry"]["cause"]))).collect()
}

mod the_message {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn goes_back_as_it_came_for_the_unfinished_connections() -> anyhow::Result<()> {
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
    async fn counts_over_all_its_copies() -> anyhow::Result<()> {
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

    #[tokio::test(start_paused = true)]
    async fn for_a_user_stays_so_and_names_who_has_it() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|connection| match connection {
            "served" => status(200),
            "gone" => status(410),
            _ => status(429),
        }));
        for id in ["served", "gone", "slow", "before"] {
            rig.table.client().put(&connection(id, old())).await?;
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
        assert!(rig.worker.gateway.texts("before").is_empty(), "it has it");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn stays_on_the_queue_where_its_copy_is_not_confirmed() -> anyhow::Result<()> {
        for fault in [Entry::Refused, Entry::NotTaken, Entry::Unmentioned] {
            let outbound =
                QueueDouble::new(
                    move |entry| if entry.message_body().contains("\"2\"") { fault } else { Entry::Taken },
                );
            let rig = on_queues(MemoryGateway::always(status(429)), outbound);
            let bodies = ["1", "2", "3"].map(|id| message(id, &[id]).to_string());
            assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-1"]), "{fault:?}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn stays_on_the_queue_where_that_takes_nothing() -> anyhow::Result<()> {
        let rig = on_queues(
            answering(|connection| status(if connection == "2" { 200 } else { 429 })),
            QueueDouble::failing("AccessDenied"),
        );
        let bodies = ["1", "2", "3"].map(|id| message(id, &[id]).to_string());
        assert_eq!(rig.invoke(batch(bodies)).await?, ids(["record-0", "record-2"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn stays_on_the_queue_where_its_copy_would_be_too_large() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(429)));
        let mut body = message("m", &["a"]);
        body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 11).into();
        assert_eq!(body.to_string().len(), 1024 * 1024 - 1);
        assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids(["record-0"]));
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn is_acknowledged_only_when_its_dead_letter_is_confirmed_too() -> anyhow::Result<()> {
        let gateway = answering(|connection| status(if connection == "a" { 413 } else { 429 }));
        let dead_letters = QueueDouble::new(|_| Entry::NotTaken);
        let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), dead_letters);
        assert_eq!(rig.invoke(batch([message("m", &["a", "b"]).to_string()])).await?, ids(["record-0"]));
        Ok(())
    }
}

mod answers {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn that_say_nothing_about_message_or_connection_hand_it_back() -> anyhow::Result<()> {
        let others = (300..600).filter(|code| ![400, 410, 413].contains(code));
        for code in others.chain([100, 199, 600]) {
            let rig = Rig::new(MemoryGateway::always(status(code)));
            assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
            assert_eq!(causes(&rig), [("m".to_owned(), code.to_string())]);
            assert!(rig.dead().is_empty());
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_end_a_lane_hand_back_what_comes_after_it_untried() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, place| {
            (Duration::ZERO, status(if place == 1 { 429 } else { 200 }))
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

mod in_place {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_5xx_a_timeout_and_a_broken_connection_are_tried_three_times() -> anyhow::Result<()> {
        let broken = PostResult::Broken("reset".to_owned());
        for (answer, cause) in [
            (status(500), "500"),
            (status(503), "503"),
            (PostResult::Timeout, "timeout"),
            (broken, "connection: reset"),
        ] {
            let rig = Rig::new(MemoryGateway::always(answer));
            assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
            assert_eq!(rig.worker.gateway.posts().len(), 3);
            assert_eq!(causes(&rig), [("m".to_owned(), cause.to_owned())]);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_try_that_succeeds_is_the_last() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, place| {
            (Duration::ZERO, status(if place == 0 { 502 } else { 200 }))
        }));
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        assert_eq!(rig.worker.gateway.posts().len(), 2);
        assert!(rig.handed_back().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn everything_else_is_tried_once() -> anyhow::Result<()> {
        for code in [302, 400, 401, 403, 404, 408, 410, 413, 429] {
            let rig = Rig::new(MemoryGateway::always(status(code)));
            rig.invoke(batch([message("m", &["a"]).to_string()])).await?;
            assert_eq!(rig.worker.gateway.posts().len(), 1, "{code}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn the_pauses_are_anything_up_to_50_and_to_100_ms() -> anyhow::Result<()> {
        let (mut first, mut second) = (Vec::new(), Vec::new());
        for seed in 0..100 {
            fastrand::seed(seed);
            let rig = Rig::new(MemoryGateway::always(status(500)));
            rig.invoke(batch([message("m", &["a"]).to_string()])).await?;
            let at: Vec<_> = rig.worker.gateway.posts().into_iter().map(|post| post.at).collect();
            first.push((at[1] - at[0]).as_millis());
            second.push((at[2] - at[1]).as_millis());
        }
        let range = |pauses: &[u128]| (*pauses.iter().min().unwrap(), *pauses.iter().max().unwrap());
        let ((least, most), (later_least, later_most)) = (range(&first), range(&second));
        assert!(least <= 5 && (45..=51).contains(&most), "{least} to {most} ms");
        assert!(later_least <= 10 && (90..=101).contains(&later_most), "{later_least} to {later_most} ms");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_that_is_not_answered_within_5_s_is_given_up_and_made_again() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, place| {
            (Duration::from_secs(if place == 0 { 60 } else { 0 }), status(200))
        }));
        let started = Instant::now();
        assert_eq!(rig.invoke(batch([message("m", &["a"]).to_string()])).await?, ids([]));
        let took = started.elapsed();
        assert!(took >= Duration::from_secs(5) && took < Duration::from_millis(5100), "{took:?}");
        assert!(rig.handed_back().is_empty());
        Ok(())
    }
}

mod the_delay {
    use super::*;

    async fn delays(count: u32) -> BTreeSet<i32> {
        let mut delays = BTreeSet::new();
        for seed in 0..400 {
            fastrand::seed(seed);
            let rig = Rig::new(MemoryGateway::always(status(429)));
            let mut body = message("m", &["a"]);
            body["retry"] = json!({ "count": count, "receives": 0, "since": EPOCH_MILLIS, "cause": "429" });
            rig.invoke(batch([body.to_string()])).await.unwrap();
            delays.extend(rig.handed_back()[0].delay);
        }
        delays
    }

    #[tokio::test(start_paused = true)]
    async fn is_anything_up_to_a_window_that_doubles_up_to_60_s() {
        for (count, window) in [(0, 1), (1, 2), (3, 8), (6, 60), (1000, 60)] {
            assert_eq!(delays(count).await, (0..=window).collect(), "handed back {count} times before");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_at_most_1_s_where_only_time_was_short() -> anyhow::Result<()> {
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

mod the_deadline {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn begun_posts_run_for_half_of_the_last_3_s() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(4400), status(200))));
        let bodies: Vec<_> = (0..9).map(|id| message(&id.to_string(), &["a"]).to_string()).collect();
        let started = Instant::now();
        // In 27 s 7 posts begin; the last of them is given up at 28.5 s.
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        assert_eq!(started.elapsed(), TIMEOUT - Duration::from_millis(1500));
        assert_eq!(rig.worker.gateway.posts().len(), 7);
        let expected = ["6", "7", "8"].map(|id| (id.to_owned(), "deadline".to_owned()));
        assert_eq!(causes(&rig), expected);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn posts_that_begin_in_time_come_once() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(20), status(200))));
        rig.worker.gate = Gate::new(Some(33));
        let names: Vec<_> = (0..1000).map(|number| format!("c{number}")).collect();
        let messages = names.chunks(100).enumerate().map(|(id, names)| {
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            message(&id.to_string(), &names).to_string()
        });
        rig.invoke(batch(messages)).await?;
        let back = rig.handed_back();
        assert!(!back.is_empty(), "the pace leaves some for the next invocation");
        rig.invoke_at(epoch() + TIMEOUT, batch(back.into_iter().map(|sent| sent.body))).await?;
        assert_eq!(rig.worker.gateway.posts().len(), 1000);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn expires_while_it_waits_and_is_not_handed_back() -> anyhow::Result<()> {
        let mut rig = Rig::new(MemoryGateway::always(status(200)));
        rig.worker.gate = Gate::new(Some(1));
        let bodies = (0..20).map(|id| {
            let mut body = message(&id.to_string(), &[&format!("c{id}")]);
            body["expires_at"] = json!(EPOCH_MILLIS + 2500);
            body.to_string()
        });
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let posts = rig.worker.gateway.posts().len();
        assert!((1..10).contains(&posts), "{posts} posts");
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn no_try_begins_after_it() -> anyhow::Result<()> {
        for seed in 0..50 {
            fastrand::seed(seed);
            let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_millis(2_460), status(500))));
            let deadline = Instant::now() + Duration::from_millis(2500);
            let event = batch([message("m", &["a"]).to_string()]);
            rig.invoke_within(epoch(), Duration::from_secs(4), event).await?;
            let posts = rig.worker.gateway.posts();
            assert!(posts.len() <= 2 && posts.iter().all(|post| post.at < deadline), "{posts:?}");
            assert!(Instant::now() <= deadline + Duration::from_millis(750));
            assert_eq!(rig.handed_back().len(), 1);
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_whose_time_is_up_posts_nothing() -> anyhow::Result<()> {
        let rig = Rig::new(MemoryGateway::always(status(200)));
        let event = batch([message("m", &["a"]).to_string()]);
        let report = rig.invoke_within(epoch(), Duration::ZERO, event).await?;
        assert!(rig.worker.gateway.posts().is_empty());
        assert_eq!((report.len() + rig.handed_back().len()), 1, "it is on the queue all the same");
        Ok(())
    }
}

mod a_panic {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn in_one_lane_touches_no_other_and_its_messages_are_reported_not_sent_again() -> anyhow::Result<()>
    {
        let rig = Rig::new(answering(|connection| match connection {
            "a" => panic!("the gateway in memory panics as it is told"),
            "b" => status(429),
            _ => status(200),
        }));
        let bodies =
            [message("1", &["a", "b"]), message("2", &["b"]), message("3", &["c"]), message("4", &["a"])];
        let reported = rig.invoke(batch(bodies.map(|body| body.to_string()))).await?;
        assert_eq!(reported, ids(["record-0", "record-3"]));
        assert_eq!(rig.worker.gateway.texts("c"), ["\"3\""]);
        let sent: Vec<_> = causes(&rig).into_iter().map(|(id, _)| id).collect();
        assert_eq!(sent, ["2"]);
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn again_and_again_ends_in_the_dead_letter_queue() -> anyhow::Result<()> {
        let rig = Rig::new(answering(|_| panic!("the gateway in memory panics as it is told")));
        let mut event = batch([message("m", &["a"]).to_string()]);
        event.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "10".to_owned());
        assert_eq!(rig.invoke(event).await?, ids([]));
        assert_eq!(rig.dead()[0].attribute("streamer.detail"), "the worker panicked");
        Ok(())
    }
}

/// The clock that tells how old a message is goes on while the worker works.
#[tokio::test(start_paused = true)]
async fn a_message_is_as_old_as_it_is_when_it_would_be_handed_back() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::scripted(|_, _| (Duration::from_secs(4), status(429))));
    let mut body = message("m", &["a"]);
    let since = epoch() - Duration::from_secs(7800 - 2);
    let millis = since.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    body["retry"] = json!({ "count": 1, "receives": 0, "since": millis, "cause": "429" });
    rig.invoke(batch([body.to_string()])).await?;
    assert_eq!((rig.handed_back().len(), rig.dead().len()), (0, 1));
    Ok(())
}
