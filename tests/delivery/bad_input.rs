//! Malformed bodies and ids, and messages near the size limits.

use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{batch, message},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::ids;

fn rig() -> Rig {
    Rig::new(MemoryGateway::always(status(200)))
}

fn message_with(field: &str, value: Value) -> String {
    let mut body = message("m", &["a"]);
    body[field] = value;
    body.to_string()
}

/// The dead letter has the body unchanged and its fault as `streamer.detail`; the rest of the batch is delivered.
#[tokio::test(start_paused = true)]
async fn malformed_body_is_poison_and_kept_unchanged() -> anyhow::Result<()> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let bodies = [
        ("{".to_owned(), "not a JSON object"),
        ("\u{FFFD}\u{FFFD} caf\u{e9}".to_owned(), "not a JSON object"),
        ("\u{feff}{}".to_owned(), "text with a byte order mark"),
        (nested(500_000), "not a JSON object"),
        (message_with("version", json!(2)), "version 2 is not known here"),
        (message_with("version", json!("1")), "`version` is not valid"),
        (message_with("to", json!({ "connections": [] })), "`to` is not valid"),
        (message_with("to", json!({ "connections": vec!["a"; 101] })), "`to` is not valid"),
        (message_with("to", json!({ "connection": "x".repeat(129) })), "`to` is not valid"),
        (message_with("to", json!({ "connection": ".." })), "`to` is not valid"),
        (message_with("id", json!("")), "`id` is not valid"),
        (message_with("expires_at", json!(1_795_791_600)), "`expires_at` looks like seconds"),
        (message_with("retry", json!({ "count": -1 })), "`retry` is not valid"),
    ];
    for (body, reason) in bodies {
        let rig = rig();
        assert_eq!(rig.invoke(batch([body.clone(), message("m", &["a"]).to_string()])).await?, ids([]));
        let dead = rig.dead();
        assert_eq!((dead.len(), dead[0].body == body), (1, true), "{reason}");
        assert_eq!(dead[0].attribute("streamer.reason"), "poison");
        let detail = dead[0].attribute("streamer.detail");
        assert!(detail.contains(reason), "{detail}");
        assert_eq!(rig.worker.gateway.posts().len(), 1, "the other message is delivered");
    }
    Ok(())
}

/// SQS neither delivers nor accepts an empty body, so no dead letter can be sent: the record stays on the queue.
#[tokio::test(start_paused = true)]
async fn empty_body_is_reported() -> anyhow::Result<()> {
    let refusing_empty = QueueDouble::new(|entry| match entry.message_body() {
        "" => Entry::Refused,
        _ => Entry::Taken,
    });
    let gateway = MemoryGateway::always(status(200));
    let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), refusing_empty);
    assert_eq!(rig.invoke(batch([""])).await?, ids(["record-0"]));
    Ok(())
}

/// Its dead letter has the whole record as body, because there is no other text.
#[tokio::test(start_paused = true)]
async fn unreadable_record_is_dead_lettered_alone() -> anyhow::Result<()> {
    let good = json!({ "messageId": "good", "body": message("m", &["a"]).to_string() });
    for bad in [
        json!({ "messageId": "bad", "receiptHandle": "r", "body": null }),
        json!({ "messageId": "bad", "body": message("m", &["a"]) }),
        json!({ "messageId": "bad" }),
        json!({ "messageId": ["bad"], "attributes": 7 }),
        json!("bad"),
        json!(null),
    ] {
        let rig = rig();
        let event = json!({ "Records": [good, bad, good] }).to_string();
        assert_eq!(rig.invoke(serde_json::from_str(&event)?).await?, ids([]), "{bad}");
        assert_eq!(rig.worker.gateway.texts("a"), ["\"m\"", "\"m\""], "{bad}");
        let dead = rig.dead();
        assert_eq!((dead.len(), &dead[0].body), (1, &bad.to_string()));
        assert_eq!(dead[0].attribute("streamer.reason"), "poison");
        assert!(dead[0].attribute("streamer.detail").starts_with("the record's body is missing"), "{bad}");
    }
    Ok(())
}

/// Bridges and emulators write such records.
#[tokio::test(start_paused = true)]
async fn null_lists_of_message_attributes_are_ignored() -> anyhow::Result<()> {
    let attribute = json!({ "stringValue": "1", "stringListValues": null, "binaryListValues": null });
    let record = |id: &str, attributes: Value| {
        let body = message(id, &["a"]).to_string();
        json!({ "messageId": id, "receiptHandle": "r", "body": body, "messageAttributes": attributes })
    };
    let records =
        [record("1", json!({})), record("2", json!({ "trace": attribute })), record("3", json!(null))];
    let rig = rig();
    assert_eq!(rig.invoke(serde_json::from_str(&json!({ "Records": records }).to_string())?).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"1\"", "\"2\"", "\"3\""]);
    assert!(rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn deeply_nested_payload_is_delivered_unchanged() -> anyhow::Result<()> {
    let rig = rig();
    let payload = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let body = format!(r#"{{"version":1,"id":"m","to":{{"connection":"a"}},"payload":{payload}}}"#);
    assert_eq!(rig.invoke(batch([body])).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), [payload]);
    Ok(())
}

/// Only the payload is limited to 128 KiB.
#[tokio::test(start_paused = true)]
async fn message_of_1_mib_is_delivered() -> anyhow::Result<()> {
    let rig = rig();
    let mut body = message("m", &["a"]);
    body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 10).into();
    assert_eq!(body.to_string().len(), 1024 * 1024);
    assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"m\""]);
    Ok(())
}

/// A dead letter is oversized when its attributes no longer fit beside the body.
#[tokio::test(start_paused = true)]
async fn oversized_dead_letter_is_left_to_sqs() -> anyhow::Result<()> {
    let rig = rig();
    let mut body = message("m", &["a"]);
    body["payload"] = "x".repeat(128 * 1024).into();
    body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 10).into();
    assert_eq!(rig.invoke(batch([body.to_string(), "no message".to_owned()])).await?, ids(["record-0"]));
    assert_eq!(rig.dead().len(), 1);
    Ok(())
}
