//! Converts a message to the entries of `SendMessageBatch` that it needs.

use std::{
    fmt::Write as _,
    hash::{DefaultHasher, Hash, Hasher as _},
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use sha2::{Digest as _, Sha256};
use streamer_message::{Audience, OutboundMessage, TenantId, limits};

use crate::{
    error::SendError,
    message::{Message, Recipients},
};

/// Maximum number of characters of a message group id or deduplication id.
///
/// Source: "Message group ID" and "Message deduplication ID" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>.
const ID_CHARACTERS: usize = 128;

/// The ASCII characters that are encoded in a part of an id: those that SQS refuses, `%`, and the separators of parts.
/// All characters outside ASCII are encoded, too.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'%').add(b'#').add(b':');

/// One SQS message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub body: String,
    pub group: Option<String>,
    pub deduplication: Option<String>,
    pub trace: Option<String>,
    /// Entries with the same key keep their order.
    pub key: Option<u64>,
}

impl Entry {
    /// Returns the size as SQS counts it: without system attributes, such as the trace header.
    ///
    /// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html>.
    pub(crate) fn bytes(&self) -> usize {
        self.body.len()
    }
}

/// Returns an error if a queue of this kind cannot take the message.
pub(crate) fn check(message: &Message, is_fifo: bool) -> Result<(), SendError> {
    match message.to {
        Recipients::Tenant(_) if is_fifo => Err(SendError::TenantOnFifo),
        _ => Ok(()),
    }
}

/// Returns the entries of a message: one for each 100 connections. On a FIFO queue, where a connection's messages are
/// a message group, one for each connection.
pub(crate) fn entries(message: Message, is_fifo: bool) -> impl Iterator<Item = Entry> {
    let audiences = match &message.to {
        Recipients::Connections(ids) => {
            Audience::split(ids, if is_fifo { 1 } else { limits::CONNECTIONS }).collect()
        }
        Recipients::User { tenant, user } => {
            vec![Audience::User { tenant: tenant.clone(), user: user.clone() }]
        }
        Recipients::Tenant(tenant) => vec![Audience::Tenant(tenant.clone())],
    };
    let bodies = audiences.len();
    let numbered = (1..).zip(audiences);
    numbered.map(move |(number, to)| entry(&message, to, (number, bodies), is_fifo))
}

/// Writes the body with this number, of so many bodies.
fn entry(message: &Message, to: Audience, (number, bodies): (usize, usize), is_fifo: bool) -> Entry {
    let (group, deduplication, key) = if is_fifo {
        let audience = audience_id(&to);
        let deduplication = format!("{}:{audience}", encode(message.id.as_str()));
        let group = fit(audience);
        let key = hash(&group);
        (Some(group), Some(fit(deduplication)), Some(key))
    } else {
        let tenant = match &to {
            Audience::User { tenant, .. } | Audience::Tenant(tenant) => Some(tenant),
            _ => message.fair_queue_tenant.as_ref(),
        };
        let key = message.request.as_ref().map(|request| hash(&(&request.id, &to)));
        (tenant.map(tenant_group), None, key)
    };
    let mut outbound = OutboundMessage::new(to, message.payload.clone());
    outbound.id = message.id.clone();
    outbound.request = message.request.clone();
    outbound.supersedable = message.supersedable;
    outbound.expires_at = message.expires_at;
    outbound.keep = message.keep;
    outbound.receipt = message.receipt.clone().map(|receipt| receipt.of_body(number, bodies));
    Entry { body: outbound.encode(), group, deduplication, trace: message.trace.clone(), key }
}

/// Returns the message group of a tenant's messages on a standard queue, for SQS fair queues.
#[doc(hidden)]
#[must_use]
pub fn tenant_group(tenant: &TenantId) -> String {
    fit(encode(tenant.as_str()))
}

/// Returns a text that identifies an audience on a FIFO queue. No two audiences share one.
fn audience_id(to: &Audience) -> String {
    match to {
        Audience::Connection(id) => encode(id.as_str()),
        Audience::Connections(ids) => ids.as_slice().iter().map(|id| encode(id.as_str())).collect(),
        Audience::User { tenant, user } => format!("{}#{}", encode(tenant.as_str()), encode(user.as_str())),
        Audience::Tenant(tenant) | Audience::Shard { tenant, .. } => format!("{}#", encode(tenant.as_str())),
    }
}

fn encode(part: &str) -> String {
    utf8_percent_encode(part, ENCODED).to_string()
}

/// Returns the id, or its SHA-256 if it is too long for SQS.
fn fit(id: String) -> String {
    if id.len() <= ID_CHARACTERS {
        return id;
    }
    Sha256::digest(id).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        _ = write!(hex, "{byte:02x}");
        hex
    })
}

fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::builder::MessageBuilder;

    fn entries_of(builder: MessageBuilder, is_fifo: bool) -> Vec<Entry> {
        entries(builder.id("m").payload(&1).unwrap(), is_fifo).collect()
    }

    fn only(builder: MessageBuilder, is_fifo: bool) -> Entry {
        let [entry] = entries_of(builder, is_fifo).try_into().unwrap();
        entry
    }

    fn group(builder: MessageBuilder, is_fifo: bool) -> Option<String> {
        only(builder, is_fifo).group
    }

    /// On a standard queue, the message group is the tenant, if the producer knows it.
    #[test]
    fn standard_queue_group_is_the_tenant() {
        assert_eq!(group(Message::connection("c="), false), None);
        assert_eq!(group(Message::connection("c=").fair_queue_tenant("acme"), false), Some("acme".into()));
        assert_eq!(group(Message::user("acme", "anna"), false), Some("acme".into()));
        assert_eq!(group(Message::tenant("acme"), false), Some("acme".into()));
        assert_eq!(only(Message::tenant("acme"), false).deduplication, None);
    }

    #[test]
    fn fifo_group_is_the_connection_or_user() {
        let entry = only(Message::connection("c=").fair_queue_tenant("acme"), true);
        assert_eq!((entry.group.as_deref(), entry.deduplication.as_deref()), (Some("c="), Some("m:c=")));
        let entry = only(Message::user("acme", "anna@example.com"), true);
        assert_eq!(entry.group.as_deref(), Some("acme#anna@example.com"));
        assert_eq!(entry.deduplication.as_deref(), Some("m:acme#anna@example.com"));
    }

    /// Connections share an entry on a standard queue; on a FIFO queue, each has its own.
    #[test]
    fn fifo_entries_hold_one_connection_each() {
        let ids: Vec<_> = (0..101).map(|id| format!("c{id}")).collect();
        assert_eq!(entries_of(Message::connections(&ids), false).len(), 2);
        let groups: Vec<_> =
            entries_of(Message::connections(&ids), true).into_iter().flat_map(|entry| entry.group).collect();
        assert_eq!(groups, ids);
    }

    #[test]
    fn fifo_queue_refuses_tenant_messages() {
        let message = Message::tenant("acme").payload(&1).unwrap();
        assert_eq!(check(&message, true), Err(SendError::TenantOnFifo));
        assert_eq!(check(&message, false), Ok(()));
    }

    /// Characters that SQS refuses are percent-encoded, and an id that is too long is hashed.
    #[test]
    fn group_ids_are_encoded_or_hashed() {
        assert_eq!(group(Message::tenant("Köln #1"), false), Some("K%C3%B6ln%20%231".into()));
        assert_eq!(group(Message::tenant("a".repeat(128)), false), Some("a".repeat(128)));
        // The output of `printf 'a%.0s' {1..129} | sha256sum`.
        let hashed = "c12cb024a2e5551cca0e08fce8f1c5e314555cc3fef6329ee994a3db752166ae";
        assert_eq!(group(Message::tenant("a".repeat(129)), false), Some(hashed.into()));
    }

    #[test]
    fn separators_are_encoded_in_id_parts() {
        let id = |id, tenant, user| only_with_id(id, Message::user(tenant, user)).deduplication;
        assert_ne!(id("a", "b:c", "d"), id("a:b", "c", "d"));
        assert_ne!(id("a", "b#c", "d"), id("a", "b", "c#d"));
    }

    fn only_with_id(id: &str, builder: MessageBuilder) -> Entry {
        entries(builder.id(id).payload(&1).unwrap(), true).next().unwrap()
    }

    #[test]
    fn key_is_shared_per_request_and_audience() {
        let key = |builder| only(builder, false).key;
        let of_request = |id: &str| Message::connection(id).request("r");
        assert_eq!(key(of_request("a")), key(of_request("a")));
        assert_ne!(key(of_request("a")), key(of_request("b")));
        assert_ne!(key(of_request("a")), key(Message::connection("a").request("s")));
        assert_eq!(key(Message::connection("a")), None);
        assert_eq!(only(of_request("a"), true).key, only(Message::connection("a"), true).key);
    }

    #[test]
    fn largest_message_fits_on_the_queue() {
        let ids: Vec<_> = (0..100).map(|id| format!("{id:03}{}", "\u{1}".repeat(125))).collect();
        let message = Message::connections(ids).id("\u{1}".repeat(128)).request("\u{1}".repeat(128));
        let largest = "x".repeat(limits::PAYLOAD_BYTES - 2);
        let message = message.expires_in(std::time::Duration::MAX).payload(&largest).unwrap();
        assert!(entries(message, false).all(|entry| entry.bytes() < limits::QUEUE_MESSAGE_BYTES));
    }

    /// The limit of an SNS topic with default settings.
    #[test]
    fn largest_body_for_user_fits_topic() {
        let (id, user) = ("\u{1}".repeat(128), "\"".repeat(256));
        // SQS refuses the character, so the body has it escaped, at twice its size.
        let largest = "\u{fffe}".repeat(limits::PAYLOAD_BYTES / 6 - 1);
        let message = Message::user(&user, &user).id(&id).request(&id).expires_in(std::time::Duration::MAX);
        let message = message.receipt().payload(&largest).unwrap();
        let [body] = &message.bodies()[..] else { panic!("one body") };
        assert!((limits::PAYLOAD_BYTES..256 * 1024).contains(&body.len()), "{}", body.len());
    }

    #[test]
    fn bodies_are_those_of_standard_queue() {
        let ids: Vec<_> = (0..101).map(|id| format!("c{id}")).collect();
        let message = Message::connections(&ids).receipt().payload(&1).unwrap();
        let sent: Vec<_> = entries(message.clone(), false).map(|entry| entry.body).collect();
        assert_eq!((message.clone().bodies(), sent.len()), (sent, 2));
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof!["[a:#%23]{1,4}", "[^\\pC\\p{Zl}\\p{Zp}]{1,60}"]
    }

    proptest! {
        #[test]
        fn ids_are_valid_for_sqs_and_unique(
            one in (part(), part(), part()),
            other in (part(), part(), part()),
        ) {
            let ids = |(id, tenant, user): &(String, String, String)| {
                let message = Message::user(tenant, user).id(id).payload(&1).unwrap();
                let entry = entries(message, true).next().unwrap();
                (entry.group.unwrap(), entry.deduplication.unwrap())
            };
            for id in [ids(&one).0, ids(&one).1] {
                prop_assert!((1..=128).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()), "{id}");
            }
            prop_assert_eq!((&one.1, &one.2) == (&other.1, &other.2), ids(&one).0 == ids(&other).0);
            prop_assert_eq!(one == other, ids(&one).1 == ids(&other).1);
        }
    }
}
