//! The frame of a page.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use streamer_mailbox::Page;
use streamer_message::{
    Payload, PayloadError, StreamName,
    frame::{PageFrame, PageMessage, ServerFrame},
};

use crate::time::millis;

/// Time after which API Gateway ends a connection.
///
/// Source: "Connection duration for WebSocket API" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const CONNECTION_DURATION: Duration = Duration::from_secs(2 * 3600);

/// Encodes the page that answers sync `n` at `now`, on a connection that was made at `connected_at`.
///
/// # Errors
/// [`PayloadError`] if a stored payload is not JSON.
pub(crate) fn encode(
    n: u64,
    stream: StreamName,
    page: &Page,
    connected_at: SystemTime,
    now: SystemTime,
) -> Result<Bytes, PayloadError> {
    let messages = page.messages.iter().map(|(seq, message)| {
        let payload = Payload::from_json(message.body.clone())?;
        Ok(PageMessage { seq: *seq, id: &message.id, ack: message.ack, payload })
    });
    let end = connected_at + CONNECTION_DURATION;
    let frame = ServerFrame::Page(PageFrame {
        n,
        stream,
        epoch: &page.epoch,
        after: page.after,
        through: page.through,
        top: page.top,
        messages: messages.collect::<Result<_, _>>()?,
        missing: page.missing.clone(),
        reset: page.reset,
        expires_in: end.duration_since(now).unwrap_or_default().as_secs(),
        now: millis(now),
    });
    Ok(serde_json::to_vec(&frame).map_err(PayloadError::NotJson)?.into())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use streamer_mailbox::StoredMessage;
    use streamer_message::frame::{Missing, MissingReason, Reset};

    use super::*;

    const CONNECTED_AT: SystemTime = SystemTime::UNIX_EPOCH;

    fn page(body: &str) -> Page {
        let until = CONNECTED_AT + CONNECTION_DURATION;
        let message = StoredMessage {
            id: "m".try_into().unwrap(),
            body: body.to_owned(),
            stored_at: CONNECTED_AT,
            until,
            ack: true,
        };
        Page {
            epoch: "e.0".try_into().unwrap(),
            after: 1,
            through: 4,
            top: 9,
            messages: vec![(2, message)],
            missing: vec![Missing { from: 3, to: 4, reason: MissingReason::Expired }],
            reset: Some(Reset::Epoch),
        }
    }

    fn encoded(body: &str, after: Duration) -> String {
        let frame = encode(7, StreamName::User, &page(body), CONNECTED_AT, CONNECTED_AT + after).unwrap();
        String::from_utf8(frame.to_vec()).unwrap()
    }

    #[test]
    fn frame_has_every_field() {
        let frame: Value = serde_json::from_str(&encoded("[1]", Duration::from_millis(1500))).unwrap();
        let expected = json!({
            "type": "streamer.page", "n": 7, "stream": "user", "epoch": "e.0",
            "after": 1, "through": 4, "top": 9,
            "messages": [{"seq": 2, "id": "m", "ack": true, "payload": [1]}],
            "missing": [{"from": 3, "to": 4, "reason": "expired"}],
            "reset": "epoch", "expires_in": 7198, "now": 1500,
        });
        assert_eq!(frame, expected);
    }

    #[test]
    fn payload_keeps_its_bytes() {
        let payload = r#"{ "b": 1.0, "a": 1e400 }"#;
        assert!(encoded(payload, Duration::ZERO).contains(&format!(r#""payload":{payload}"#)));
    }

    #[test]
    fn remaining_seconds_are_never_negative() {
        for (after, expected) in [(0, 7200), (7199, 1), (7200, 0), (9000, 0)] {
            let frame: Value = serde_json::from_str(&encoded("1", Duration::from_secs(after))).unwrap();
            assert_eq!(frame["expires_in"], expected);
        }
    }

    #[test]
    fn stored_text_that_is_not_json_fails() {
        let page = page("{");
        assert!(encode(7, StreamName::User, &page, CONNECTED_AT, CONNECTED_AT).is_err());
    }
}
