//! Users and tenants of any size.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aws_lambda_events::sqs::SqsEvent;
use delivery_worker::queue::Queue;
use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Answer, CallsDouble, Crowd, Entry, QueueDouble, TableDouble, Told},
    event::{batch, epoch, message, record},
    gateway::{MemoryGateway, status},
    worker::{Rig, Sent},
};
use tokio::time::Instant;

use crate::ids;

const KEEPS: &str = r#""payload":{"b":1.50, "a":[ ]}"#;

/// A message with everything that its parts keep.
fn addressed(to: &Value) -> String {
    format!(
        r#"{{"version":1,"id":"m","to":{to},{KEEPS},"request":{{"id":"r","seq":7}},"supersedable":true,"expires_at":1764000600000,"later":[1, 2]}}"#
    )
}

fn tenant() -> String {
    addressed(&json!({ "tenant": "acme" }))
}

fn shard(after: Option<&str>) -> String {
    match after {
        None => addressed(&json!({ "tenant": "acme", "shard": 3 })),
        Some(after) => addressed(&json!({ "tenant": "acme", "shard": 3, "after": after })),
    }
}

fn rig(crowd: &Crowd) -> Rig {
    on(crowd, QueueDouble::taking())
}

fn on(crowd: &Crowd, outbound: QueueDouble) -> Rig {
    let gateway = MemoryGateway::always(status(200));
    let mut rig = Rig::on(gateway, TableDouble::default(), outbound, QueueDouble::taking());
    rig.worker.table = crowd.client();
    rig
}

/// The event with its group and its trace.
fn event(body: String) -> SqsEvent {
    let mut event = batch([body]);
    for (name, value) in
        [("MessageGroupId", "acme"), ("AWSTraceHeader", "Root=1-5759e988-bd862e3fe1be46a994272793")]
    {
        event.records[0].attributes.insert(name.to_owned(), value.to_owned());
    }
    event
}

