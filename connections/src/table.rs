//! The table's operations.

use std::time::SystemTime;

use aws_sdk_dynamodb::{
    Client,
    error::{ProvideErrorMetadata, SdkError},
    operation::delete_item::DeleteItemError,
    types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure, Select},
};
use streamer_environment::{aws, failure::FailureKind};
use streamer_message::{ConnectionId, TenantId, UserId};

use crate::{
    config::CONNECTIONS_TABLE,
    endpoints::Endpoints,
    key::{tenant_shard, tenant_user},
    removal::Removal,
    row::{self, Connection, IndexedConnection, InvalidRow, Row, number, since_epoch},
    schema::{BY_TENANT, BY_USER, CONNECTION_ID, EXPIRES_AT, Index},
    shards::TenantShards,
    throttling::exceeded_limits,
};

/// Maximum rows that one call reads from an index, which bounds a page's memory: as many as one message may name.
/// Smaller pages cost no more: DynamoDB bills the bytes read, not the calls.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-unit-calculations.html>.
const PAGE_ROWS: i32 = 100;

/// The connection table. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ConnectionTable {
    client: Client,
    name: String,
    shards: TenantShards,
}

/// A page of an index, or of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T = IndexedConnection> {
    /// The live connections.
    pub connections: Vec<T>,
    /// The connection after which the next page begins; `None` on the last page.
    pub next: Option<ConnectionId>,
}

/// The reason why an operation on the table failed.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// DynamoDB refused the call or did not answer.
    #[error(
        "{operation} on table {table} failed: {cause}; {}",
        kind.remedy_for_table(CONNECTIONS_TABLE.name, operation)
    )]
    Call {
        /// The operation, as DynamoDB names it.
        operation: &'static str,
        /// The table's name.
        table: String,
        /// The kind of the failure.
        kind: FailureKind,
        /// DynamoDB's error, or the error of a call without a response.
        cause: String,
    },
    /// A row cannot be parsed.
    #[error(transparent)]
    Row(#[from] InvalidRow),
}

impl ConnectionTable {
    /// Creates a handle for the table `name`, with 8 shards of each tenant.
    #[must_use]
    pub fn new(client: Client, name: impl Into<String>) -> Self {
        Self { client, name: name.into(), shards: TenantShards::DEFAULT }
    }

    /// Sets the number of shards of each tenant: rows are written with it, and a tenant's connections are read from as
    /// many. A reader's is the largest with which a row was written.
    #[must_use]
    pub fn with_shards(self, shards: TenantShards) -> Self {
        Self { shards, ..self }
    }

    /// Returns the number of shards of each tenant.
    #[must_use]
    pub fn shards(&self) -> TenantShards {
        self.shards
    }

    /// Writes a connection's row, and replaces a row with the same id.
    ///
    /// # Errors
    /// [`TableError::Call`] if the call fails. The row may have been written all the same.
    pub async fn put(&self, connection: &Connection) -> Result<(), TableError> {
        let put =
            self.client.put_item().table_name(&self.name).set_item(Some(connection.to_row(self.shards)));
        put.send().await.map_err(|error| self.failed("PutItem", &error))?;
        Ok(())
    }

    /// Returns a live connection's row, with a consistent read.
    ///
    /// # Errors
    /// [`TableError`] if the call fails or the row cannot be parsed.
    pub async fn get(&self, id: &ConnectionId, now: SystemTime) -> Result<Option<Connection>, TableError> {
        Ok(self.read(id).await?.filter(|connection| connection.expires_at > now))
    }

    /// Returns a row, expired or not.
    pub(crate) async fn read(&self, id: &ConnectionId) -> Result<Option<Connection>, TableError> {
        let get = self.client.get_item().table_name(&self.name).set_key(key(id)).consistent_read(true);
        let row = get.send().await.map_err(|error| self.failed("GetItem", &error))?.item;
        Ok(row.as_ref().map(Connection::from_row).transpose()?)
    }

    /// Returns a page of the whole table's live connections.
    pub(crate) async fn scan(
        &self,
        after: Option<&ConnectionId>,
        now: SystemTime,
    ) -> Result<Page<Connection>, TableError> {
        let scan = self.client.scan().table_name(&self.name).set_exclusive_start_key(after.and_then(key));
        let output = scan.send().await.map_err(|error| self.failed("Scan", &error))?;
        let read = |row: &Row| {
            Connection::from_row(row)
                .inspect_err(|error| tracing::warn!(%error, "skipped a malformed row"))
                .ok()
        };
        let rows = output.items.unwrap_or_default();
        Ok(Page {
            connections: rows.iter().filter_map(read).filter(|row| row.expires_at > now).collect(),
            next: output.last_evaluated_key.as_ref().map(row::connection_id).transpose()?,
        })
    }

