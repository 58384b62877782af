//! What the worker writes: dead letters, and messages that it hands back.

use std::time::SystemTime;

use streamer_message::{Audience, ConnectionId, Connections, OutboundMessage, Retry, dead_letter};

use crate::{
    decode::{Record, millis},
    outcome::Cause,
};

/// Bytes of an attribute's text, at most.
const DETAIL_BYTES: usize = 1024;

/// A message to send.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Letter {
    /// The place in the batch of the record that needs it.
    pub place: usize,
    /// Its body.
    pub body: String,
    /// Its attributes, none of them empty.
    pub attributes: Vec<(&'static str, String)>,
    /// How many seconds it waits on the queue.
    pub delay: u32,
    /// Its message group.
    pub group: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
}

/// Why a message is handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandBack {
    /// What kept it from being finished.
    pub cause: String,
    /// How many seconds it waits.
    pub delay: u32,
    /// Connections that need nothing more.
    pub done: Vec<ConnectionId>,
    /// Up to which connection a part of a tenant, or a user with many connections, has its messages.
    pub after: Option<ConnectionId>,
}

impl Letter {
    /// As SQS counts: the body, and each attribute's name, type and value.
    ///
    /// Source: "Message size" in
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let bytes = |(name, value): &(&str, String)| name.len() + "String".len() + value.len();
        self.body.len() + self.attributes.iter().map(bytes).sum::<usize>()
    }

    /// A dead letter: the message for its unfinished connections, or poison as it came, and why it is here.
    /// `None` when the message cannot be written.
    #[must_use]
    pub fn dead(
        place: usize,
        record: &Record,
        unfinished: Vec<ConnectionId>,
        after: Option<ConnectionId>,
        reason: &str,
        detail: &str,
        now: SystemTime,
    ) -> Option<Self> {
        let body = match &record.content {
            Err(_) => record.text().to_owned(),
            Ok(_) => rewrite(record, unfinished, after, None)?,
        };
        let attributes = vec![
            (dead_letter::REASON, reason.to_owned()),
            (dead_letter::DETAIL, clean(detail)),
            (dead_letter::ATTEMPTS, record.attempts().to_string()),
            (dead_letter::SINCE, millis(record.since().unwrap_or(now)).to_string()),
        ];
        let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect();
        Some(Self { body, attributes, ..Self::about(place, record) })
    }

    /// The message for its unfinished connections, with what has to be known of it the next time. `None` when
    /// it cannot be written.
    #[must_use]
    pub fn back(
        place: usize,
        record: &Record,
        unfinished: Vec<ConnectionId>,
        back: HandBack,
        now: SystemTime,
    ) -> Option<Self> {
        let before = record.retry();
        let retry = Retry {
            count: before.map_or(0, |retry| retry.count).saturating_add(1),
            receives: record.suspicious_receives().saturating_sub(1),
            since: millis(record.since().unwrap_or(now)),
            cause: with_elsewhere(clean(&back.cause), before),
            done: back.done,
            // A part of a tenant has it in its audience.
            after: match record.content.as_ref().map(|message| &message.to) {
                Ok(Audience::User { .. }) => {
                    back.after.clone().or_else(|| before.and_then(|retry| retry.after.clone()))
                }
                _ => None,
            },
        };
        let body = rewrite(record, unfinished, back.after, Some(retry))?;
        Some(Self { body, delay: back.delay, ..Self::about(place, record) })
    }

    /// The message for parts of its audience, as new as if its producer had addressed them. Their places are those among
    /// the parts. None where they cannot be written.
    #[must_use]
    pub fn parts(record: &Record, audiences: Vec<Audience>) -> Option<Vec<Self>> {
        let message = OutboundMessage::decode(record.text()).ok()?;
        let part = |(place, to)| {
            let mut message = message.clone();
            (message.to, message.retry) = (to, None);
            let body = message.encode_over(record.text());
            Self { body, ..Self::about(place, record) }
        };
        Some(audiences.into_iter().enumerate().map(part).collect())
    }

    fn about(place: usize, record: &Record) -> Self {
        let Record { group, trace, .. } = record;
        Self { place, group: group.clone(), trace: trace.clone(), ..Self::default() }
    }
}

