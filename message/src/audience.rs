//! Whom a message is for.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{ConnectionId, TenantId, UserId, limits::CONNECTIONS, number};

/// Whom a message is for.
///
/// For work that outlives a socket (API Gateway ends each after 2 hours) address the user: the message finds
/// the connection that is live when it is delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum Audience {
    /// One connection.
    Connection(ConnectionId),
    /// 1 to 100 connections.
    Connections(Connections),
    /// All live connections of a user.
    User {
        /// The user's tenant.
        tenant: TenantId,
        /// The user.
        user: UserId,
    },
    /// All live connections of a tenant.
    Tenant(TenantId),
    /// A part of a tenant. Only the worker writes it, when it expands a tenant.
    #[serde(untagged)]
    #[cfg_attr(test, schemars(skip))]
    Shard {
        /// The tenant.
        tenant: TenantId,
        /// Which of the connection table's shards.
        shard: u8,
        /// The last connection that was served.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<ConnectionId>,
    },
}

/// The 1 to 100 connections that one message may name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections(#[cfg_attr(test, schemars(length(min = 1, max = CONNECTIONS)))] Vec<ConnectionId>);

/// What is wrong with an audience.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAudience {
    /// None or more than one of the keys.
    #[error("an audience has exactly one of `connection`, `connections`, `user` and `tenant`")]
    NotOne,
    /// No connection, or too many.
    #[error("a message names 1 to {CONNECTIONS} connections, this one names {0}: split it")]
    Connections(usize),
    /// `shard` or `after` without what they belong to.
    #[error("`shard` belongs to a `tenant`, and `after` to a `shard`")]
    Shard,
}

impl Audience {
    /// The audiences that some connections need, each of `size` of them at most, which is 1 to 100.
    pub fn split(connections: &[ConnectionId], size: usize) -> impl Iterator<Item = Self> {
        connections.chunks(size.clamp(1, CONNECTIONS)).map(|part| match part {
            [one] => Self::Connection(one.clone()),
            some => Self::Connections(Connections(some.to_vec())),
        })
    }
}

impl Connections {
    /// Takes 1 to 100 connections.
    ///
    /// # Errors
    /// [`InvalidAudience::Connections`] for none and for more.
    pub fn new(ids: Vec<ConnectionId>) -> Result<Self, InvalidAudience> {
        match ids.len() {
            1..=CONNECTIONS => Ok(Self(ids)),
            count => Err(InvalidAudience::Connections(count)),
        }
    }

    /// The connections.
    #[must_use]
    pub fn as_slice(&self) -> &[ConnectionId] {
        &self.0
    }
}

/// As it lies on the queue. Unlike a derived enum it ignores keys that it does not know.
#[derive(Deserialize)]
struct Wire {
    connection: Option<ConnectionId>,
    connections: Option<Vec<ConnectionId>>,
    user: Option<WireUser>,
    tenant: Option<TenantId>,
    #[serde(default, deserialize_with = "number::optional_whole")]
    shard: Option<u8>,
    after: Option<ConnectionId>,
}

#[derive(Deserialize)]
struct WireUser {
    tenant: TenantId,
    user: UserId,
}

impl TryFrom<Wire> for Audience {
    type Error = InvalidAudience;

    fn try_from(wire: Wire) -> Result<Self, InvalidAudience> {
        let Wire { connection, connections, user, tenant, shard, after } = wire;
        if (shard.is_some() && tenant.is_none()) || (after.is_some() && shard.is_none()) {
            return Err(InvalidAudience::Shard);
        }
        match (connection, connections, user, tenant) {
            (Some(id), None, None, None) => Ok(Self::Connection(id)),
            (None, Some(ids), None, None) => Connections::new(ids).map(Self::Connections),
            (None, None, Some(WireUser { tenant, user }), None) => Ok(Self::User { tenant, user }),
            (None, None, None, Some(tenant)) => Ok(match shard {
                Some(shard) => Self::Shard { tenant, shard, after },
                None => Self::Tenant(tenant),
            }),
            _ => Err(InvalidAudience::NotOne),
        }
    }
}

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Wire::deserialize(deserializer)?.try_into().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(json: &Value) -> Result<Audience, serde_json::Error> {
        serde_json::from_str(&json.to_string())
    }

    #[test]
    fn every_form_reads_back_as_it_was_written() {
        for form in [
            json!({"connection": "a="}),
            json!({"connections": ["a=", "b="]}),
            json!({"user": {"tenant": "acme", "user": "anna"}}),
            json!({"tenant": "acme"}),
            json!({"tenant": "acme", "shard": 7}),
            json!({"tenant": "acme", "shard": 7, "after": "a="}),
        ] {
            assert_eq!(json!(read(&form).unwrap()), form);
        }
    }

    #[test]
    fn connections_are_split_in_order() {
        let ids: Vec<_> = (0..5).map(|id| ConnectionId::new(id.to_string()).unwrap()).collect();
        let split = |size| json!(Audience::split(&ids, size).collect::<Vec<_>>());
        assert_eq!(
            split(2),
            json!([{"connections": ["0", "1"]}, {"connections": ["2", "3"]}, {"connection": "4"}])
        );
        assert_eq!(split(0).as_array().unwrap().len(), 5);
        assert_eq!(Audience::split(&vec![ids[0].clone(); 250], usize::MAX).count(), 3);
        assert_eq!(Audience::split(&[], 1).count(), 0);
    }

    #[test]
    fn a_key_that_a_later_version_added_is_ignored() {
        let audience = read(&json!({"connection": "a=", "region": "eu"})).unwrap();
        assert_eq!(audience, Audience::Connection(ConnectionId::new("a=").unwrap()));
    }

    #[test]
    fn what_is_no_audience_is_refused() {
        for form in [
            json!({}),
            json!([]),
            json!("acme"),
            json!({"connection": ""}),
            json!({"connection": "a=", "tenant": "acme"}),
            json!({"connections": []}),
            json!({"connections": vec!["a="; 101]}),
            json!({"user": {"user": "anna"}}),
            json!({"user": {"tenant": "acme", "user": "anna"}, "shard": 1}),
            json!({"shard": 1}),
            json!({"tenant": "acme", "after": "a="}),
        ] {
            assert!(read(&form).is_err(), "{form}");
        }
    }
}