    /// Counts live connections with up to `pages` calls of 1 MB each. Also returns whether they read the whole table.
    ///
    /// # Errors
    /// [`TableError`] if a call fails.
    pub async fn count(&self, pages: usize, now: SystemTime) -> Result<(usize, bool), TableError> {
        let (mut live, mut start) = (0, None);
        for _ in 0..pages {
            let scan = self
                .client
                .scan()
                .table_name(&self.name)
                .select(Select::Count)
                .filter_expression("#expires > :now")
                .expression_attribute_names("#expires", EXPIRES_AT)
                .expression_attribute_values(":now", number(since_epoch(now).as_secs()))
                .set_exclusive_start_key(start);
            let output = scan.send().await.map_err(|error| self.failed("Scan", &error))?;
            live += usize::try_from(output.count).unwrap_or_default();
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok((live, true));
            }
        }
        Ok((live, false))
    }

    /// Removes a row, expired or not, and returns its connection.
    ///
    /// # Errors
    /// [`TableError::Call`] if the call fails. [`TableError::Row`] if the removed row cannot be parsed.
    pub async fn delete(&self, id: &ConnectionId) -> Result<Option<Connection>, TableError> {
        let delete = self.client.delete_item().table_name(&self.name).set_key(key(id));
        let output = delete.return_values(ReturnValue::AllOld).send().await;
        let row = output.map_err(|error| self.failed("DeleteItem", &error))?.attributes;
        Ok(row.as_ref().map(Connection::from_row).transpose()?)
    }

    /// Removes a row unless its connection was made at `cutoff` or later, or is not at one of the endpoints `here`. A
    /// row without a time counts as older, and a row without an endpoint counts as one of `here`.
    ///
    /// # Errors
    /// [`TableError::Call`] if the call fails. The row may have been removed all the same.
    pub async fn delete_if_older(
        &self,
        id: &ConnectionId,
        cutoff: SystemTime,
        here: &Endpoints,
    ) -> Result<Removal, TableError> {
        match self.try_delete(id, cutoff, here.name(), here).await? {
            // The row holds another alias of the endpoint.
            Removal::Elsewhere(name) if here.include(&name) => self.try_delete(id, cutoff, &name, here).await,
            removal => Ok(removal),
        }
    }

    async fn try_delete(
        &self,
        id: &ConnectionId,
        cutoff: SystemTime,
        endpoint: &str,
        here: &Endpoints,
    ) -> Result<Removal, TableError> {
        let cutoff = since_epoch(cutoff).as_millis();
        let delete = self
            .client
            .delete_item()
            .table_name(&self.name)
            .set_key(key(id))
            .condition_expression(
                "(attribute_not_exists(connected_at) OR connected_at < :cutoff) \
                 AND (attribute_not_exists(#endpoint) OR #endpoint = :endpoint)",
            )
            .expression_attribute_names("#endpoint", "endpoint")
            .expression_attribute_values(":cutoff", number(cutoff))
            .expression_attribute_values(":endpoint", AttributeValue::S(endpoint.to_owned()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match delete.send().await {
            Ok(_) => Ok(Removal::Removed),
            Err(error) => match error.as_service_error() {
                Some(DeleteItemError::ConditionalCheckFailedException(refusal)) => {
                    Ok(Removal::refused(refusal.item(), cutoff, here))
                }
                _ => Err(self.failed("DeleteItem", &error)),
            },
        }
    }

    /// Returns a page of a user's live connections. The index lags behind the table, mostly by less than a second.
    ///
    /// # Errors
    /// [`TableError`] if the call fails. Rows that cannot be parsed are skipped.
    pub async fn by_user(
        &self,
        tenant: &TenantId,
        user: &UserId,
        after: Option<&ConnectionId>,
        now: SystemTime,
    ) -> Result<Page, TableError> {
        self.page(BY_USER, tenant_user(tenant, user), after, now).await
    }

    /// Returns a page of the live connections in one of a tenant's shards.
    ///
    /// # Errors
    /// [`TableError`] if the call fails. Rows that cannot be parsed are skipped.
    pub async fn by_tenant(
        &self,
        tenant: &TenantId,
        shard: u8,
        after: Option<&ConnectionId>,
        now: SystemTime,
    ) -> Result<Page, TableError> {
        self.page(BY_TENANT, tenant_shard(tenant, shard), after, now).await
    }

    /// Returns the rows that DynamoDB reads in one call: at most 100 rows and 1 MB.
    async fn page(
        &self,
        index: Index,
        value: String,
        after: Option<&ConnectionId>,
        now: SystemTime,
    ) -> Result<Page, TableError> {
        let value = AttributeValue::S(value);
        let start = after.map(|after| {
            let after = AttributeValue::S(after.as_str().to_owned());
            Row::from([(index.hash_key.to_owned(), value.clone()), (CONNECTION_ID.to_owned(), after)])
        });
        let query = self
            .client
            .query()
            .table_name(&self.name)
            .index_name(index.name)
            .limit(PAGE_ROWS)
            .key_condition_expression("#key = :value")
            .expression_attribute_names("#key", index.hash_key)
            .expression_attribute_values(":value", value)
            .set_exclusive_start_key(start);
        let output = query.send().await.map_err(|error| self.failed("Query", &error))?;
        let read = |row: &Row| {
            IndexedConnection::from_row(row)
                .inspect_err(|error| tracing::warn!(%error, index = index.name, "skipped a malformed row"))
        };
        let rows = output.items.unwrap_or_default();
        Ok(Page {
            connections: rows
                .iter()
                .filter_map(|row| read(row).ok())
                .filter(|connection| connection.expires_at > now)
                .collect(),
            next: output.last_evaluated_key.as_ref().map(row::connection_id).transpose()?,
        })
    }

    fn failed<E, R>(&self, operation: &'static str, error: &SdkError<E, R>) -> TableError
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let mut cause = aws::cause(error);
        let limits = exceeded_limits(error);
        if !limits.is_empty() {
            cause = format!("{cause} ({})", limits.join(", "));
        }
        let kind = FailureKind::of(error);
        TableError::Call { operation, table: self.name.clone(), kind, cause }
    }
}

fn key(id: &ConnectionId) -> Option<Row> {
    Some(Row::from([(CONNECTION_ID.to_owned(), AttributeValue::S(id.as_str().to_owned()))]))
}