/// The record's message, but for fewer connections and with another `retry`. All else stays as it came.
fn rewrite(
    record: &Record,
    unfinished: Vec<ConnectionId>,
    after: Option<ConnectionId>,
    retry: Option<Retry>,
) -> Option<String> {
    let mut message = OutboundMessage::decode(record.text()).ok()?;
    message.to = narrowed(message.to, unfinished, after);
    message.retry = retry;
    Some(message.encode_over(record.text()))
}

/// A message for connections is then for the unfinished ones only, and so is one for a part of a tenant that came to
/// connections; one that did not goes on behind the last that has its messages. One for a user stays so: who has
/// reconnected in between is to be found.
fn narrowed(to: Audience, unfinished: Vec<ConnectionId>, behind: Option<ConnectionId>) -> Audience {
    let to = match to {
        Audience::Shard { tenant, shard, after } => match Connections::new(unfinished.clone()) {
            Ok(connections) => Audience::Connections(connections),
            Err(_) => return Audience::Shard { tenant, shard, after: behind.or(after) },
        },
        to => to,
    };
    match (to, <[ConnectionId; 1]>::try_from(unfinished)) {
        (Audience::Connection(_) | Audience::Connections(_), Ok([one])) => Audience::Connection(one),
        (Audience::Connections(all), Err(some)) => {
            Connections::new(some).map_or(Audience::Connections(all), Audience::Connections)
        }
        (to, _) => to,
    }
}

/// A later cause does not hide that the audience was connected elsewhere: without its rows only this tells.
fn with_elsewhere(cause: String, before: Option<&Retry>) -> String {
    match before.and_then(|retry| Cause::elsewhere(&retry.cause)) {
        Some(elsewhere) if Cause::elsewhere(&cause).is_none() => format!("{cause}; {elsewhere}"),
        _ => cause,
    }
}

/// Cuts a text to what an attribute may hold: 1 KiB of the characters that SQS takes.
fn clean(text: &str) -> String {
    let taken = |character: &char| match character {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        other => *other >= ' ',
    };
    let mut detail = String::new();
    for character in text.chars().filter(taken) {
        if detail.len() + character.len_utf8() > DETAIL_BYTES {
            break;
        }
        detail.push(character);
    }
    detail
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[&str]) -> Vec<ConnectionId> {
        ids.iter().map(|id| (*id).try_into().unwrap()).collect()
    }

    fn connections(names: &[&str]) -> Audience {
        Audience::Connections(Connections::new(ids(names)).unwrap())
    }

    #[test]
    fn a_text_has_at_most_1_kib_of_characters_that_sqs_takes() {
        assert_eq!(clean("a\u{0}b\u{FFFE}c\u{1b}d\n"), "abcd\n");
        let long = clean(&"é".repeat(1000));
        assert_eq!((long.len(), long.chars().count()), (1024, 512));
        assert_eq!(clean(&format!("x{}", "é".repeat(1000))).len(), 1023);
    }

    #[test]
    fn connections_are_narrowed_to_the_unfinished_and_a_user_is_not() {
        let one = Audience::Connection("a".try_into().unwrap());
        assert_eq!(narrowed(connections(&["a", "b", "c"]), ids(&["a", "c"]), None), connections(&["a", "c"]));
        assert_eq!(narrowed(connections(&["a", "b"]), ids(&["a"]), None), one);
        assert_eq!(narrowed(one.clone(), ids(&["a"]), None), one);
        assert_eq!(
            narrowed(connections(&["a", "b"]), ids(&[]), None),
            connections(&["a", "b"]),
            "it came to none"
        );
        let user = Audience::User { tenant: "t".try_into().unwrap(), user: "u".try_into().unwrap() };
        assert_eq!(narrowed(user.clone(), ids(&["a"]), None), user);
        let shard = |after: Option<&str>| Audience::Shard {
            tenant: "acme".try_into().unwrap(),
            shard: 3,
            after: after.map(|after| after.try_into().unwrap()),
        };
        let behind = Some("z".try_into().unwrap());
        assert_eq!(narrowed(shard(Some("a")), ids(&[]), None), shard(Some("a")));
        assert_eq!(narrowed(shard(Some("a")), ids(&[]), behind), shard(Some("z")));
        assert_eq!(narrowed(shard(None), ids(&["a", "c"]), None), connections(&["a", "c"]));
    }
}
