//! Rows, and their conversion to and from DynamoDB items.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::types::AttributeValue;
use streamer_message::{ConnectionId, TenantId, UserId};

use crate::{
    key::{tenant_shard, tenant_user},
    schema::{BY_TENANT, BY_USER, CONNECTION_ID, EXPIRES_AT},
    shards::TenantShards,
};

pub(crate) type Row = HashMap<String, AttributeValue>;

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// The id that API Gateway gave the connection.
    pub connection_id: ConnectionId,
    /// The user: the token's `sub`.
    pub user_id: UserId,
    /// The user's tenant: the token's `tenant_id`.
    pub tenant_id: TenantId,
    /// The management endpoint for posts to the connection.
    pub endpoint: String,
    /// The time of `$connect`, with millisecond precision.
    pub connected_at: SystemTime,
    /// The latest end of the connection, with second precision. The table's TTL attribute.
    pub expires_at: SystemTime,
    /// The token's permissions.
    pub permissions: BTreeSet<String>,
    /// The client's IP address.
    pub source_ip: Option<String>,
    /// The client's `User-Agent`.
    pub user_agent: Option<String>,
}

/// The attributes of a connection that the indexes hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedConnection {
    /// The id that API Gateway gave the connection.
    pub connection_id: ConnectionId,
    /// The user.
    pub user_id: UserId,
    /// The management endpoint for posts to the connection.
    pub endpoint: String,
    /// The time of `$connect`.
    pub connected_at: SystemTime,
    /// The latest end of the connection.
    pub expires_at: SystemTime,
}

/// A row that cannot be parsed: another program wrote or changed it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row's attribute `{attribute}` is missing or malformed: remove the row")]
pub struct InvalidRow {
    attribute: &'static str,
}

impl Connection {
    pub(crate) fn to_row(&self, shards: TenantShards) -> Row {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut row = Row::from([
            (CONNECTION_ID.to_owned(), text(self.connection_id.as_str())),
            ("user_id".to_owned(), text(self.user_id.as_str())),
            ("tenant_id".to_owned(), text(self.tenant_id.as_str())),
            (BY_USER.hash_key.to_owned(), text(&tenant_user(&self.tenant_id, &self.user_id))),
            (
                BY_TENANT.hash_key.to_owned(),
                text(&tenant_shard(&self.tenant_id, shards.of(&self.connection_id))),
            ),
            ("endpoint".to_owned(), text(&self.endpoint)),
            ("connected_at".to_owned(), number(since_epoch(self.connected_at).as_millis())),
            (EXPIRES_AT.to_owned(), number(since_epoch(self.expires_at).as_secs())),
        ]);
        // DynamoDB rejects an empty set.
        if !self.permissions.is_empty() {
            let permissions = self.permissions.iter().cloned().collect();
            row.insert("permissions".to_owned(), AttributeValue::Ss(permissions));
        }
        for (name, value) in [("source_ip", &self.source_ip), ("user_agent", &self.user_agent)] {
            row.extend(value.as_ref().map(|value| (name.to_owned(), text(value))));
        }
        row
    }

    pub(crate) fn from_row(row: &Row) -> Result<Self, InvalidRow> {
        let IndexedConnection { connection_id, user_id, endpoint, connected_at, expires_at } =
            IndexedConnection::from_row(row)?;
        let permissions = row.get("permissions").and_then(|value| value.as_ss().ok());
        Ok(Self {
            connection_id,
            user_id,
            tenant_id: id(row, "tenant_id")?,
            endpoint,
            connected_at,
            expires_at,
            permissions: permissions.into_iter().flatten().cloned().collect(),
            source_ip: text(row, "source_ip").ok(),
            user_agent: text(row, "user_agent").ok(),
        })
    }
}

impl From<Connection> for IndexedConnection {
    fn from(connection: Connection) -> Self {
        let Connection { connection_id, user_id, endpoint, connected_at, expires_at, .. } = connection;
        Self { connection_id, user_id, endpoint, connected_at, expires_at }
    }
}

impl IndexedConnection {
    pub(crate) fn from_row(row: &Row) -> Result<Self, InvalidRow> {
        Ok(Self {
            connection_id: connection_id(row)?,
            user_id: id(row, "user_id")?,
            endpoint: text(row, "endpoint")?,
            connected_at: time(row, "connected_at", Duration::from_millis)?,
            expires_at: time(row, EXPIRES_AT, Duration::from_secs)?,
        })
    }
}

/// Returns the key of a row.
pub(crate) fn connection_id(row: &Row) -> Result<ConnectionId, InvalidRow> {
    id(row, CONNECTION_ID)
}

/// Returns a number attribute.
pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// Returns the time since the epoch; zero for a time before it.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn text(row: &Row, attribute: &'static str) -> Result<String, InvalidRow> {
    row.get(attribute).and_then(|value| value.as_s().ok()).cloned().ok_or(InvalidRow { attribute })
}

fn id<T: TryFrom<String>>(row: &Row, attribute: &'static str) -> Result<T, InvalidRow> {
    text(row, attribute)?.try_into().map_err(|_| InvalidRow { attribute })
}

fn time(row: &Row, attribute: &'static str, of: fn(u64) -> Duration) -> Result<SystemTime, InvalidRow> {
    let number = row.get(attribute).and_then(|value| value.as_n().ok()).and_then(|text| text.parse().ok());
    number.and_then(|number| SystemTime::UNIX_EPOCH.checked_add(of(number))).ok_or(InvalidRow { attribute })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Connection {
        let epoch = SystemTime::UNIX_EPOCH;
        Connection {
            connection_id: "L0SM9cOFvHcCIhw=".try_into().unwrap(),
            user_id: "anna".try_into().unwrap(),
            tenant_id: "acme".try_into().unwrap(),
            endpoint: "https://a.example/stage".to_owned(),
            connected_at: epoch + Duration::from_millis(1_764_000_000_123),
            expires_at: epoch + Duration::from_secs(1_764_007_800),
            permissions: ["read".to_owned(), "write".to_owned()].into(),
            source_ip: Some("192.0.2.1".to_owned()),
            user_agent: None,
        }
    }

    #[test]
    fn connection_round_trips_through_row() {
        assert_eq!(Connection::from_row(&connection().to_row(TenantShards::DEFAULT)), Ok(connection()));
        let without = Connection { permissions: BTreeSet::new(), ..connection() };
        assert!(!without.to_row(TenantShards::DEFAULT).contains_key("permissions"));
        assert_eq!(Connection::from_row(&without.to_row(TenantShards::DEFAULT)), Ok(without));
    }

    #[test]
    fn row_stores_milliseconds_and_ttl_seconds() {
        let row = connection().to_row(TenantShards::DEFAULT);
        assert_eq!(row["connected_at"].as_n().unwrap(), "1764000000123");
        assert_eq!(row["expires_at"].as_n().unwrap(), "1764007800");
    }

    #[test]
    fn error_names_malformed_attribute() {
        for attribute in ["connection_id", "user_id", "tenant_id", "endpoint", "connected_at", "expires_at"] {
            let mut row = connection().to_row(TenantShards::DEFAULT);
            row.insert(attribute.to_owned(), AttributeValue::Bool(true));
            assert_eq!(Connection::from_row(&row), Err(InvalidRow { attribute }));
        }
    }
}
