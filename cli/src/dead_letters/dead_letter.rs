//! A message of the dead-letter queue, and the body with which it is sent back.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::types::MessageSystemAttributeName;
use humantime::format_rfc3339_millis;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use streamer_message::{
    Audience, MessageId, OutboundMessage, Retry, TenantId,
    dead_letter::{self, Reason},
};
use streamer_producer::tenant_group;

use crate::{audience, queue::Received};

/// Digits of an HTTP status, which a cause keeps. Numbers of another length are sizes or positions.
const STATUS_DIGITS: usize = 3;

/// Characters of a cause. Later ones may differ from message to message, because they may name a connection or a
/// request.
const CAUSE_CHARACTERS: usize = 48;

/// A message of the dead-letter queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// SQS's id of the message.
    pub message_id: String,
    /// The reason, as the worker names it.
    pub reason: String,
    /// The worker's description of the cause. Empty if there is none.
    pub detail: String,
    /// When a worker first received the message, or else when it was sent to this queue.
    pub since: SystemTime,
    /// The id and audience, if the body has them.
    pub envelope: Option<Envelope>,
    /// The body.
    pub body: String,
    /// The message group.
    pub group: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
    /// How often SQS has delivered it, this time included.
    pub receives: u32,
}

/// The id and the audience of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The id.
    pub id: String,
    /// The audience.
    pub to: Audience,
}

impl From<Received> for DeadLetter {
    fn from(Received { id, body, message }: Received) -> Self {
        use MessageSystemAttributeName::{
            ApproximateReceiveCount, AwsTraceHeader, MessageGroupId, SentTimestamp,
        };

        let attribute =
            |name: &str| message.message_attributes.as_ref()?.get(name)?.string_value().map(str::to_owned);
        let system = |name: MessageSystemAttributeName| message.attributes.as_ref()?.get(&name).cloned();
        let reason = attribute(dead_letter::REASON).unwrap_or_else(|| Reason::CrashedOrThrottled.to_string());
        let detail = attribute(dead_letter::DETAIL).unwrap_or_default();
        let since = attribute(dead_letter::SINCE).or_else(|| system(SentTimestamp));
        let since = since.and_then(|millis| millis.parse().ok()).unwrap_or_default();
        let (group, trace) = (system(MessageGroupId), system(AwsTraceHeader));
        let receives =
            system(ApproximateReceiveCount).and_then(|count| count.parse().ok()).unwrap_or_default();
        Self {
            message_id: id,
            reason,
            detail,
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(since),
            envelope: Envelope::read(&body),
            group: group.filter(|group| !group.is_empty()),
            trace: trace.filter(|trace| !trace.is_empty()),
            receives,
            body,
        }
    }
}

impl DeadLetter {
    /// Returns the start of the detail, with every number replaced except HTTP statuses, so that dead letters of one
    /// cause have the same text.
    #[must_use]
    pub fn cause(&self) -> String {
        let mut cause = String::new();
        let mut digits = String::new();
        for character in self.detail.chars().chain(['\0']) {
            if character.is_ascii_digit() {
                digits.push(character);
                continue;
            }
            cause.push_str(if [0, STATUS_DIGITS].contains(&digits.len()) { &digits } else { "N" });
            digits.clear();
            cause.push(character);
        }
        cause.pop();
        cause.chars().take(CAUSE_CHARACTERS).collect()
    }

    /// Returns the body to send back. Of the worker's retry state it keeps only the connections that have the message
    /// and its position in the mailbox, so that it is not stored twice; the message's age restarts at `now`. A body that is not a message is unchanged, because another version of
    /// the worker may understand it.
    #[must_use]
    pub fn redrive_body(&self, now: SystemTime) -> String {
        let Ok(mut message) = OutboundMessage::decode(&self.body) else { return self.body.clone() };
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let is_partial =
            |retry: &Retry| !retry.done.is_empty() || retry.after.is_some() || retry.kept.is_some();
        let partial = message.retry.clone().filter(is_partial);
        let retry = partial.map(|retry| Retry { count: 0, receives: 0, since, ..retry });
        message.retry = retry;
        message.encode()
    }

    /// Returns the body without the worker's retry state.
    #[must_use]
    pub fn body_without_retry(&self) -> String {
        match OutboundMessage::decode(&self.body) {
            Ok(mut message) => {
                message.retry = None;
                message.encode()
            }
            Err(_) => self.body.clone(),
        }
    }

    /// Returns the message's own id, or else SQS's.
    #[must_use]
    pub fn id(&self) -> &str {
        self.envelope.as_ref().map_or(&self.message_id, |envelope| &envelope.id)
    }

    /// Returns the tenant that the message names.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match &self.envelope.as_ref()?.to {
            Audience::User { tenant, .. } | Audience::Tenant(tenant) | Audience::Shard { tenant, .. } => {
                Some(tenant)
            }
            Audience::Connection(_) | Audience::Connections(_) => None,
        }
    }

    pub(super) fn belongs_to(&self, tenant: &TenantId) -> bool {
        match self.tenant() {
            Some(of) => of == tenant,
            // A message for connections does not name its tenant. On a standard queue its message group does.
            None => self.group.as_ref().is_some_and(|group| *group == tenant_group(tenant)),
        }
    }

    /// Returns the dead letter without its body, as JSON.
    #[must_use]
    pub fn summary(&self) -> Map<String, Value> {
        let summary = json!({
            "id": self.id(),
            "message_id": self.message_id,
            "reason": self.reason,
            "cause": (!self.detail.is_empty()).then_some(&self.detail),
            "tenant": self.tenant(),
            "to": self.envelope.as_ref().map(|envelope| &envelope.to),
            "group": self.group,
            "first_received_at": format_rfc3339_millis(self.since).to_string(),
            "receives": self.receives,
            "bytes": self.body.len(),
        });
        summary.as_object().cloned().unwrap_or_default()
    }
}

