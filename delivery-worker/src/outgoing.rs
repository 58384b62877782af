//! Messages that the worker sends: hand-backs, dead letters and the messages of a fan-out.

use std::time::SystemTime;

use streamer_message::{Audience, ConnectionId, Connections, ReceiptRequest, Retry, dead_letter};
use streamer_queue::Outgoing;

use crate::{
    decode::{Message, Record, millis},
    outcome::Cause,
};

/// Maximum size of an attribute's text, in bytes.
const DETAIL_BYTES: usize = 1024;

/// Stands for the rest of a text that was cut.
const ELLIPSIS: &str = "…";

/// A record's unfinished part: the message for fewer recipients.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Unfinished {
    /// The connections that still need the message.
    pub connections: Vec<ConnectionId>,
    /// The last connection of a shard, or of a user with many connections, up to which all have their messages.
    pub after: Option<ConnectionId>,
}

/// Why, and for how long, a message is handed back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandBack {
    /// The cause.
    pub cause: String,
    /// The delay, in seconds.
    pub delay: u32,
    /// A user's connections that need no further post.
    pub done: Vec<ConnectionId>,
    /// The notes of a message whose producer asked for a receipt.
    pub receipt: Option<ReceiptRequest>,
}

/// Why a message is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadLetter<'a> {
    /// The reason: the outcome's name.
    pub reason: &'a str,
    /// The detail, cut to 1 KiB.
    pub detail: &'a str,
}

/// Writes a dead letter: the message for its unfinished connections, or a poison body unchanged. `receipt` has the notes
/// of a message whose producer asked for a receipt.
#[must_use]
pub fn dead_letter(
    index: usize,
    record: &Record,
    unfinished: Unfinished,
    why: DeadLetter<'_>,
    receipt: Option<&ReceiptRequest>,
    now: SystemTime,
) -> Outgoing {
    let body = match (&record.content, &record.due) {
        (Ok(message), _) => message.encode(&narrow(message.envelope.to.clone(), unfinished), receipt, None),
        (Err(_), Some(due)) => due.event.encode(),
        (Err(_), None) => record.text().to_owned(),
    };
    let attributes = vec![
        (dead_letter::REASON, why.reason.to_owned()),
        (dead_letter::DETAIL, clean(why.detail)),
        (dead_letter::ATTEMPTS, record.attempts().to_string()),
        (dead_letter::SINCE, millis(record.since().unwrap_or(now)).to_string()),
    ];
    let attributes = attributes.into_iter().filter(|(_, value)| !value.is_empty()).collect();
    Outgoing { body, attributes, ..about(index, record) }
}

/// Writes the message for its unfinished connections, with a `retry` note for the worker that receives it. `None` if the
/// record has no valid message.
#[must_use]
pub fn hand_back(
    index: usize,
    record: &Record,
    unfinished: Unfinished,
    why: HandBack,
    now: SystemTime,
) -> Option<Outgoing> {
    let message = record.content.as_ref().ok()?;
    let before = record.retry();
    let retry = Retry {
        count: before.map_or(0, |retry| retry.count).saturating_add(1),
        receives: record.suspicious_receives().saturating_sub(1),
        since: millis(record.since().unwrap_or(now)),
        cause: with_elsewhere(clean(&why.cause), before),
        done: why.done,
        // A shard's audience has the cursor itself.
        after: match message.envelope.to {
            Audience::User { .. } => {
                unfinished.after.clone().or_else(|| before.and_then(|retry| retry.after.clone()))
            }
            _ => None,
        },
        kept: record.position().cloned(),
    };
    let to = narrow(message.envelope.to.clone(), unfinished);
    let body = message.encode(&to, why.receipt.as_ref(), Some(&retry));
    Some(Outgoing { body, delay: why.delay, ..about(index, record) })
}

/// Writes the message for each of these audiences, as if its producer had addressed them. The `index` of each is its
/// position in `audiences`. If its producer asked for a receipt, each has the next of `names`.
pub fn for_audiences<'a>(
    record: &'a Record,
    message: &'a Message,
    audiences: &'a [Audience],
    names: impl Iterator<Item = String> + 'a,
) -> impl Iterator<Item = Outgoing> {
    audiences.iter().enumerate().zip(names).map(|((index, to), name)| {
        let asked = message.envelope.receipt.as_ref();
        let receipt = asked.map(|_| ReceiptRequest { part: Some(name), ..ReceiptRequest::default() });
        let body = message.encode(to, receipt.as_ref(), None);
        Outgoing { body, ..about(index, record) }
    })
}

