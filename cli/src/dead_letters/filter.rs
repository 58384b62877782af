//! Selects dead letters.

use std::time::SystemTime;

use streamer_message::TenantId;

use super::dead_letter::DeadLetter;

/// Conditions on a dead letter, all of which have to hold. The default has none.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// The reason.
    pub reason: Option<String>,
    /// The tenant.
    pub tenant: Option<TenantId>,
    /// A worker first received it before this time.
    pub before: Option<SystemTime>,
    /// A worker first received it after this time.
    pub after: Option<SystemTime>,
    /// The message's own id, or SQS's.
    pub id: Option<String>,
}

impl Filter {
    /// Returns whether a dead letter meets every condition.
    #[must_use]
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let Self { reason, tenant, before, after, id } = self;
        reason.as_ref().is_none_or(|reason| *reason == letter.reason)
            && tenant.as_ref().is_none_or(|tenant| letter.belongs_to(tenant))
            && before.is_none_or(|before| letter.since < before)
            && after.is_none_or(|after| letter.since > after)
            && id.as_ref().is_none_or(|id| id == letter.id() || *id == letter.message_id)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::time::Duration;

    use aws_sdk_sqs::types::Message;

    use super::*;
    use crate::queue::Received;

    fn dead_letter(body: &str) -> DeadLetter {
        let message = Message::builder().message_id("m").receipt_handle("r").body(body).build();
        DeadLetter::from(Received::read(message).unwrap())
    }

    fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
    }

    #[test]
    fn every_condition_has_to_hold() {
        let body = r#"{"version":1,"id":"a","to":{"user":{"tenant":"acme","user":"anna"}},"payload":1}"#;
        let letter = DeadLetter { reason: "rejected".to_owned(), since: at(1000), ..dead_letter(body) };
        let all = Filter::default();
        let matches = |filter: Filter| filter.matches(&letter);
        assert!(matches(all.clone()));
        let reason = |reason: &str| Filter { reason: Some(reason.to_owned()), ..all.clone() };
        assert!(matches(reason("rejected")) && !matches(reason("poison")));
        let tenant = |tenant: &str| Filter { tenant: Some(tenant.try_into().unwrap()), ..all.clone() };
        assert!(matches(tenant("acme")) && !matches(tenant("globex")));
        let id = |id: &str| Filter { id: Some(id.to_owned()), ..all.clone() };
        assert!(matches(id("a")) && matches(id("m")) && !matches(id("b")));
        assert!(matches(Filter { before: Some(at(1001)), ..all.clone() }));
        assert!(!matches(Filter { before: Some(at(1000)), ..all.clone() }));
        assert!(matches(Filter { after: Some(at(999)), ..all.clone() }));
        assert!(!matches(Filter { after: Some(at(1000)), ..all.clone() }));
        assert!(!matches(Filter { after: Some(at(1000)), ..reason("rejected") }));
    }

    #[test]
    fn message_group_names_a_connections_tenant() {
        let letter = dead_letter(r#"{"version":1,"id":"a","to":{"connection":"c"},"payload":1}"#);
        let tenant = Filter { tenant: Some("a b".try_into().unwrap()), ..Filter::default() };
        assert!(!tenant.matches(&letter));
        assert!(tenant.matches(&DeadLetter { group: Some("a%20b".to_owned()), ..letter }));
    }
}