impl Envelope {
    /// Reads the id and audience of a message, even if another of its fields is invalid.
    fn read(body: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            id: MessageId,
            to: Audience,
        }

        let Fields { id, to } = serde_json::from_str(body).ok()?;
        Some(Self { id: id.to_string(), to })
    }
}

impl fmt::Display for Envelope {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} to {}", self.id, audience::describe(&self.to))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aws_sdk_sqs::types::{Message, MessageAttributeValue};

    use super::*;

    fn message(body: &str) -> Message {
        Message::builder().message_id("m").receipt_handle("r").body(body).build()
    }

    fn with(message: Message, name: &str, value: &str) -> Message {
        let value = MessageAttributeValue::builder().data_type("String").string_value(value).build().unwrap();
        let mut attributes = message.message_attributes.clone().unwrap_or_default();
        attributes.insert(name.to_owned(), value);
        Message::builder()
            .message_id("m")
            .receipt_handle("r")
            .body(message.body().unwrap())
            .set_attributes(message.attributes.clone())
            .set_message_attributes(Some(attributes))
            .build()
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    const TO_USER: &str =
        r#"{"version":1,"id":"a","to":{"user":{"tenant":"acme","user":"anna"}},"payload":1,"later":[1]}"#;

    #[test]
    fn attributes_give_reason_cause_and_time() {
        let message = with(message(TO_USER), "streamer.reason", "exhausted");
        let message = with(with(message, "streamer.detail", "503"), "streamer.since", "1764000000000");
        let letter = DeadLetter::from(Received::read(message).unwrap());
        assert_eq!((letter.reason.as_str(), letter.cause().as_str()), ("exhausted", "503"));
        assert_eq!(letter.since, at(1_764_000_000_000));
        assert_eq!(
            (letter.id(), letter.envelope.as_ref().unwrap().to_string().as_str()),
            ("a", "a to user anna of acme")
        );
    }

    /// A message that SQS moved to the dead-letter queue has no attributes of the worker's.
    #[test]
    fn moved_messages_have_the_sent_time() {
        let message =
            Message::builder().attributes(MessageSystemAttributeName::SentTimestamp, "1764000000000");
        let message = message.message_id("m").receipt_handle("r").body("no message").build();
        let letter = DeadLetter::from(Received::read(message).unwrap());
        assert_eq!((letter.reason.as_str(), letter.since), ("crashed_or_throttled", at(1_764_000_000_000)));
        assert_eq!(letter.id(), "m", "it has no id of its own");
    }

    #[test]
    fn invalid_message_keeps_its_id_and_audience() {
        let invalid = TO_USER.replace("\"later\":[1]", "\"expires_at\":1764000000");
        assert!(OutboundMessage::decode(&invalid).is_err());
        let letter = DeadLetter::from(Received::read(message(&invalid)).unwrap());
        assert_eq!((letter.id(), letter.tenant().map(TenantId::as_str)), ("a", Some("acme")));
        for body in [r#"{"version":1,"id":"a"}"#, r#"{"id":7,"to":{"connection":"c"}}"#, "a"] {
            assert_eq!(DeadLetter::from(Received::read(message(body)).unwrap()).id(), "m", "{body}");
        }
    }

    #[test]
    fn causes_ignore_sizes_and_positions() {
        let cause = |detail| {
            DeadLetter { detail, ..DeadLetter::from(Received::read(message(TO_USER)).unwrap()) }.cause()
        };
        assert_eq!(
            cause("the payload has 140000 bytes, at most 131072 are posted".to_owned()),
            "the payload has N bytes, at most N are posted"
        );
        assert_eq!(cause("é".repeat(100)), "é".repeat(48));
        assert_eq!(cause("no object (line 1, column 12)".to_owned()), "no object (line N, column N)");
        assert_eq!(cause("413: too large".to_owned()), "413: too large");
        assert_eq!((cause("503".to_owned()), cause(String::new())), ("503".to_owned(), String::new()));
    }

    /// The retry state restarts, except for the connections that have the message and its position. Unknown fields and messages of
    /// other versions are unchanged.
    #[test]
    fn redrive_body_resets_the_retry_state() {
        let with_retry = |retry: &str| TO_USER.replace("\"later\"", &format!("{retry},\"later\""));
        let redriven =
            |body: &str| DeadLetter::from(Received::read(message(body)).unwrap()).redrive_body(at(7));
        let crashed = with_retry(r#""retry":{"count":9,"receives":9,"since":1,"cause":"503"}"#);
        assert_eq!(redriven(&crashed), TO_USER);
        let partial = r#""retry":{"count":9,"receives":9,"since":1,"cause":"503","done":["c"]}"#;
        let reset = r#""retry":{"count":0,"receives":0,"since":7,"cause":"503","done":["c"]}"#;
        assert_eq!(redriven(&with_retry(partial)), with_retry(reset));
        let kept =
            r#""retry":{"count":2,"receives":3,"since":1,"cause":"503","kept":{"epoch":"e.0","seq":4}}"#;
        let reset =
            r#""retry":{"count":0,"receives":0,"since":7,"cause":"503","kept":{"epoch":"e.0","seq":4}}"#;
        assert_eq!(redriven(&with_retry(kept)), with_retry(reset), "it would be stored twice");
        let without_retry =
            |body: &str| DeadLetter::from(Received::read(message(body)).unwrap()).body_without_retry();
        assert_eq!(without_retry(&with_retry(partial)), TO_USER, "the retry state makes no difference");
        let future = r#"{"version":2}"#;
        assert_eq!((redriven(future), without_retry(future)), (future.to_owned(), future.to_owned()));
    }
}