/// Returns an empty message about a record.
pub(crate) fn about(index: usize, record: &Record) -> Outgoing {
    let Record { group, trace, .. } = record;
    Outgoing { index, group: group.clone(), trace: trace.clone(), ..Outgoing::default() }
}

/// Narrows an audience to its unfinished connections. A shard that was resolved becomes these connections, and one that
/// was not continues after its cursor. A user stays a user, so that the message finds a client that reconnects.
fn narrow(to: Audience, Unfinished { connections, after: cursor }: Unfinished) -> Audience {
    let to = match to {
        Audience::Shard { tenant, shard, after } => match Connections::new(connections.clone()) {
            Ok(connections) => Audience::Connections(connections),
            Err(_) => return Audience::Shard { tenant, shard, after: cursor.or(after) },
        },
        to => to,
    };
    match (to, <[ConnectionId; 1]>::try_from(connections)) {
        (Audience::Connection(_) | Audience::Connections(_), Ok([one])) => Audience::Connection(one),
        (Audience::Connections(all), Err(some)) => {
            Connections::new(some).map_or(Audience::Connections(all), Audience::Connections)
        }
        (to, _) => to,
    }
}

/// Keeps an earlier [`Cause::Elsewhere`] beside a later cause: once the rows have expired, nothing else shows it.
fn with_elsewhere(cause: String, before: Option<&Retry>) -> String {
    match before.and_then(|retry| Cause::elsewhere(&retry.cause)) {
        Some(elsewhere) if Cause::elsewhere(&cause).is_none() => format!("{cause}; {elsewhere}"),
        _ => cause,
    }
}

/// Cuts a text to 1 KiB, with an ellipsis for the rest, and removes characters that SQS refuses.
pub(crate) fn clean(text: &str) -> String {
    let is_allowed = |character: &char| match character {
        '\t' | '\n' | '\r' => true,
        '\u{FFFE}' | '\u{FFFF}' => false,
        other => *other >= ' ',
    };
    let mut detail: String = text.chars().filter(is_allowed).collect();
    if detail.len() > DETAIL_BYTES {
        detail.truncate(detail.floor_char_boundary(DETAIL_BYTES - ELLIPSIS.len()));
        detail.push_str(ELLIPSIS);
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

    fn narrowed(to: Audience, names: &[&str], after: Option<&str>) -> Audience {
        let after = after.map(|after| after.try_into().unwrap());
        narrow(to, Unfinished { connections: ids(names), after })
    }

    #[test]
    fn details_are_cut_to_1_kib() {
        assert_eq!(clean("a\u{0}b\u{FFFE}c\u{1b}d\n"), "abcd\n");
        let long = clean(&"é".repeat(1000));
        assert_eq!((long.len(), long.chars().count(), long.ends_with("é…")), (1023, 511, true));
        assert_eq!(clean(&format!("x{}", "é".repeat(1000))).len(), 1024);
        let fitting = "é".repeat(512);
        assert_eq!(clean(&fitting), fitting);
        assert_eq!(clean(&long), long, "a text is cut once");
    }

    #[test]
    fn connections_are_narrowed_and_users_are_not() {
        let one = Audience::Connection("a".try_into().unwrap());
        assert_eq!(narrowed(connections(&["a", "b", "c"]), &["a", "c"], None), connections(&["a", "c"]));
        assert_eq!(narrowed(connections(&["a", "b"]), &["a"], None), one);
        assert_eq!(narrowed(one.clone(), &["a"], None), one);
        assert_eq!(narrowed(connections(&["a", "b"]), &[], None), connections(&["a", "b"]), "unresolved");
        let user = Audience::User { tenant: "t".try_into().unwrap(), user: "u".try_into().unwrap() };
        assert_eq!(narrowed(user.clone(), &["a"], None), user);
        let shard = |after: Option<&str>| Audience::Shard {
            tenant: "acme".try_into().unwrap(),
            shard: 3,
            after: after.map(|after| after.try_into().unwrap()),
        };
        assert_eq!(narrowed(shard(Some("a")), &[], None), shard(Some("a")));
        assert_eq!(narrowed(shard(Some("a")), &[], Some("z")), shard(Some("z")));
        assert_eq!(narrowed(shard(None), &["a", "c"], None), connections(&["a", "c"]));
    }
}
