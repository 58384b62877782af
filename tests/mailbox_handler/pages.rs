//! The content of pages, and the metrics and log lines about them.

use std::time::Duration;

use serde_json::{Value, json};
use streamer_mailbox::{NewMessage, Raise, Table as _};
use streamer_message::{
    MessageId,
    limits::{ID_CHARACTERS, KEPT_PAYLOAD_BYTES, PAGE_BYTES, PAYLOAD_BYTES},
};
use streamer_tests::{
    event::{CONNECTION, EPOCH_MILLIS, epoch},
    worker::payload_limit,
};
use tracing::Level;

use crate::{HOUR, Rig, stream_of, written::logged};

fn seqs(page: &Value) -> Vec<u64> {
    page["messages"].as_array().unwrap().iter().map(|message| message["seq"].as_u64().unwrap()).collect()
}

fn range(page: &Value) -> [u64; 3] {
    ["after", "through", "top"].map(|field| page[field].as_u64().unwrap())
}

#[tokio::test(start_paused = true)]
async fn page_begins_after_the_position() {
    let rig = Rig::accepting();
    rig.keep_numbers(5).await;
    let page = rig.page_after(2).await;
    assert_eq!((page["type"].as_str(), page["n"].as_u64()), (Some("streamer.page"), Some(7)));
    assert_eq!((seqs(&page), range(&page)), (vec![3, 4, 5], [2, 5, 5]));
    assert_eq!((&page["missing"], page.get("reset")), (&json!([]), None));
}

