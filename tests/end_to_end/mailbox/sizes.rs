//! Sizes of kept messages and of pages.

use streamer_message::limits::{KEPT_PAYLOAD_BYTES, PAGE_BYTES, PAYLOAD_BYTES};
use streamer_producer::{Message, MessageError};
use streamer_tests::emulator::{producer, stack};

use super::{
    HOUR,
    device::{Device, State},
    stored,
};
use crate::{TENANT, dead_letter, enqueue};

const USER: &str = "kept-sizes";

/// Bytes of a message on a page besides its id and its payload.
const MESSAGE_BYTES: usize = 48;

/// Returns a payload of this size.
fn payload(bytes: usize) -> String {
    format!("\"{}\"", "x".repeat(bytes - 2))
}

#[tokio::test]
async fn pages_end_at_their_size() -> anyhow::Result<()> {
    let stack = stack().await?;
    let producer = producer(&stack.config, &stack.deployed.queue_url);
    let room = |used: usize| PAGE_BYTES - used - MESSAGE_BYTES - "size-1".len();
    let half = room(PAGE_BYTES / 2);
    let rest = room(MESSAGE_BYTES + "size-1".len() + half);
    // Two that fill a page, one that fits no more, the largest, and one that does not fit beside it.
    let sizes = [half, rest, 3, KEPT_PAYLOAD_BYTES, 3];
    for (index, bytes) in sizes.into_iter().enumerate() {
        let message = Message::user(TENANT, USER).keep(HOUR).id(format!("size-{index}"));
        producer.send(message.json(payload(bytes))?).await?;
        stored(&stack, USER, index as u64 + 1).await?;
    }
    let state = Device::connect(&stack, USER, State::default()).await?.read_until(sizes.len()).await?;
    assert_eq!(state.pages, [2, 1, 1, 1], "the pages' numbers of messages");
    let read: Vec<_> = state.read.iter().map(|message| message.payload.len()).collect();
    assert_eq!(read, sizes);
    Ok(())
}

/// The largest payload fits a frame with its position, live as well as on a page.
#[tokio::test]
async fn payload_of_127_kib_arrives_live() -> anyhow::Result<()> {
    const USER: &str = "kept-largest";
    let stack = stack().await?;
    let mut socket = stack.connect(TENANT, USER).await?;
    let sync =
        serde_json::json!({ "type": "streamer.sync", "hello": true, "streams": [{ "stream": "user" }] });
    socket.send(&sync).await?;
    socket.next(streamer_tests::DEADLINE).await?;
    let message = Message::user(TENANT, USER).keep(HOUR).json(payload(KEPT_PAYLOAD_BYTES))?;
    producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
    let frame = socket.next(streamer_tests::DEADLINE).await?;
    assert_eq!(frame.json()?["type"], "streamer.message");
    assert!((KEPT_PAYLOAD_BYTES..=PAYLOAD_BYTES).contains(&frame.text.len()), "{}", frame.text.len());
    Ok(())
}

/// The producer refuses one byte more. The worker rejects it from others.
#[tokio::test]
async fn one_byte_more_is_rejected() -> anyhow::Result<()> {
    let stack = stack().await?;
    let payload = payload(KEPT_PAYLOAD_BYTES + 1);
    let refused = Message::user(TENANT, USER).keep(HOUR).json(payload.as_str());
    assert!(matches!(refused, Err(MessageError::KeptPayload { bytes }) if bytes == payload.len()));
    let body = format!(
        r#"{{"version":1,"id":"kept-large","to":{{"user":{{"tenant":"{TENANT}","user":"{USER}-large"}}}},"payload":{payload},"keep":3600}}"#
    );
    enqueue(&stack, &body).await?;
    let attributes = dead_letter(&stack, &body).await?.message_attributes.unwrap_or_default();
    assert_eq!(attributes["streamer.reason"].string_value(), Some("rejected"));
    let detail = attributes["streamer.detail"].string_value().unwrap_or_default();
    assert!(detail.contains(&payload.len().to_string()), "{detail}");
    Ok(())
}
