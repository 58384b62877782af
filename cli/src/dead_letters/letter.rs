//! One dead letter, and what it is sent back as.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::types::{Message, MessageSystemAttributeName};
use streamer_message::{
    Audience, OutboundMessage, Retry, TenantId,
    dead_letter::{self, Reason},
};
use streamer_producer::tenant_group;

/// Digits of an HTTP status. A number of more or fewer is a size or a place.
const STATUS: usize = 3;

/// Characters that letters of one cause share: the rest may hold a connection or a request.
const CAUSE: usize = 48;

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Letter {
    /// The queue's id of it, and what it is held by.
    pub receipt: (String, String),
    /// Why it is here: the outcome's name.
    pub reason: String,
    /// What the worker said of it.
    pub detail: String,
    /// When a worker had it first, or else when it was put on the queue.
    pub since: SystemTime,
    /// What it says of itself, if it is a message.
    pub source: Option<Source>,
    /// Its body.
    pub body: String,
    /// Its message group.
    pub group: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
}

/// What a message says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its id.
    pub id: String,
    /// Whom it is for.
    pub to: Audience,
}

impl Letter {
    /// Reads what SQS returned; `None` where that is nothing.
    pub(super) fn read(message: Message) -> Option<Self> {
        use MessageSystemAttributeName::{AwsTraceHeader, MessageGroupId, SentTimestamp};

        let attribute =
            |name: &str| message.message_attributes.as_ref()?.get(name)?.string_value().map(str::to_owned);
        let system = |name: MessageSystemAttributeName| message.attributes.as_ref()?.get(&name).cloned();
        let reason = attribute(dead_letter::REASON).unwrap_or_else(|| Reason::CrashedOrThrottled.to_string());
        let detail = attribute(dead_letter::DETAIL).unwrap_or_default();
        let since = attribute(dead_letter::SINCE).or_else(|| system(SentTimestamp));
        let since = since.and_then(|millis| millis.parse().ok()).unwrap_or_default();
        let (group, trace) = (system(MessageGroupId), system(AwsTraceHeader));
        let body = message.body?;
        Some(Self {
            receipt: (message.message_id?, message.receipt_handle?),
            reason,
            detail,
            since: SystemTime::UNIX_EPOCH + Duration::from_millis(since),
            source: OutboundMessage::decode(&body)
                .ok()
                .map(|message| Source { id: message.id.to_string(), to: message.to }),
            group: group.filter(|group| !group.is_empty()),
            trace: trace.filter(|trace| !trace.is_empty()),
            body,
        })
    }

    /// The beginning of the detail, without numbers that differ from letter to letter: a status stays.
    #[must_use]
    pub fn cause(&self) -> String {
        let mut cause = String::new();
        let mut digits = String::new();
        for character in self.detail.chars().chain(['\0']) {
            if character.is_ascii_digit() {
                digits.push(character);
                continue;
            }
            cause.push_str(if [0, STATUS].contains(&digits.len()) { &digits } else { "N" });
            digits.clear();
            cause.push(character);
        }
        cause.pop();
        cause.chars().take(CAUSE).collect()
    }

    /// The body as it is sent back: a message begins anew, and of what workers have noted on it only the connections
    /// that have it stay. What is no message stays as it is, since another version of the worker may know it.
    #[must_use]
    pub fn revived(&self, now: SystemTime) -> String {
        let Ok(mut message) = OutboundMessage::decode(&self.body) else { return self.body.clone() };
        let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let served = message.retry.clone().filter(|retry| !retry.done.is_empty() || retry.after.is_some());
        message.retry = served.map(|retry| Retry { count: 0, receives: 0, since, ..retry });
        message.encode()
    }

    /// What it says, whatever workers have noted on it.
    #[must_use]
    pub fn says(&self) -> String {
        match OutboundMessage::decode(&self.body) {
            Ok(mut message) => {
                message.retry = None;
                message.encode()
            }
            Err(_) => self.body.clone(),
        }
    }

    /// What it is known by: a message's id, or else the queue's.
    #[must_use]
    pub fn id(&self) -> &str {
        self.source.as_ref().map_or(&self.receipt.0, |source| &source.id)
    }

    fn is_of(&self, tenant: &TenantId) -> bool {
        match self.source.as_ref().map(|source| &source.to) {
            Some(
                Audience::User { tenant: of, .. } | Audience::Tenant(of) | Audience::Shard { tenant: of, .. },
            ) => of == tenant,
            // A connection's message says nothing of a tenant; on a standard queue its group does.
            _ => self.group.as_ref().is_some_and(|group| *group == tenant_group(tenant)),
        }
    }
}

/// Which letters somebody means: those that fit all that is said.
#[derive(Debug, Clone, Default)]
pub struct Meant {
    /// Those here for this reason.
    pub reason: Option<String>,
    /// Those of this tenant.
    pub tenant: Option<TenantId>,
    /// Those that a worker had first before this time.
    pub before: Option<SystemTime>,
    /// Those that a worker had first after this time.
    pub after: Option<SystemTime>,
    /// The one with this id.
    pub id: Option<String>,
}