/// Everything but the audience is as it came, and there is no `retry`.
fn is_a_part(sent: &Sent) {
    let kept = sent.json();
    assert!(sent.body.contains(KEEPS) && sent.body.contains(r#""later":[1, 2]"#), "{}", sent.body);
    assert_eq!(
        (&kept["id"], &kept["request"]["seq"], &kept["supersedable"]),
        (&json!("m"), &json!(7), &json!(true))
    );
    assert_eq!((&kept["expires_at"], kept.get("retry")), (&json!(1_764_000_600_000_u64), None));
    assert_eq!(sent.group.as_deref(), Some("acme"));
    assert!(sent.trace.is_some() && sent.delay.is_none_or(|delay| delay == 0));
}

fn recipients(sent: &[Sent]) -> Vec<String> {
    let of = |sent: &Sent| match &sent.json()["to"] {
        Value::Object(to) if to.contains_key("connection") => vec![to["connection"].clone()],
        to => to["connections"].as_array().cloned().unwrap_or_default(),
    };
    sent.iter().flat_map(of).map(|id| id.as_str().unwrap().to_owned()).collect()
}

mod a_tenant {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn becomes_a_message_for_each_shard_and_reads_nothing() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 100_000)]);
        let rig = rig(&crowd);
        assert_eq!(rig.invoke(event(tenant())).await?, ids([]));
        let parts = rig.handed_back();
        parts.iter().for_each(is_a_part);
        let shards: Vec<_> = parts.iter().map(|part| part.json()["to"].clone()).collect();
        let expected: Vec<_> = (0..8).map(|shard| json!({ "tenant": "acme", "shard": shard })).collect();
        assert_eq!((shards, crowd.read().0), (expected, 0));
        assert!(rig.worker.gateway.posts().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn of_which_a_part_is_not_confirmed_goes_back_whole() -> anyhow::Result<()> {
        for fault in [Entry::NotTaken, Entry::Unmentioned] {
            let refuses = move |entry: &aws_sdk_sqs::types::SendMessageBatchRequestEntry| {
                if entry.message_body().contains(r#""shard":5"#) { fault } else { Entry::Taken }
            };
            let rig = on(&Crowd::new([("acme", 10)]), QueueDouble::new(refuses));
            assert_eq!(rig.invoke(event(tenant())).await?, ids([]));
            let back = rig.handed_back().pop().unwrap().json();
            assert_eq!((&back["to"], &back["retry"]["count"]), (&json!({ "tenant": "acme" }), &json!(1)));
        }
        let rig = on(&Crowd::new([("acme", 10)]), QueueDouble::failing("InternalFailure"));
        assert_eq!(rig.invoke(event(tenant())).await?, ids(["record-0"]));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_has_expired_or_is_too_large_is_not_expanded() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 10)]);
        let rig = rig(&crowd);
        let late = epoch() + Duration::from_secs(601);
        assert_eq!(rig.invoke_at(late, batch([tenant(), shard(None)])).await?, ids([]));
        let large =
            json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": "x".repeat(131_073) });
        assert_eq!(rig.invoke(batch([large.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty() && crowd.read().0 == 0);
        assert_eq!(rig.dead()[0].attribute("streamer.reason"), "rejected");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_fifo_queue_is_rejected() -> anyhow::Result<()> {
        let rig = Rig::fifo(MemoryGateway::always(status(200)));
        let mut event = batch([tenant(), shard(None)]);
        for record in &mut event.records {
            record.attributes.insert("MessageGroupId".to_owned(), record.message_id.clone().unwrap());
        }
        rig.invoke(event).await?;
        let dead = rig.dead();
        assert_eq!(dead.len(), 2);
        assert!(dead[0].attribute("streamer.detail").contains("a FIFO queue takes no message for a tenant"));
        Ok(())
    }
}

mod a_shard {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn of_one_messages_worth_is_delivered_in_place() -> anyhow::Result<()> {
        for (number, after, first) in
            [(800, None, 0), (0, None, 0), (8, None, 0), (1600, Some("acme#3-149"), 150)]
        {
            let crowd = Crowd::new([("acme", number)]);
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(event(shard(after))).await?, ids([]));
            let posted: BTreeSet<_> =
                rig.worker.gateway.posts().into_iter().map(|post| post.connection).collect();
            assert_eq!(posted, crowd.ids("acme#3").split_off(first).into_iter().collect());
            assert!(rig.handed_back().is_empty() && crowd.read().0 <= 2, "{number}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn of_more_becomes_messages_for_100_each() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 2345)]);
        let rig = rig(&crowd);
        assert_eq!(rig.invoke(event(shard(None))).await?, ids([]));
        let parts = rig.handed_back();
        parts.iter().for_each(is_a_part);
        assert_eq!(recipients(&parts), crowd.ids("acme#3"));
        // All are full but the last, and five share a call.
        assert_eq!((parts.len(), rig.outbound.calls()), (24, 5));
        // Two looks, and then all pages.
        assert_eq!(crowd.read(), (2 + 24, 200 + 2345));
        assert!(rig.worker.gateway.posts().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_could_not_be_finished_goes_back_for_its_unfinished_connections() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 5)]);
        let mut rig = Rig::new(crate::answering(|posted| {
            status(if posted.ends_with("-2") || posted.ends_with("-4") { 429 } else { 200 })
        }));
        rig.worker.table = crowd.client();
        assert_eq!(rig.invoke(event(shard(None))).await?, ids([]));
        let back = rig.handed_back();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].json()["to"], json!({ "connections": ["acme#3-2", "acme#3-4"] }));
        assert_eq!((&back[0].json()["retry"]["count"], back[0].group.as_deref()), (&json!(1), Some("acme")));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn that_cannot_be_read_goes_back_as_it_is() -> anyhow::Result<()> {
        let rig = Rig::on(
            MemoryGateway::always(status(200)),
            TableDouble::failing(),
            QueueDouble::taking(),
            QueueDouble::taking(),
        );
        assert_eq!(rig.invoke(event(shard(Some("acme#3-7")))).await?, ids([]));
        let back = rig.handed_back().remove(0).json();
        assert_eq!(back["to"], json!({ "tenant": "acme", "shard": 3, "after": "acme#3-7" }));
        assert!(back["retry"]["cause"].as_str().unwrap().contains("Query"), "{back}");
        Ok(())
    }
}

