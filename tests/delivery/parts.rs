//! The parts of large audiences, on a queue of their own: parts and producers' messages never share a queue.

mod beside_broadcast;

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_tests::{
    doubles::{Crowd, Entry, QueueDouble, TableDouble},
    event::{OUTBOUND_ARN, batch, batch_from, message},
    gateway::{MemoryGateway, status},
    worker::{PARTS_ARN, Rig, Sent},
};

use crate::{ids, message_to_anna};

/// Builds a worker on a table with these connections, whose parts go to `parts`.
fn rig(crowd: &Crowd, answer: u16, parts: &QueueDouble) -> Rig {
    let gateway = MemoryGateway::always(status(answer));
    let mut rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking());
    rig.worker.table = Some(crowd.client());
    rig.set_parts(parts);
    rig
}

fn to_tenant() -> String {
    json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": 1 }).to_string()
}

fn to_shard() -> String {
    json!({ "version": 1, "id": "m", "to": { "tenant": "acme", "shard": 3 }, "payload": 1 }).to_string()
}

/// Returns the bodies of the entries that a queue was sent.
fn bodies(queue: &QueueDouble) -> Vec<Value> {
    queue.entries().into_iter().map(|entry| Sent::from(entry).json()).collect()
}

/// Returns the numbers of messages that were sent to the outbound queue and to the parts queue.
async fn sent(rig: &Rig, parts: &QueueDouble, event: SqsEvent) -> anyhow::Result<(usize, usize)> {
    assert_eq!(rig.invoke(event).await?, ids([]));
    Ok((rig.handed_back().len(), parts.entries().len()))
}

#[tokio::test(start_paused = true)]
async fn parts_of_any_audience_leave_the_outbound_queue() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 250), ("acme#anna", 250)]);
    for (event, expected) in [
        (batch([to_tenant()]), 8),
        (batch_from(PARTS_ARN, [to_shard()]), 3),
        (batch([to_shard()]), 3),
        (batch([message_to_anna("m").to_string()]), 3),
    ] {
        let parts = QueueDouble::taking();
        let rig = rig(&crowd, 200, &parts);
        assert_eq!(sent(&rig, &parts, event.clone()).await?, (0, expected), "{event:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn messages_return_to_their_own_queue() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8), ("acme#anna", 2)]);
    let messages = [message("a", &["a", "b"]).to_string(), message_to_anna("m").to_string(), to_shard()];
    for body in messages {
        for (arn, expected) in [
            (PARTS_ARN, (0, 1)),
            (OUTBOUND_ARN, (1, 0)),
            ("arn:aws:sqs:eu-central-1:210987654321:parts", (1, 0)),
            ("arn:aws:sqs:eu-central-1:123456789012:other-parts", (1, 0)),
            ("parts", (1, 0)),
        ] {
            let parts = QueueDouble::taking();
            let rig = rig(&crowd, 503, &parts);
            assert_eq!(sent(&rig, &parts, batch_from(arn, [body.clone()])).await?, expected, "{arn}: {body}");
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn unnamed_queue_counts_as_outbound() -> anyhow::Result<()> {
    let parts = QueueDouble::taking();
    let rig = rig(&Crowd::new([]), 503, &parts);
    let mut event = batch_from(PARTS_ARN, ["a", "b"].map(|id| message(id, &[id]).to_string()));
    event.records[1].queue_arn = None;
    assert_eq!(sent(&rig, &parts, event).await?, (2, 0));
    Ok(())
}

/// A tenant is handed back whole, and a large user with the cursor after the last confirmed page.
#[tokio::test(start_paused = true)]
async fn failing_parts_queue_returns_the_message() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 1050), ("acme#anna", 1050)]);
    // Five parts are confirmed together.
    let confirmed = |number: usize| {
        let counter = AtomicUsize::new(0);
        QueueDouble::new(move |_| match counter.fetch_add(1, Ordering::Relaxed) < number {
            true => Entry::Taken,
            false => Entry::NotTaken,
        })
    };
    let parts = confirmed(0);
    let worker = rig(&crowd, 200, &parts);
    worker.invoke(batch([to_tenant()])).await?;
    let back = bodies(&worker.outbound);
    assert_eq!((back.len(), &back[0]["to"]), (1, &json!({ "tenant": "acme" })));
    assert_eq!(back[0]["retry"]["cause"], "a part of the audience is not on the queue");

    let parts = confirmed(5);
    let worker = rig(&crowd, 200, &parts);
    worker.invoke(batch([message_to_anna("m").to_string()])).await?;
    let back = bodies(&worker.outbound);
    assert_eq!((back.len(), parts.taken().len()), (1, 5));
    assert!(back[0]["retry"]["after"].is_string(), "{back:?}");

    let (parts, body) = (confirmed(0), to_shard());
    let worker = rig(&crowd, 200, &parts);
    let reported = worker.invoke(batch_from(PARTS_ARN, [body])).await?;
    assert_eq!((reported, worker.handed_back().len()), (ids(["record-0"]), 0), "a part stays on its queue");
    Ok(())
}