impl Meant {
    /// Whether a letter is meant.
    #[must_use]
    pub fn means(&self, letter: &Letter) -> bool {
        let Self { reason, tenant, before, after, id } = self;
        reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && tenant.as_ref().is_none_or(|tenant| letter.is_of(tenant))
            && before.is_none_or(|before| letter.since < before)
            && after.is_none_or(|after| letter.since > after)
            && id.as_ref().is_none_or(|id| id == letter.id())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.to {
            Audience::Connection(id) => write!(formatter, "{} to {id}", self.id),
            Audience::Connections(ids) => {
                write!(formatter, "{} to {} connections", self.id, ids.as_slice().len())
            }
            Audience::User { tenant, user } => write!(formatter, "{} to user {user} of {tenant}", self.id),
            Audience::Tenant(tenant) => write!(formatter, "{} to tenant {tenant}", self.id),
            Audience::Shard { tenant, .. } => write!(formatter, "{} to a part of tenant {tenant}", self.id),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aws_sdk_sqs::types::MessageAttributeValue;

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
    fn a_letter_tells_why_it_is_here_and_since_when() {
        let letter = with(message(TO_USER), "streamer.reason", "exhausted");
        let letter = with(with(letter, "streamer.detail", "503"), "streamer.since", "1764000000000");
        let letter = Letter::read(letter).unwrap();
        assert_eq!((letter.reason.as_str(), letter.cause().as_str()), ("exhausted", "503"));
        assert_eq!(letter.since, at(1_764_000_000_000));
        assert_eq!(
            (letter.id(), letter.source.as_ref().unwrap().to_string().as_str()),
            ("a", "a to user anna of acme")
        );
    }

    #[test]
    fn what_sqs_moved_has_the_time_at_which_it_was_sent() {
        let letter =
            Message::builder().attributes(MessageSystemAttributeName::SentTimestamp, "1764000000000");
        let letter = letter.message_id("m").receipt_handle("r").body("no message").build();
        let letter = Letter::read(letter).unwrap();
        assert_eq!((letter.reason.as_str(), letter.since), ("crashed_or_throttled", at(1_764_000_000_000)));
        assert_eq!(letter.id(), "m", "it has no id of its own");
    }

    #[test]
    fn sizes_and_places_make_no_causes_of_their_own() {
        let cause = |detail| Letter { detail, ..Letter::read(message(TO_USER)).unwrap() }.cause();
        assert_eq!(
            cause("the payload has 140000 bytes, API Gateway delivers 131072".to_owned()),
            "the payload has N bytes, API Gateway delivers N"
        );
        assert_eq!(cause("é".repeat(100)), "é".repeat(48));
        assert_eq!(cause("no object (line 1, column 12)".to_owned()), "no object (line N, column N)");
        assert_eq!(cause("413: too large".to_owned()), "413: too large");
        assert_eq!((cause("503".to_owned()), cause(String::new())), ("503".to_owned(), String::new()));
    }

    #[test]
    fn a_message_begins_anew_and_keeps_who_has_it_and_what_this_version_does_not_know() {
        let noted = |retry: &str| TO_USER.replace("\"later\"", &format!("{retry},\"later\""));
        let revived = |body: &str| Letter::read(message(body)).unwrap().revived(at(7));
        let crashed = noted(r#""retry":{"count":9,"receives":9,"since":1,"cause":"503"}"#);
        assert_eq!(revived(&crashed), TO_USER);
        let served = r#""retry":{"count":9,"receives":9,"since":1,"cause":"503","done":["c"]}"#;
        let anew = r#""retry":{"count":0,"receives":0,"since":7,"cause":"503","done":["c"]}"#;
        assert_eq!(revived(&noted(served)), noted(anew));
        let says = |body: &str| Letter::read(message(body)).unwrap().says();
        assert_eq!(says(&noted(served)), TO_USER, "whatever is noted on it, it is the same");
        let future = r#"{"version":2}"#;
        assert_eq!((revived(future), says(future)), (future.to_owned(), future.to_owned()));
    }

    #[test]
    fn what_is_meant_fits_all_that_is_said() {
        let letter = with(with(message(TO_USER), "streamer.reason", "rejected"), "streamer.since", "1000");
        let letter = Letter::read(letter).unwrap();
        let all = Meant::default();
        let means = |meant: Meant| meant.means(&letter);
        assert!(means(all.clone()));
        let reason = |reason: &str| Meant { reason: Some(reason.to_owned()), ..all.clone() };
        assert!(means(reason("rejected")) && !means(reason("poison")));
        let tenant = |tenant: &str| Meant { tenant: Some(tenant.try_into().unwrap()), ..all.clone() };
        assert!(means(tenant("acme")) && !means(tenant("globex")));
        let id = |id: &str| Meant { id: Some(id.to_owned()), ..all.clone() };
        assert!(means(id("a")) && !means(id("m")));
        assert!(means(Meant { before: Some(at(1001)), ..all.clone() }));
        assert!(!means(Meant { before: Some(at(1000)), ..all.clone() }));
        assert!(means(Meant { after: Some(at(999)), ..all.clone() }));
        assert!(!means(Meant { after: Some(at(1000)), ..all.clone() }));
        assert!(!means(Meant { after: Some(at(1000)), ..reason("rejected") }));
    }

    #[test]
    fn a_connections_letter_is_of_the_tenant_that_its_group_is() {
        let to_connection = r#"{"version":1,"id":"a","to":{"connection":"c"},"payload":1}"#;
        let letter = Letter::read(message(to_connection)).unwrap();
        let acme = Meant { tenant: Some("a b".try_into().unwrap()), ..Meant::default() };
        assert!(!acme.means(&letter));
        assert!(acme.means(&Letter { group: Some("a%20b".to_owned()), ..letter }));
    }
}
