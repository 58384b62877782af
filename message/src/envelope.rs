//! A decoded message without its payload, which the worker encodes again for other recipients.

use serde::Serialize;

use crate::{
    audience::Audience,
    error::DecodeError,
    fields::{Fields, REQUEST, TO, UnknownFields, object_field},
    id::MessageId,
    keep::Keep,
    outbound::{OutboundMessage, Request, Retry, Version},
    payload::escape_for_queue,
    receipt::ReceiptRequest,
};

/// A message without its payload. It owns everything that a worker needs to send the message again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id.
    pub id: MessageId,
    /// The recipients.
    pub to: Audience,
    /// The request that the message belongs to.
    pub request: Option<Request>,
    /// Whether a later message of the same request makes this one worthless.
    pub supersedable: bool,
    /// Time in milliseconds since the epoch after which the message is dropped.
    pub expires_at: Option<u64>,
    /// Time for which the mailbox keeps the message.
    pub keep: Option<Keep>,
    /// The request for a receipt, with the notes of earlier workers.
    pub receipt: Option<ReceiptRequest>,
    /// The notes of the worker that handed it back.
    pub retry: Option<Retry>,
    unknown: UnknownFields<'static>,
}

/// JSON texts of a body, which the worker keeps beside the envelope as slices, so that decoding copies none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Texts<'a> {
    /// The payload.
    pub payload: &'a str,
    /// The audience, with the fields inside it that this version does not know.
    pub to: &'a str,
    /// The request likewise. Empty if the message has none.
    pub request: &'a str,
}

impl Envelope {
    /// Decodes the body of a queue message into its envelope and the texts that [`encode`](Self::encode) needs.
    ///
    /// # Errors
    /// The same as [`OutboundMessage::decode`].
    pub fn decode(body: &str) -> Result<(Self, Texts<'_>), DecodeError> {
        let fields = Fields::read(body)?;
        let [payload, to, request] = ["payload", "to", "request"].map(|field| fields.text(field));
        let texts = Texts { payload, to, request };
        let message = OutboundMessage::from_fields(fields)?;
        let OutboundMessage {
            id, to, request, supersedable, expires_at, keep, receipt, retry, unknown, ..
        } = message;
        let unknown = unknown.into_owned();
        Ok((Self { id, to, request, supersedable, expires_at, keep, receipt, retry, unknown }, texts))
    }

    /// Encodes the message for other recipients, with other notes. All other fields keep their values, including
    /// unknown ones at the top level and inside `to` and `request`.
    #[must_use]
    pub fn encode(
        &self,
        texts: Texts<'_>,
        to: &Audience,
        receipt: Option<&ReceiptRequest>,
        retry: Option<&Retry>,
    ) -> String {
        let mut fields = vec![
            object_field("version", &json(&Version)),
            object_field("id", &json(&self.id)),
            object_field("to", &TO.merge(json(to), texts.to)),
            object_field("payload", texts.payload),
        ];
        if let Some(request) = &self.request {
            fields.push(object_field("request", &REQUEST.merge(json(request), texts.request)));
        }
        if self.supersedable {
            fields.push(object_field("supersedable", "true"));
        }
        fields.extend(self.expires_at.map(|expires_at| object_field("expires_at", &json(&expires_at))));
        fields.extend(self.keep.map(|keep| object_field("keep", &json(&keep))));
        fields.extend(receipt.map(|receipt| object_field("receipt", &json(receipt))));
        fields.extend(retry.map(|retry| object_field("retry", &json(retry))));
        fields.extend(self.unknown.iter().map(|(name, value)| object_field(name, value.as_str())));
        escape_for_queue(format!("{{{}}}", fields.join(",")))
    }
}

#[expect(clippy::expect_used, reason = "every part of a message is valid JSON")]
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("a part of a message is valid JSON")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn encode(body: &str, to: Option<&Audience>) -> Value {
        let (envelope, texts) = Envelope::decode(body).unwrap();
        let encoded = envelope.encode(
            texts,
            to.unwrap_or(&envelope.to),
            envelope.receipt.as_ref(),
            envelope.retry.as_ref(),
        );
        serde_json::from_str(&encoded).unwrap()
    }

    #[test]
    fn every_field_is_encoded_again() {
        let body = json!({
            "version": 1,
            "id": "m",
            "to": {"user": {"tenant": "t", "user": "u"}},
            "payload": {"a": [1.0, "\u{e9}"]},
            "request": {"id": "r", "seq": 7},
            "supersedable": true,
            "expires_at": 1_764_000_000_000_u64,
            "keep": 604_800,
            "receipt": {"part": "9f.0", "settled": {"delivered": 2}},
            "retry": {"count": 3, "receives": 1, "since": 5, "cause": "503", "done": ["a="], "kept": {"epoch": "e", "seq": 9}},
            "note": true,
        });
        let text = body.to_string();
        assert_eq!(encode(&text, None), body);
        let (envelope, texts) = Envelope::decode(&text).unwrap();
        let message = OutboundMessage::decode(&text).unwrap().encode();
        assert_eq!(
            envelope.encode(texts, &envelope.to, envelope.receipt.as_ref(), envelope.retry.as_ref()),
            message
        );
    }

    #[test]
    fn unknown_fields_inside_objects_are_kept() {
        let original = json!({
            "version": 1,
            "id": "m",
            "to": {"user": {"tenant": "t", "user": "u", "device": [1.0]}, "via": {"a\"b": null}},
            "payload": 1,
            "request": {"id": "r", "seq": 7, "span": "x"},
            "note": true,
        });
        assert_eq!(encode(&original.to_string(), None), original);

        let narrowed = encode(&original.to_string(), Some(&Audience::Connection("a".try_into().unwrap())));
        assert_eq!(narrowed["to"], json!({"connection": "a", "via": {"a\"b": null}}));
    }

    #[test]
    fn notes_can_be_removed() {
        let retry = r#""retry":{"count":1,"receives":0,"since":5,"cause":"503"}"#;
        let body = format!(r#"{{"version":1,"id":"m","to":{{"connection":"c"}},"payload":1,{retry}}}"#);
        let (envelope, texts) = Envelope::decode(&body).unwrap();
        let expected = r#"{"version":1,"id":"m","to":{"connection":"c"},"payload":1}"#;
        assert_eq!(envelope.encode(texts, &envelope.to, None, None), expected);
    }
}
