//! Records with fields that are null, absent or of another type, and events of other sources: nothing is lost.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch_json, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{causes, ids};

/// The fields of a record that SQS sends, and its system attributes.
const FIELDS: [&str; 17] = [
    "messageId",
    "receiptHandle",
    "body",
    "attributes",
    "messageAttributes",
    "md5OfBody",
    "eventSource",
    "eventSourceARN",
    "awsRegion",
    "attributes.ApproximateReceiveCount",
    "attributes.ApproximateFirstReceiveTimestamp",
    "attributes.SentTimestamp",
    "attributes.SenderId",
    "attributes.MessageGroupId",
    "attributes.MessageDeduplicationId",
    "attributes.SequenceNumber",
    "attributes.AWSTraceHeader",
];

/// Builds three records as SQS sends them for messages to `a`, `b` and `c`.
fn records() -> Value {
    let mut event = batch_json(["a", "b", "c"].map(|id| message(id, &[id]).to_string()));
    for record in event["Records"].as_array_mut().unwrap() {
        let group = record["messageId"].clone();
        let attributes = record["attributes"].as_object_mut().unwrap();
        attributes.insert("MessageGroupId".to_owned(), group);
        for name in ["SenderId", "MessageDeduplicationId", "SequenceNumber", "AWSTraceHeader"] {
            attributes.insert(name.to_owned(), "x".into());
        }
    }
    event
}

/// Changes a field of the second record, or removes it.
fn with(field: &str, value: Option<&Value>) -> SqsEvent {
    let mut event = records();
    let record = &mut event["Records"][1];
    let (object, name) = match field.split_once('.') {
        Some((object, name)) => (&mut record[object], name),
        None => (record, field),
    };
    let object = object.as_object_mut().unwrap();
    assert!(object.contains_key(name), "{field}");
    match value {
        Some(value) => _ = object.insert(name.to_owned(), value.clone()),
        None => _ = object.remove(name),
    }
    parse(&event)
}

fn parse(event: &Value) -> SqsEvent {
    serde_json::from_str(&event.to_string()).unwrap()
}

/// Builds a queue that works, or fails. The double panics at messages without a group on a FIFO queue.
fn queue(works: bool) -> QueueDouble {
    QueueDouble::new(move |entry| {
        assert!(!entry.message_body().is_empty(), "SQS refuses a call with an empty message");
        if works { Entry::Taken } else { Entry::NotTaken }
    })
}

/// Returns whether a message has reached its end, is on a queue, or will be received again.
fn is_safe(rig: &Rig, reported: &BTreeSet<String>, nth: usize) -> bool {
    let connection = ["a", "b", "c"][nth];
    let posts = rig.worker.gateway.posts().into_iter().filter(|post| post.connection == connection);
    let has_ended = posts.filter_map(|post| post.answer).any(|answer| answer != status(429));
    let names = [format!("record-{nth}"), format!("receipt-{nth}"), format!(r#""id":"{connection}""#)];
    let is_on = |queue: &QueueDouble| {
        let taken = queue.taken();
        let is_of = |body: &str| names.iter().any(|name| body.contains(name)) || (nth == 1 && body == "text");
        taken.iter().any(|entry| is_of(entry.message_body()))
    };
    // The second record may have another id or body.
    let is_reported = reported.iter().any(|id| *id == names[0] || (nth == 1 && id == "text"));
    has_ended || is_on(&rig.outbound) || is_on(&rig.dead_letters) || is_reported
}

/// Whether API Gateway accepts, has no such connection, or throttles; whether the queues work, and on both kinds.
#[tokio::test(start_paused = true)]
async fn no_field_loses_its_record() -> anyhow::Result<()> {
    let values = [Value::Null, json!(7), json!(""), json!([]), json!({}), json!("text")];
    let forms: Vec<_> = values.iter().map(Some).chain([None]).collect();
    for (field, form) in FIELDS.iter().flat_map(|field| forms.iter().map(move |form| (field, *form))) {
        for kind in [QueueKind::Standard, QueueKind::Fifo] {
            for (answer, works) in [200, 410, 429].into_iter().flat_map(|code| [(code, true), (code, false)])
            {
                let (gateway, table) = (MemoryGateway::always(status(answer)), TableDouble::default());
                let rig = Rig::of(kind, gateway, table, queue(works), queue(works));
                let case = format!("{field} {form:?}, {kind:?}, {answer}, the queues work: {works}");
                match rig.invoke(with(field, form)).await {
                    Ok(reported) => {
                        let safe = [0, 1, 2].map(|nth| is_safe(&rig, &reported, nth));
                        assert_eq!(safe, [true; 3], "{case}");
                    }
                    // All three are received again.
                    Err(_) => assert!(*field == "messageId" && answer == 429, "{case}"),
                }
                let others = ["a", "c"].map(|connection| rig.worker.gateway.texts(connection).len());
                assert!(others == [1, 1] || kind == QueueKind::Fifo, "{case}");
            }
        }
    }
    Ok(())
}

/// Only the body decides whether there is a message; it needs no other field.
#[tokio::test(start_paused = true)]
async fn body_alone_is_delivered() -> anyhow::Result<()> {
    let records = ["a", "b"].map(|id| json!({ "body": message(id, &[id]).to_string() }));
    for kind in [QueueKind::Standard, QueueKind::Fifo] {
        let (gateway, table) = (MemoryGateway::always(status(200)), TableDouble::default());
        let rig = Rig::of(kind, gateway, table, QueueDouble::taking(), QueueDouble::taking());
        assert_eq!(rig.invoke(parse(&json!({ "Records": records }))).await?, ids([]));
        assert_eq!(["a", "b"].map(|id| rig.worker.gateway.texts(id).len()), [1, 1]);
    }
    Ok(())
}

/// Its age begins now, so it is retried in full.
#[tokio::test(start_paused = true)]
async fn without_attributes_is_a_first_receive() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(429)));
    assert_eq!(rig.invoke(with("attributes", Some(&Value::Null))).await?, ids([]));
    let back = rig.handed_back().into_iter().map(|sent| sent.json()).find(|body| body["id"] == "b");
    let expected = json!({ "count": 1, "receives": 0, "since": EPOCH_MILLIS, "cause": "429" });
    assert_eq!(back.unwrap()["retry"], expected);
    Ok(())
}

