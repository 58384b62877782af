//! Bodies and ids that nobody should send.

use serde_json::{Value, json};
use streamer_tests::{
    doubles::{Entry, QueueDouble, TableDouble},
    event::{batch, message, record},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::ids;

fn rig() -> Rig {
    Rig::new(MemoryGateway::always(status(200)))
}

fn with(field: &str, value: Value) -> String {
    let mut body = message("m", &["a"]);
    body[field] = value;
    body.to_string()
}

#[tokio::test(start_paused = true)]
async fn what_is_no_message_is_poison_with_a_reason_and_its_body_untouched() -> anyhow::Result<()> {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let bodies = [
        ("{".to_owned(), "not a JSON object"),
        ("\u{FFFD}\u{FFFD} caf\u{e9}".to_owned(), "not a JSON object"),
        ("\u{feff}{}".to_owned(), "not a JSON object"),
        (nested(500_000), "not a JSON object"),
        (with("version", json!(2)), "version 2 is not known here"),
        (with("version", json!("1")), "`version` is not valid"),
        (with("to", json!({ "connections": [] })), "`to` is not valid"),
        (with("to", json!({ "connections": vec!["a"; 101] })), "`to` is not valid"),
        (with("to", json!({ "connection": "x".repeat(129) })), "`to` is not valid"),
        (with("to", json!({ "connection": ".." })), "`to` is not valid"),
        (with("id", json!("")), "`id` is not valid"),
        (with("retry", json!({ "count": -1 })), "`retry` is not valid"),
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

/// SQS delivers none, and takes none: the record can only be left to it.
#[tokio::test(start_paused = true)]
async fn an_empty_body_is_reported_since_no_queue_takes_it() -> anyhow::Result<()> {
    let refusing_empty = QueueDouble::new(|entry| match entry.message_body() {
        "" => Entry::Refused,
        _ => Entry::Taken,
    });
    let gateway = MemoryGateway::always(status(200));
    let rig = Rig::on(gateway, TableDouble::default(), QueueDouble::taking(), refusing_empty);
    let mut event = batch([""]);
    let mut none = record(1, String::new());
    none.body = None;
    event.records.push(none);
    assert_eq!(rig.invoke(event).await?, ids(["record-0", "record-1"]));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_deeply_nested_payload_is_delivered_as_it_is() -> anyhow::Result<()> {
    let rig = rig();
    let payload = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    let body = format!(r#"{{"version":1,"id":"m","to":{{"connection":"a"}},"payload":{payload}}}"#);
    assert_eq!(rig.invoke(batch([body])).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), [payload]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_message_of_1_mib_is_delivered_where_its_payload_is_small() -> anyhow::Result<()> {
    let rig = rig();
    let mut body = message("m", &["a"]);
    body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 10).into();
    assert_eq!(body.to_string().len(), 1024 * 1024);
    assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
    assert_eq!(rig.worker.gateway.texts("a"), ["\"m\""]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_whose_attributes_no_longer_fit_is_left_to_sqs() -> anyhow::Result<()> {
    let rig = rig();
    let mut body = message("m", &["a"]);
    body["payload"] = "x".repeat(128 * 1024).into();
    body["note"] = "x".repeat(1024 * 1024 - body.to_string().len() - 10).into();
    assert_eq!(rig.invoke(batch([body.to_string(), "no message".to_owned()])).await?, ids(["record-0"]));
    assert_eq!(rig.dead().len(), 1);
    Ok(())
}