mod a_large_audience {
    use super::*;

    /// Invokes workers, one after another, until nothing of a shard is left, and returns how often each connection is named, and how many
    /// invocations that took.
    async fn drain(
        crowd: &Crowd,
        outbound: impl Fn() -> QueueDouble,
    ) -> anyhow::Result<(BTreeMap<String, usize>, usize)> {
        let (mut todo, mut named, mut invocations) = (vec![shard(None)], BTreeMap::new(), 0);
        while let Some(body) = todo.pop() {
            let rig = on(crowd, outbound());
            let reported = rig.invoke(event(body.clone())).await?;
            invocations += 1;
            anyhow::ensure!(invocations < 1000, "it never ends");
            if !reported.is_empty() {
                todo.push(body);
            }
            // What the queue has taken, and nothing else.
            for sent in rig.outbound.taken() {
                let sent = Sent::from(sent);
                if sent.json()["to"]["shard"].is_null() {
                    recipients(&[sent]).into_iter().for_each(|id| *named.entry(id).or_default() += 1);
                } else {
                    todo.push(sent.body);
                }
            }
            // The rest of the last page may have been delivered in place.
            for post in rig.worker.gateway.posts() {
                *named.entry(post.connection).or_default() += 1;
            }
        }
        Ok((named, invocations))
    }

    #[tokio::test(start_paused = true)]
    async fn is_resumed_where_a_worker_stopped_and_nobody_is_named_twice() -> anyhow::Result<()> {
        // An invocation spreads for 5 s: so many pages, and in the last of them another page's end each time.
        for millis in [300, 450, 700, 900, 1300, 2400] {
            let crowd = Crowd::new([("acme", 8 * 20_050)]).paged(1000, Duration::from_millis(millis));
            let (named, invocations) = drain(&crowd, QueueDouble::taking).await?;
            assert_eq!(named.keys().count(), 20_050, "{millis}");
            assert!(named.values().all(|times| *times == 1), "{millis}");
            assert!(invocations >= 3, "{invocations}");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn of_which_a_part_was_not_confirmed_is_sent_again_that_alone() -> anyhow::Result<()> {
        for nth in 0..11 {
            let crowd = Crowd::new([("acme", 8 * 1050)]);
            let counter = Arc::new(AtomicUsize::new(0));
            let outbound = || {
                let counter = Arc::clone(&counter);
                QueueDouble::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) == nth {
                    true => Entry::NotTaken,
                    false => Entry::Taken,
                })
            };
            let (named, invocations) = drain(&crowd, outbound).await?;
            assert_eq!((named.keys().count(), invocations), (1050, 1), "{nth}");
            assert!(named.values().all(|times| *times == 1), "{nth}");
        }
        Ok(())
    }

