//! Messages for tenants, shards and users: which connections get them, and how they are fanned out.

mod large;
mod shards;

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_tests::{
    doubles::{Crowd, Entry, QueueDouble, TableDouble},
    event::{batch, epoch, record},
    gateway::{MemoryGateway, status},
    worker::{Rig, Sent},
};

use crate::{ids, message_to_anna};

/// Payload whose exact bytes every copy keeps.
const PAYLOAD: &str = r#""payload":{"b":1.50, "a":[ ]}"#;

/// Builds a message that has every optional field, and one that this version does not know.
fn message_to(to: &Value) -> String {
    format!(
        r#"{{"version":1,"id":"m","to":{to},{PAYLOAD},"request":{{"id":"r","seq":7}},"supersedable":true,"expires_at":1764000600000,"later":[1, 2]}}"#
    )
}

fn to_tenant() -> String {
    message_to(&json!({ "tenant": "acme" }))
}

/// Builds a message for one shard, whose index is read on after the cursor `after`.
fn to_shard(after: Option<&str>) -> String {
    match after {
        None => message_to(&json!({ "tenant": "acme", "shard": 3 })),
        Some(after) => message_to(&json!({ "tenant": "acme", "shard": 3, "after": after })),
    }
}

/// Builds a worker on a table with these connections.
fn rig(crowd: &Crowd) -> Rig {
    rig_with_queue(crowd, QueueDouble::taking())
}

fn rig_with_queue(crowd: &Crowd, outbound: QueueDouble) -> Rig {
    let gateway = MemoryGateway::always(status(200));
    let mut rig = Rig::on(gateway, TableDouble::default(), outbound, QueueDouble::taking());
    rig.worker.table = Some(crowd.client());
    rig
}

/// Builds an event of one message that has a message group and a trace.
fn event(body: String) -> SqsEvent {
    let mut event = batch([body]);
    for (name, value) in
        [("MessageGroupId", "acme"), ("AWSTraceHeader", "Root=1-5759e988-bd862e3fe1be46a994272793")]
    {
        event.records[0].attributes.insert(name.to_owned(), value.to_owned());
    }
    event
}