/// A client has a position before its first message.
#[tokio::test(start_paused = true)]
async fn empty_stream_gives_a_position() {
    let rig = Rig::accepting();
    rig.sync(true, &json!({})).await.unwrap();
    let page = &rig.frames()[0];
    assert_eq!((range(page), &page["messages"]), ([0, 0, 0], &json!([])));
    assert!(page["epoch"].as_str().is_some_and(|epoch| !epoch.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn other_epoch_resets_the_position() {
    let rig = Rig::accepting();
    rig.keep_numbers(2).await;
    rig.sync(true, &json!({ "epoch": "another", "seq": 40 })).await.unwrap();
    let page = &rig.frames()[0];
    assert_eq!((&page["reset"], seqs(page)), (&"epoch".into(), vec![1, 2]));
}

/// The client asks on, since the page ends before the newest message.
#[tokio::test(start_paused = true)]
async fn page_ends_at_its_maximum() {
    let rig = Rig::accepting();
    let payload = json!("x".repeat(2000)).to_string();
    for number in 1..=20 {
        rig.keep("anna", &format!("m{number}"), &payload, HOUR).await;
    }
    for (max, messages) in [(Some(4500), 2), (Some(1_000_000), 14), (None, 14)] {
        let mut sync = json!({ "type": "streamer.sync", "streams": [{ "stream": "user" }] });
        if let Some(max) = max {
            sync["max"] = max.into();
        }
        rig.send(&sync.to_string()).await.unwrap();
        let page = rig.frames().pop().unwrap();
        assert_eq!((seqs(&page).len(), range(&page)), (messages, [0, messages as u64, 20]), "{max:?}");
        assert!(page["messages"].to_string().len() <= max.unwrap_or(PAGE_BYTES).min(PAGE_BYTES), "{max:?}");
    }
}

/// The largest message that can be kept fits into one frame, with its position and the longest id.
#[tokio::test(start_paused = true)]
async fn largest_message_is_alone() {
    let rig = Rig::accepting();
    let payload = json!("x".repeat(KEPT_PAYLOAD_BYTES - 2)).to_string();
    rig.keep("anna", &"\u{1}".repeat(ID_CHARACTERS), &payload, HOUR).await;
    rig.keep("anna", "small", "1", HOUR).await;
    let page = rig.page_after(0).await;
    assert_eq!((seqs(&page), range(&page)), (vec![1], [0, 1, 2]));
    let bytes = rig.handler.gateway.texts(CONNECTION).pop().unwrap().len();
    assert!(bytes > KEPT_PAYLOAD_BYTES && bytes <= PAYLOAD_BYTES, "{bytes}");
}

/// A client whose connection is closed by a large frame would connect and ask for it again and again.
#[tokio::test(start_paused = true)]
async fn lower_limit_of_payloads_makes_a_gap() {
    let mut rig = Rig::accepting();
    rig.handler.payloads = payload_limit(32 * 1024);
    let sized = |bytes: usize| json!("x".repeat(bytes - 2)).to_string();
    for (id, bytes) in
        [("small", 3), ("large", 31 * 1024 + 1), ("larger", KEPT_PAYLOAD_BYTES), ("most", 31 * 1024)]
    {
        rig.keep("anna", id, &sized(bytes), HOUR).await;
    }
    let first = rig.page_after(0).await;
    let missing = json!([{ "from": 2, "to": 3, "reason": "too_large" }]);
    assert_eq!((&first["missing"], seqs(&first), range(&first)), (&missing, vec![1], [0, 3, 4]));
    let second = rig.page_after(3).await;
    assert_eq!((seqs(&second), range(&second)), (vec![4], [3, 4, 4]));
    let texts = rig.handler.gateway.texts(CONNECTION);
    assert!(texts.iter().all(|text| text.len() <= 32 * 1024));
    assert_eq!(rig.metrics.lines()[0]["gaps"]["too_large"], 1);
}

/// Without a position there is no claim to a message, so there is no gap.
#[tokio::test(start_paused = true)]
async fn new_device_skips_large_messages() {
    let mut rig = Rig::accepting();
    rig.handler.payloads = payload_limit(8 * 1024);
    rig.keep("anna", "large", &json!("x".repeat(8 * 1024)).to_string(), HOUR).await;
    rig.keep("anna", "small", "1", HOUR).await;
    rig.send(r#"{"type":"streamer.sync","streams":[{"stream":"user"}]}"#).await.unwrap();
    let page = rig.frames().pop().unwrap();
    assert_eq!((&page["missing"], seqs(&page), range(&page)), (&json!([]), vec![2], [1, 2, 2]));
}

#[tokio::test(start_paused = true)]
async fn missing_ranges_are_told_and_counted() {
    let rig = Rig::accepting();
    rig.keep_numbers(5).await;
    rig.keep("anna", "short", "6", Duration::ZERO).await;
    rig.keep("anna", "last", "7", HOUR).await;
    let (stream, epoch) = (stream_of("anna"), rig.mailbox.peek(&stream_of("anna")).unwrap().epoch);
    let raised = rig.mailbox.raise_floor(&stream, &epoch, 3).await.unwrap();
    assert!(matches!(raised, Raise::Raised(_)), "{raised:?}");
    let page = rig.page_after(1).await;
    let missing = json!([
        { "from": 2, "to": 3, "reason": "overflow" },
        { "from": 6, "to": 6, "reason": "expired" },
    ]);
    assert_eq!((&page["missing"], seqs(&page), range(&page)), (&missing, vec![4, 5, 7], [1, 7, 7]));
    let line = rig.metrics.lines().pop().unwrap();
    assert_eq!(
        (line["Gaps"].as_f64(), &line["gaps"]),
        (Some(2.0), &json!({ "expired": 1, "overflow": 1, "too_large": 0 }))
    );
    assert_eq!((line["PagesPosted"].as_f64(), line["PageMessages"].as_f64()), (Some(1.0), Some(3.0)));
    assert!(line["PageLatency"].is_number());
}

/// Only for messages whose producers ask for a receipt.
#[tokio::test(start_paused = true)]
async fn page_asks_for_acknowledgments() {
    let rig = Rig::accepting();
    let id = MessageId::new("asks").unwrap();
    let asks = NewMessage { id: &id, body: "1", until: epoch() + HOUR, ack: true, tried_since: None };
    rig.append("anna", asks).await;
    rig.keep("anna", "other", "2", HOUR).await;
    let page = rig.page_after(0).await;
    let messages = json!([
        { "seq": 1, "id": "asks", "ack": true, "payload": 1 },
        { "seq": 2, "id": "other", "payload": 2 },
    ]);
    assert_eq!(page["messages"], messages);
}

/// API Gateway ends a connection 2 h after it was made.
#[tokio::test(start_paused = true)]
async fn end_counts_from_the_connect() {
    let rig = Rig::accepting();
    rig.sync(true, &json!({})).await.unwrap();
    let page = &rig.frames()[0];
    assert_eq!((&page["expires_in"], &page["now"]), (&json!(5400), &json!(EPOCH_MILLIS)));
}

#[tokio::test(start_paused = true)]
async fn repeated_stream_gets_one_page() {
    let rig = Rig::accepting();
    rig.send(r#"{"type":"streamer.sync","streams":[{"stream":"user"},{"stream":"user"}]}"#).await.unwrap();
    assert_eq!(rig.frames().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn page_is_logged_without_content() {
    let rig = Rig::accepting();
    rig.keep("anna", "s3cret-id", r#""s3cret""#, HOUR).await;
    let (response, log) = logged(Level::TRACE, rig.sync(true, &json!({}))).await;
    response.unwrap();
    let lines = log.lines();
    let line = lines.iter().find(|line| line["message"] == "posted a page").unwrap();
    assert_eq!(
        ["level", "connection_id", "hello", "after", "through", "top", "messages", "missing"]
            .map(|field| line[field].clone()),
        [json!("INFO"), json!(CONNECTION), json!(true), json!(0), json!(1), json!(1), json!(1), json!(0)]
    );
    assert!(!log.text().contains("s3cret"), "{}", log.text());
}