    /// Its queue fails again and again: everybody is named, and nobody more often than once for each time it failed.
    #[tokio::test(start_paused = true)]
    async fn whose_queue_fails_for_long_goes_on_behind_what_was_confirmed() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 3050)]);
        let (counter, began) = (Arc::new(AtomicUsize::new(0)), Instant::now());
        let outbound = || {
            let counter = Arc::clone(&counter);
            // The second lot of parts, for longer than an invocation tries.
            QueueDouble::new(move |entry| {
                let part = !entry.message_body().contains("\"shard\"");
                let place = if part { counter.fetch_add(1, Ordering::Relaxed) } else { 0 };
                let fails = place >= 5 && began.elapsed() < Duration::from_secs(6);
                if fails { Entry::NotTaken } else { Entry::Taken }
            })
        };
        let (named, invocations) = drain(&crowd, outbound).await?;
        assert_eq!((named.keys().count(), invocations), (3050, 2));
        assert!(named.values().all(|times| *times == 1));
        Ok(())
    }

    /// A worker that is killed at any page leaves the message on the queue: the next one begins anew.
    #[tokio::test(start_paused = true)]
    async fn whose_worker_is_killed_at_a_page_names_everybody() -> anyhow::Result<()> {
        let mut killed_in_the_middle = 0;
        for millis in (0..400).step_by(13) {
            let crowd = Crowd::new([("acme", 8 * 3050)]).paged(100, Duration::from_millis(10));
            let killed = rig(&crowd);
            let died =
                tokio::time::timeout(Duration::from_millis(millis), killed.invoke(event(shard(None)))).await;
            let mut named: BTreeSet<_> = recipients(&killed.handed_back()).into_iter().collect();
            if died.is_err() {
                killed_in_the_middle += usize::from(!named.is_empty());
                assert!(named.len() < 3050, "it was not acknowledged, so it was not done");
                named.extend(drain(&crowd, QueueDouble::taking).await?.0.into_keys());
            }
            assert_eq!(named.len(), 3050, "killed after {millis} ms");
        }
        assert!(killed_in_the_middle > 3, "{killed_in_the_middle}");
        Ok(())
    }

    /// Settling has its time, whatever a queue does with the parts: what else is in the batch is confirmed.
    #[tokio::test(start_paused = true)]
    async fn keeps_no_time_from_what_else_is_in_the_batch() -> anyhow::Result<()> {
        // Two looks and a page take until half a second before the deadline, and then the queue never answers the parts.
        let crowd = Crowd::new([("acme", 8 * 1050)]).paged(100, Duration::from_millis(4500));
        let calls = CallsDouble::new(|_, entries| Answer {
            after: Duration::from_millis(5),
            what: match entries[0].body.contains("retry") {
                true => Told::Entries(Vec::new()),
                false => Told::Nothing { taken: true },
            },
        });
        let mut rig = Rig::new(crate::answering(|_| status(429)));
        rig.worker.table = crowd.client();
        rig.worker.outbound = Queue::new(calls.client(), "https://sqs.example.com/outbound");
        let other = message("other", &["a"]).to_string();
        let reported =
            rig.invoke_within(epoch(), Duration::from_secs(16), batch([shard(None), other])).await?;
        assert_eq!(reported, ids([]));
        let back = calls.taken().into_iter().filter(|body| body.contains("retry"));
        assert_eq!(back.count(), 2, "both are handed back, and confirmed");
        assert!(
            calls.calls().iter().any(|call| call.ended.is_some() && !call.entries[0].body.contains("retry"))
        );
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn four_are_spread_at_once() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 550)]);
        let calls = CallsDouble::taking(Duration::from_millis(100));
        let mut rig = rig(&crowd);
        rig.worker.outbound = Queue::new(calls.client(), "https://sqs.example.com/outbound");
        let parts = (0..8).map(|shard| json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": shard }, "payload": 1 }));
        assert_eq!(rig.invoke(batch(parts.map(|part| part.to_string()))).await?, ids([]));
        let calls = calls.calls();
        let under_way = |at| {
            let ended =
                |call: &streamer_tests::doubles::Call| call.ended.as_ref().is_some_and(|(end, _)| *end > at);
            calls.iter().filter(|call| call.at <= at && ended(call)).count()
        };
        assert_eq!(calls.iter().map(|call| under_way(call.at)).max(), Some(4));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn small_pages_delay_others_by_two() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 80)]).paged(10, Duration::from_millis(50));
        let mut rig = rig(&crowd);
        rig.worker.table = crowd.client();
        let bodies = [shard(None), message("single", &["a"]).to_string()];
        let started = Instant::now();
        assert_eq!(rig.invoke(batch(bodies)).await?, ids([]));
        let single = rig.worker.gateway.posts().into_iter().find(|post| post.connection == "a");
        assert_eq!(single.unwrap().at - started, Duration::from_millis(100));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn delays_no_other_tenants_message() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 100_000)]).paged(1000, Duration::from_millis(50));
        let gateway = MemoryGateway::scripted(|_, _| (Duration::from_millis(10), status(200)));
        let mut rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking());
        rig.worker.table = crowd.client();
        let parts = (0..8).map(|shard| json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": shard }, "payload": 1 }));
        let single = message("single", &["of-another-tenant"]);
        let bodies = parts
            .chain([json!({ "version": 1, "id": "n", "to": { "tenant": "acme" }, "payload": 1 }), single]);
        let started = Instant::now();
        assert_eq!(rig.invoke(batch(bodies.map(|body| body.to_string()))).await?, ids([]));
        let whole = started.elapsed();
        let single = rig.worker.gateway.posts();
        let waited = single[0].ended_at.unwrap() - started;
        println!("beside a tenant of 100 000, which takes {whole:?}, a message arrives after {waited:?}");
        // The first look at each source comes before all posts, and that is two pages.
        assert_eq!((single.len(), waited), (1, Duration::from_millis(110)));
        Ok(())
    }
}