/// Asserts that a fan-out message has every field of the original except the audience, and no `retry`.
fn assert_keeps_fields(sent: &Sent) {
    let body = sent.json();
    assert!(sent.body.contains(PAYLOAD) && sent.body.contains(r#""later":[1, 2]"#), "{}", sent.body);
    assert_eq!(
        (&body["id"], &body["request"]["seq"], &body["supersedable"]),
        (&json!("m"), &json!(7), &json!(true))
    );
    assert_eq!((&body["expires_at"], body.get("retry")), (&json!(1_764_000_600_000_u64), None));
    assert_eq!(sent.group.as_deref(), Some("acme"));
    assert!(sent.trace.is_some() && sent.delay.is_none_or(|delay| delay == 0));
}

/// Returns the connections that these messages name, in order.
fn recipients(sent: &[Sent]) -> Vec<String> {
    let named = |sent: &Sent| match &sent.json()["to"] {
        Value::Object(to) if to.contains_key("connection") => vec![to["connection"].clone()],
        to => to["connections"].as_array().cloned().unwrap_or_default(),
    };
    sent.iter().flat_map(named).map(|id| id.as_str().unwrap().to_owned()).collect()
}

mod tenant {
    use super::*;

    /// No row is read for it.
    #[tokio::test(start_paused = true)]
    async fn becomes_one_message_per_shard() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 100_000)]);
        let rig = rig(&crowd);
        assert_eq!(rig.invoke(event(to_tenant())).await?, ids([]));
        let sent = rig.handed_back();
        sent.iter().for_each(assert_keeps_fields);
        let shards: Vec<_> = sent.iter().map(|sent| sent.json()["to"].clone()).collect();
        let expected: Vec<_> = (0..8).map(|shard| json!({ "tenant": "acme", "shard": shard })).collect();
        assert_eq!((shards, crowd.read().0), (expected, 0));
        assert!(rig.worker.gateway.posts().is_empty() && rig.dead().is_empty());
        Ok(())
    }

    /// The hand-back is for the whole tenant; if it fails too, the record is reported.
    #[tokio::test(start_paused = true)]
    async fn unconfirmed_shard_hands_tenant_back() -> anyhow::Result<()> {
        for fault in [Entry::NotTaken, Entry::Unmentioned] {
            let decide = move |entry: &aws_sdk_sqs::types::SendMessageBatchRequestEntry| {
                if entry.message_body().contains(r#""shard":5"#) { fault } else { Entry::Taken }
            };
            let rig = rig_with_queue(&Crowd::new([("acme", 10)]), QueueDouble::new(decide));
            assert_eq!(rig.invoke(event(to_tenant())).await?, ids([]));
            let back = rig.handed_back().pop().unwrap().json();
            assert_eq!((&back["to"], &back["retry"]["count"]), (&json!({ "tenant": "acme" }), &json!(1)));
        }
        let rig = rig_with_queue(&Crowd::new([("acme", 10)]), QueueDouble::failing("InternalFailure"));
        assert_eq!(rig.invoke(event(to_tenant())).await?, ids(["record-0"]));
        Ok(())
    }

    /// An expired message is dropped, an oversized one is rejected.
    #[tokio::test(start_paused = true)]
    async fn expired_or_oversized_reads_no_rows() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 10)]);
        let rig = rig(&crowd);
        let after_expiry = epoch() + Duration::from_secs(601);
        assert_eq!(rig.invoke_at(after_expiry, batch([to_tenant(), to_shard(None)])).await?, ids([]));
        let large =
            json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": "x".repeat(131_073) });
        assert_eq!(rig.invoke(batch([large.to_string()])).await?, ids([]));
        assert!(rig.handed_back().is_empty() && crowd.read().0 == 0);
        assert_eq!(rig.dead()[0].attribute("streamer.reason"), "rejected");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn is_rejected_on_a_fifo_queue() -> anyhow::Result<()> {
        let rig = Rig::fifo(MemoryGateway::always(status(200)));
        let mut event = batch([to_tenant(), to_shard(None)]);
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

mod shard {
    use super::*;

    /// They are the connections after the cursor; a shard may also be empty.
    #[tokio::test(start_paused = true)]
    async fn up_to_100_connections_get_posts() -> anyhow::Result<()> {
        for (connections, after, first) in
            [(800, None, 0), (0, None, 0), (8, None, 0), (1600, Some("acme#3-149"), 150)]
        {
            let crowd = Crowd::new([("acme", connections)]);
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(event(to_shard(after))).await?, ids([]));
            let posted: BTreeSet<_> =
                rig.worker.gateway.posts().into_iter().map(|post| post.connection).collect();
            assert_eq!(posted, crowd.ids("acme#3").split_off(first).into_iter().collect());
            assert!(rig.handed_back().is_empty() && crowd.read().0 <= 2, "{connections} connections");
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn more_connections_become_pages_of_100() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 2345)]);
        let rig = rig(&crowd);
        assert_eq!(rig.invoke(event(to_shard(None))).await?, ids([]));
        let pages = rig.handed_back();
        pages.iter().for_each(assert_keeps_fields);
        assert_eq!(recipients(&pages), crowd.ids("acme#3"));
        // All pages except the last are full, and five of them share a call.
        assert_eq!((pages.len(), rig.outbound.calls()), (24, 5));
        // The two pages read first, and then every page once more.
        assert_eq!(crowd.read(), (2 + 24, 200 + 2345));
        assert!(rig.worker.gateway.posts().is_empty());
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn unfinished_connections_are_handed_back() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme", 8 * 5)]);
        let mut rig = Rig::new(crate::answering(|posted| {
            status(if posted.ends_with("-2") || posted.ends_with("-4") { 429 } else { 200 })
        }));
        rig.worker.table = Some(crowd.client());
        assert_eq!(rig.invoke(event(to_shard(None))).await?, ids([]));
        let back = rig.handed_back();
        assert_eq!(back.len(), 1);
        assert_eq!(back[0].json()["to"], json!({ "connections": ["acme#3-2", "acme#3-4"] }));
        assert_eq!((&back[0].json()["retry"]["count"], back[0].group.as_deref()), (&json!(1), Some("acme")));
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn failed_query_hands_message_back_unchanged() -> anyhow::Result<()> {
        let rig = Rig::on(
            MemoryGateway::always(status(200)),
            TableDouble::failing(),
            QueueDouble::taking(),
            QueueDouble::taking(),
        );
        assert_eq!(rig.invoke(event(to_shard(Some("acme#3-7")))).await?, ids([]));
        let back = rig.handed_back().remove(0).json();
        assert_eq!(back["to"], json!({ "tenant": "acme", "shard": 3, "after": "acme#3-7" }));
        assert!(back["retry"]["cause"].as_str().unwrap().contains("Query"), "{back}");
        Ok(())
    }
}

