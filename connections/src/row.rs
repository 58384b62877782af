//! Rows, and how they stand in the table.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::types::AttributeValue;
use streamer_message::{ConnectionId, TenantId, UserId};

use crate::{
    key::{shard_of, tenant_shard, tenant_user},
    schema::{BY_TENANT, BY_USER, CONNECTION_ID, EXPIRES_AT},
};

pub(crate) type Row = HashMap<String, AttributeValue>;

/// A live connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// API Gateway's name for it.
    pub connection_id: ConnectionId,
    /// Whose it is: the token's `sub`.
    pub user_id: UserId,
    /// The user's tenant: the token's `tenant_id`.
    pub tenant_id: TenantId,
    /// The management endpoint to post to it.
    pub endpoint: String,
    /// When it was made, to the millisecond.
    pub connected_at: SystemTime,
    /// When it has ended at the latest, to the second. The table's TTL attribute.
    pub expires_at: SystemTime,
    /// What the token permits.
    pub permissions: BTreeSet<String>,
    /// Where the client is.
    pub source_ip: Option<String>,
    /// What the client is.
    pub user_agent: Option<String>,
}

/// What the indexes hold of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedConnection {
    /// API Gateway's name for it.
    pub connection_id: ConnectionId,
    /// Whose it is.
    pub user_id: UserId,
    /// The management endpoint to post to it.
    pub endpoint: String,
    /// When it was made.
    pub connected_at: SystemTime,
    /// When it has ended at the latest.
    pub expires_at: SystemTime,
}

/// A row that some other program wrote or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row's attribute `{attribute}` is missing or malformed: remove the row")]
pub struct InvalidRow {
    attribute: &'static str,
}

impl Connection {
    pub(crate) fn to_row(&self) -> Row {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let mut row = Row::from([
            (CONNECTION_ID.to_owned(), text(self.connection_id.as_str())),
            ("user_id".to_owned(), text(self.user_id.as_str())),
            ("tenant_id".to_owned(), text(self.tenant_id.as_str())),
            (BY_USER.hash_key.to_owned(), text(&tenant_user(&self.tenant_id, &self.user_id))),
            (
                BY_TENANT.hash_key.to_owned(),
                text(&tenant_shard(&self.tenant_id, shard_of(&self.connection_id))),
            ),
            ("endpoint".to_owned(), text(&self.endpoint)),
            ("connected_at".to_owned(), number(since_epoch(self.connected_at).as_millis())),
            (EXPIRES_AT.to_owned(), number(since_epoch(self.expires_at).as_secs())),
        ]);
        // DynamoDB takes no empty set.
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

/// The key of a row.
pub(crate) fn connection_id(row: &Row) -> Result<ConnectionId, InvalidRow> {
    id(row, CONNECTION_ID)
}

/// A number attribute.
pub(crate) fn number(number: impl ToString) -> AttributeValue {
    AttributeValue::N(number.to_string())
}

/// The time since the epoch; none before it.
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
    fn a_connection_reads_back_as_it_was_written() {
        assert_eq!(Connection::from_row(&connection().to_row()), Ok(connection()));
        let without = Connection { permissions: BTreeSet::new(), ..connection() };
        assert!(!without.to_row().contains_key("permissions"));
        assert_eq!(Connection::from_row(&without.to_row()), Ok(without));
    }

    #[test]
    fn connected_at_counts_milliseconds_and_expires_at_seconds() {
        let row = connection().to_row();
        assert_eq!(row["connected_at"].as_n().unwrap(), "1764000000123");
        assert_eq!(row["expires_at"].as_n().unwrap(), "1764007800");
    }

    #[test]
    fn a_missing_or_malformed_attribute_is_named() {
        for attribute in ["connection_id", "user_id", "tenant_id", "endpoint", "connected_at", "expires_at"] {
            let mut row = connection().to_row();
            row.insert(attribute.to_owned(), AttributeValue::Bool(true));
            assert_eq!(Connection::from_row(&row), Err(InvalidRow { attribute }));
        }
    }
}