/// A receipt that the receipts queue did not confirm stays on the queue of its message.
#[tokio::test(start_paused = true)]
async fn receipt_of_a_part_is_handed_back_there() -> anyhow::Result<()> {
    for (arn, expected) in [(PARTS_ARN, (0, 1)), (OUTBOUND_ARN, (1, 0))] {
        let parts = QueueDouble::taking();
        let mut rig = rig(&Crowd::new([]), 200, &parts);
        rig.set_receipts(QueueDouble::failing("InternalError"));
        let mut body = message("m", &["a"]);
        body["receipt"] = json!({ "part": "0123456789abcdef.0" });
        assert_eq!(sent(&rig, &parts, batch_from(arn, [body.to_string()])).await?, expected, "{arn}");
    }
    Ok(())
}

/// `streamer redrive` sends the dead letters of parts to the outbound queue.
#[tokio::test(start_paused = true)]
async fn redriven_part_is_delivered_from_outbound() -> anyhow::Result<()> {
    let crowd = Crowd::new([("acme", 8 * 250)]);
    for (body, posts, parts_of_it) in [(message("m", &["a", "b"]).to_string(), 2, 0), (to_shard(), 0, 3)] {
        let parts = QueueDouble::failing("InternalError");
        let failing = rig(&crowd, 503, &parts);
        let mut tenth = batch_from(PARTS_ARN, [body]);
        tenth.records[0].attributes.insert("ApproximateReceiveCount".to_owned(), "10".to_owned());
        assert_eq!(failing.invoke(tenth).await?, ids([]));
        let letter = failing.dead().remove(0).body;
        let parts = QueueDouble::taking();
        let worker = rig(&crowd, 200, &parts);
        assert_eq!(sent(&worker, &parts, batch([letter])).await?, (0, parts_of_it));
        assert_eq!(worker.worker.gateway.posts().len(), posts);
    }
    Ok(())
}

/// A worker of an earlier version, or one that was just given up its parts queue, still delivers what is on it.
#[tokio::test(start_paused = true)]
async fn parts_are_delivered_without_their_queue() -> anyhow::Result<()> {
    let rig = crate::rig_with_table(MemoryGateway::always(status(200)), TableDouble::default());
    assert_eq!(rig.invoke(batch_from(PARTS_ARN, [message("m", &["a"]).to_string()])).await?, ids([]));
    assert_eq!(rig.worker.gateway.posts().len(), 1);
    let failing = crate::rig_with_table(MemoryGateway::always(status(503)), TableDouble::default());
    failing.invoke(batch_from(PARTS_ARN, [message("m", &["a"]).to_string()])).await?;
    assert_eq!(failing.handed_back().len(), 1);
    Ok(())
}