/// SQS hides it for the queue's own visibility timeout.
#[tokio::test(start_paused = true)]
async fn record_without_handle_is_only_reported() -> anyhow::Result<()> {
    for form in [Some(&Value::Null), None] {
        let rig = Rig::fifo(MemoryGateway::always(status(429)));
        let reported = rig.invoke(with("receiptHandle", form)).await?;
        assert_eq!(reported, ids(["record-0", "record-1", "record-2"]));
        let hidden: Vec<_> = rig.outbound.waits().into_iter().map(|(handle, _)| handle).collect();
        assert_eq!(hidden, ["receipt-0", "receipt-2"]);
    }
    Ok(())
}

/// SQS refuses a whole call with a dead letter that has no group, so that one is not sent, and the others are.
#[tokio::test(start_paused = true)]
async fn poison_without_group_stays_on_fifo_queue() -> anyhow::Result<()> {
    let rig = Rig::fifo(MemoryGateway::always(status(200)));
    let mut event = records();
    for record in event["Records"].as_array_mut().unwrap() {
        record["body"] = "no message".into();
    }
    event["Records"][1]["attributes"]["MessageGroupId"] = Value::Null;
    assert_eq!(rig.invoke(parse(&event)).await?, ids(["record-1"]));
    assert_eq!(rig.dead_letters.taken().len(), 2);
    Ok(())
}

/// Lambda names no failure of these sources by record, so each record is kept as a dead letter.
#[tokio::test(start_paused = true)]
async fn records_of_other_sources_become_dead_letters() -> anyhow::Result<()> {
    let records = [
        json!({ "EventSource": "aws:sns", "Sns": { "Message": message("m", &["a"]).to_string() } }),
        json!({ "eventSource": "aws:kinesis", "eventID": "1", "kinesis": { "data": "e30=" } }),
        json!({ "eventSource": "aws:dynamodb", "dynamodb": { "NewImage": {} } }),
        json!({ "eventSource": "aws:s3", "s3": { "object": { "key": "k" } } }),
    ];
    let rig = Rig::new(MemoryGateway::always(status(200)));
    assert_eq!(rig.invoke(parse(&json!({ "Records": records }))).await?, ids([]));
    let dead = rig.dead();
    assert_eq!(dead.iter().map(|dead| dead.json()).collect::<Vec<_>>(), records);
    assert!(dead.iter().all(|dead| dead.attribute("streamer.reason") == "poison"));
    assert!(rig.worker.gateway.posts().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn empty_batch_makes_no_call() -> anyhow::Result<()> {
    let rig = Rig::new(MemoryGateway::always(status(200)));
    assert_eq!(rig.invoke(parse(&json!({ "Records": [], "more": null }))).await?, ids([]));
    assert_eq!((rig.outbound.calls(), rig.dead_letters.calls(), causes(&rig).len()), (0, 0, 0));
    Ok(())
}