mod a_user {
    use super::*;

    fn to_anna(id: &str) -> String {
        json!({ "version": 1, "id": id, "to": { "user": { "tenant": "acme", "user": "anna" } }, "payload": id }).to_string()
    }

    #[tokio::test(start_paused = true)]
    async fn with_100_connections_gets_it_in_place_and_with_more_as_messages_for_them() -> anyhow::Result<()>
    {
        for number in [100, 101, 2345] {
            let crowd = Crowd::new([("acme#anna", number)]);
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(batch([to_anna("1"), to_anna("2")])).await?, ids([]));
            let (posts, parts) = (rig.worker.gateway.posts().len(), rig.handed_back());
            let (first, second): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|part| part.json()["id"] == "1");
            if number == 100 {
                assert_eq!((posts, first.len() + second.len()), (200, 0));
            } else {
                assert_eq!(posts, 0);
                for parts in [first, second] {
                    assert_eq!(recipients(&parts), crowd.ids("acme#anna"));
                }
            }
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_it_on_some_connections_already_gets_it_on_the_others() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 150)]);
        let rig = rig(&crowd);
        let mut back: Value = serde_json::from_str(&to_anna("m"))?;
        back["retry"] = json!({ "count": 1, "receives": 0, "since": 1, "cause": "429", "done": crowd.ids("acme#anna")[..70] });
        assert_eq!(rig.invoke(batch([back.to_string()])).await?, ids([]));
        let parts = rig.handed_back();
        assert_eq!(recipients(&parts), crowd.ids("acme#anna")[70..]);
        assert!(parts.iter().all(|part| part.json().get("retry").is_none()), "a part is new");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn of_many_connections_is_resumed_too_and_none_is_named_twice() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 5050)]).paged(100, Duration::from_millis(150));
        let (mut body, mut named) = (to_anna("m"), Vec::new());
        for invocations in 1.. {
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(batch([body])).await?, ids([]));
            let (back, parts): (Vec<_>, Vec<_>) =
                rig.handed_back().into_iter().partition(|sent| sent.json()["to"]["user"].is_object());
            named.extend(recipients(&parts));
            named.extend(rig.worker.gateway.posts().into_iter().map(|post| post.connection));
            let Some(back) = back.into_iter().next() else {
                assert!(invocations > 1);
                break;
            };
            body = back.body;
        }
        assert_eq!(named, crowd.ids("acme#anna"));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn on_a_fifo_queue_gets_it_in_place_however_many_connections_there_are() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 2345)]);
        let mut rig = Rig::fifo(MemoryGateway::always(status(200)));
        rig.worker.table = crowd.client();
        let mut record = record(0, to_anna("m"));
        record.attributes.insert("MessageGroupId".to_owned(), "acme#anna".to_owned());
        let mut event = SqsEvent::default();
        event.records = vec![record];
        assert_eq!(rig.invoke(event).await?, ids([]));
        assert_eq!((rig.worker.gateway.posts().len(), rig.handed_back().len()), (2345, 0));
        Ok(())
    }
}
