//! The recipients of a message.

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use crate::{
    id::{ConnectionId, TenantId, UserId},
    limits::CONNECTIONS,
    number,
};

/// The recipients of a message.
///
/// For work that may outlive a socket, which API Gateway closes after 2 hours, address the user: the message reaches
/// the connections that are live when it is delivered.
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
    /// One shard of a tenant's index. Only the worker writes it, when it fans out a message for a tenant.
    #[doc(hidden)]
    #[serde(untagged)]
    #[cfg_attr(test, schemars(skip))]
    Shard {
        /// The tenant.
        tenant: TenantId,
        /// The number of the shard, 0 to 255.
        shard: u8,
        /// The cursor: the last connection that has the message.
        #[serde(skip_serializing_if = "Option::is_none")]
        after: Option<ConnectionId>,
    },
}

/// The connections of one message, 1 to 100.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Connections(#[cfg_attr(test, schemars(length(min = 1, max = CONNECTIONS)))] Vec<ConnectionId>);

/// Why an audience is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidAudience {
    /// No key, or more than one.
    #[error("an audience has exactly one of `connection`, `connections`, `user` and `tenant`")]
    NotOne,
    /// No connection, or too many.
    #[error("a message may name 1 to {CONNECTIONS} connections, got {0}: split the message")]
    Connections(usize),
    /// `shard` without `tenant`, or `after` without `shard`.
    #[error("`shard` requires `tenant`, and `after` requires `shard`")]
    Shard,
}

impl Audience {
    /// Splits connections into audiences of at most `size` connections each; `size` is limited to 1 to 100.
    #[doc(hidden)]
    pub fn split(connections: &[ConnectionId], size: usize) -> impl Iterator<Item = Self> {
        connections.chunks(size.clamp(1, CONNECTIONS)).map(|chunk| match chunk {
            [one] => Self::Connection(one.clone()),
            many => Self::Connections(Connections(many.to_vec())),
        })
    }
}

impl From<ConnectionId> for Audience {
    fn from(id: ConnectionId) -> Self {
        Self::Connection(id)
    }
}

impl From<Connections> for Audience {
    fn from(connections: Connections) -> Self {
        Self::Connections(connections)
    }
}

impl Connections {
    /// Checks the number of connections.
    ///
    /// ```
    /// use streamer_message::{Audience, ConnectionId, Connections};
    ///
    /// let ids = vec![ConnectionId::new("L0SM9cOFvHcCIhw=")?, ConnectionId::new("L0SNAcOFvHcCIzw=")?];
    /// let audience = Audience::from(Connections::new(ids)?);
    /// # drop(audience);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`InvalidAudience::Connections`] for no connection and for more than 100: split the message.
    pub fn new(ids: Vec<ConnectionId>) -> Result<Self, InvalidAudience> {
        match ids.len() {
            1..=CONNECTIONS => Ok(Self(ids)),
            count => Err(InvalidAudience::Connections(count)),
        }
    }

    /// Returns the connections.
    #[must_use]
    pub fn as_slice(&self) -> &[ConnectionId] {
        &self.0
    }
}

impl TryFrom<Vec<ConnectionId>> for Connections {
    type Error = InvalidAudience;

    fn try_from(ids: Vec<ConnectionId>) -> Result<Self, InvalidAudience> {
        Self::new(ids)
    }
}

impl AsRef<[ConnectionId]> for Connections {
    fn as_ref(&self) -> &[ConnectionId] {
        &self.0
    }
}

/// The JSON form. Unlike a derived enum, it ignores unknown keys.
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
    fn every_form_round_trips() {
        for form in [
            json!({"connection": "a="}),
            json!({"connections": ["a=", "b="]}),
            json!({"user": {"tenant": "acme", "user": "anna"}}),
            json!({"tenant": "acme"}),
            json!({"tenant": "acme", "shard": 0}),
            json!({"tenant": "acme", "shard": 255}),
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
    fn unknown_keys_are_ignored() {
        let audience = read(&json!({"connection": "a=", "region": "eu"})).unwrap();
        assert_eq!(audience, Audience::Connection(ConnectionId::new("a=").unwrap()));
    }

    #[test]
    fn invalid_audiences_are_refused() {
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
            json!({"tenant": "acme", "shard": 256}),
            json!({"tenant": "acme", "shard": -1}),
        ] {
            assert!(read(&form).is_err(), "{form}");
        }
    }
}