mod user {
    use super::*;

    fn to_anna(id: &str) -> String {
        message_to_anna(id).to_string()
    }

    /// Up to 100 connections are posted to in the same invocation.
    #[tokio::test(start_paused = true)]
    async fn over_100_connections_become_pages() -> anyhow::Result<()> {
        for connections in [100, 101, 2345] {
            let crowd = Crowd::new([("acme#anna", connections)]);
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(batch([to_anna("1"), to_anna("2")])).await?, ids([]));
            let (posts, pages) = (rig.worker.gateway.posts().len(), rig.handed_back());
            let (first, second): (Vec<_>, Vec<_>) =
                pages.into_iter().partition(|page| page.json()["id"] == "1");
            if connections == 100 {
                assert_eq!((posts, first.len() + second.len()), (200, 0));
            } else {
                assert_eq!(posts, 0);
                for pages in [first, second] {
                    assert_eq!(recipients(&pages), crowd.ids("acme#anna"));
                }
            }
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn pages_omit_served_connections() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 150)]);
        let rig = rig(&crowd);
        let mut back: Value = serde_json::from_str(&to_anna("m"))?;
        back["retry"] = json!({ "count": 1, "receives": 0, "since": 1, "cause": "429", "done": crowd.ids("acme#anna")[..70] });
        assert_eq!(rig.invoke(batch([back.to_string()])).await?, ids([]));
        let pages = rig.handed_back();
        assert_eq!(recipients(&pages), crowd.ids("acme#anna")[70..]);
        assert!(pages.iter().all(|page| page.json().get("retry").is_none()), "a page is a new message");
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn fan_out_resumes_without_repeats() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 5050)]).paged(100, Duration::from_millis(150));
        let (mut body, mut named) = (to_anna("m"), Vec::new());
        for invocations in 1.. {
            let rig = rig(&crowd);
            assert_eq!(rig.invoke(batch([body])).await?, ids([]));
            let (rest, pages): (Vec<_>, Vec<_>) =
                rig.handed_back().into_iter().partition(|sent| sent.json()["to"]["user"].is_object());
            named.extend(recipients(&pages));
            named.extend(rig.worker.gateway.posts().into_iter().map(|post| post.connection));
            let Some(rest) = rest.into_iter().next() else {
                assert!(invocations > 1);
                break;
            };
            body = rest.body;
        }
        assert_eq!(named, crowd.ids("acme#anna"));
        Ok(())
    }

    /// The worker posts to all of the 2345 connections itself.
    #[tokio::test(start_paused = true)]
    async fn fifo_queue_never_fans_out() -> anyhow::Result<()> {
        let crowd = Crowd::new([("acme#anna", 2345)]);
        let mut rig = Rig::fifo(MemoryGateway::always(status(200)));
        rig.worker.table = Some(crowd.client());
        let mut record = record(0, to_anna("m"));
        record.attributes.insert("MessageGroupId".to_owned(), "acme#anna".to_owned());
        assert_eq!(rig.invoke(SqsEvent { records: vec![record] }).await?, ids([]));
        assert_eq!((rig.worker.gateway.posts().len(), rig.handed_back().len()), (2345, 0));
        Ok(())
    }
}
