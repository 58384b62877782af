//! A connection table in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    config::retry::RetryConfig,
    operation::{
        delete_item::{DeleteItemError, DeleteItemOutput},
        get_item::{GetItemError, GetItemOutput},
        put_item::{PutItemError, PutItemOutput},
        query::{QueryError, QueryOutput},
        scan::{ScanError, ScanOutput},
    },
    types::{AttributeValue, error::ConditionalCheckFailedException},
};
use aws_smithy_http_client::test_util::NeverClient;
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use streamer_connections::{Connection, ConnectionTable, TenantShards};

use super::error;
use crate::worker::ENDPOINT;

/// Age of a connection that is past every grace period.
pub const LONG_AGO: Duration = Duration::from_secs(3600);

/// The error of failing calls by default, which the SDK does not retry.
const ACCESS_DENIED: &str = "AccessDeniedException";

/// A row of the table.
pub type Row = std::collections::HashMap<String, AttributeValue>;

/// A connection table in memory. It supports the two conditions that `streamer-connections` uses.
#[derive(Clone)]
pub struct TableDouble {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    works: Arc<dyn Fn() -> bool + Send + Sync>,
    /// The error of a failing call.
    code: &'static str,
    /// Whether queries are allowed.
    queries: bool,
    /// Largest page.
    page: usize,
}

impl Default for TableDouble {
    fn default() -> Self {
        Self::of(BTreeMap::<String, Row>::new(), || true)
    }
}

impl TableDouble {
    /// Creates a table with a row for each connection, with the time of its `$connect`.
    #[must_use]
    pub fn with<const N: usize>(connections: [(&str, SystemTime); N]) -> Self {
        let row = |(id, connected_at): (&str, SystemTime)| {
            let since_epoch = connected_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let connected_at = AttributeValue::N(since_epoch.as_millis().to_string());
            (id.to_owned(), Row::from([("connected_at".to_owned(), connected_at)]))
        };
        Self::of(connections.map(row), || true)
    }

    /// Creates a table with these rows, by connection. While `works` returns false, every call fails.
    pub fn of<Id: Into<String>>(
        rows: impl IntoIterator<Item = (Id, Row)>,
        works: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let rows = rows.into_iter().map(|(id, row)| (id.into(), row)).collect();
        Self {
            rows: Arc::new(Mutex::new(rows)),
            works: Arc::new(works),
            code: ACCESS_DENIED,
            queries: true,
            page: usize::MAX,
        }
    }

    /// Like [`of`](Self::of), with complete rows of the user `anna` of the tenant `acme`.
    pub fn of_user<'a>(
        connections: impl IntoIterator<Item = (&'a str, SystemTime)>,
        works: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let millis =
            |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let row = |(id, connected_at): (&'a str, SystemTime)| {
            let Connection { connection_id, user_id, tenant_id, endpoint, expires_at, .. } =
                connection(id, connected_at);
            let shard = TenantShards::DEFAULT.of(&connection_id);
            let text = AttributeValue::S;
            let number = |number: u128| AttributeValue::N(number.to_string());
            let attributes = [
                ("connection_id", text(id.to_owned())),
                ("user_id", text(user_id.into())),
                ("tenant_id", text(tenant_id.into())),
                ("tenant_user", text("acme#anna".to_owned())),
                ("tenant_shard", text(format!("acme#{}", shard))),
                ("endpoint", text(endpoint)),
                ("connected_at", number(millis(connected_at))),
                ("expires_at", number(millis(expires_at) / 1000)),
            ];
            (id, attributes.map(|(name, value)| (name.to_owned(), value)).into())
        };
        Self::of(connections.into_iter().map(row), works)
    }

    /// Denies queries.
    #[must_use]
    pub fn refusing_queries(self) -> Self {
        Self { queries: false, ..self }
    }

    /// Sets the error of failing calls, `AccessDeniedException` by default.
    #[must_use]
    pub fn failing_with(self, code: &'static str) -> Self {
        Self { code, ..self }
    }

    /// Sets the largest page.
    #[must_use]
    pub fn with_pages_of(self, page: usize) -> Self {
        Self { page, ..self }
    }

    /// Creates a table whose calls all fail.
    #[must_use]
    pub fn failing() -> Self {
        Self::of(BTreeMap::<String, Row>::new(), || false)
    }

    /// Returns a client of a table that never answers.
    #[must_use]
    pub fn silent() -> ConnectionTable {
        let config = aws_sdk_dynamodb::Config::builder().with_test_defaults_v2();
        let client = aws_sdk_dynamodb::Client::from_conf(config.http_client(NeverClient::new()).build());
        ConnectionTable::new(client, "connections")
    }

    /// Returns a client of a table whose indexes have these pages.
    #[must_use]
    pub fn paged(pages: Vec<Vec<Row>>) -> ConnectionTable {
        let query = mock!(aws_sdk_dynamodb::Client::query)
            .then_compute_output(move |input| paged(&pages, input.exclusive_start_key()));
        ConnectionTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&query]), "connections")
    }

    /// Like [`paged`](Self::paged), for a table that answers `left` queries and then denies them.
    #[must_use]
    pub fn paged_until(pages: Vec<Vec<Row>>, left: Arc<AtomicUsize>) -> ConnectionTable {
        let query = mock!(aws_sdk_dynamodb::Client::query).then_compute_response(move |input| {
            let decrement = |left: usize| left.checked_sub(1);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, decrement).is_err() {
                return MockResponse::Error(QueryError::generic(error(ACCESS_DENIED)));
            }
            MockResponse::Output(paged(&pages, input.exclusive_start_key()))
        });
        ConnectionTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&query]), "connections")
    }

    /// Returns the rows, by connection.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, Row> {
        self.locked().clone()
    }

    /// Returns the ids of all connections.
    #[must_use]
    pub fn connections(&self) -> Vec<String> {
        self.locked().keys().cloned().collect()
    }

    /// Returns a client of the table.
    #[must_use]
    pub fn client(&self) -> ConnectionTable {
        let (put, delete) = (self.clone(), self.clone());
        let put_item = mock!(aws_sdk_dynamodb::Client::put_item).then_compute_response(move |input| {
            let row = input.item().cloned().unwrap_or_default();
            if !(put.works)() {
                return MockResponse::Error(PutItemError::generic(error(put.code)));
            }
            let id = row.get("connection_id").and_then(|id| id.as_s().ok()).cloned().unwrap_or_default();
            put.locked().insert(id, row);
            MockResponse::Output(PutItemOutput::builder().build())
        });
        let delete_item = mock!(aws_sdk_dynamodb::Client::delete_item).then_compute_response(move |input| {
            let id = input.key().and_then(|key| key.get("connection_id")).and_then(|id| id.as_s().ok());
            let value = |name: &str| input.expression_attribute_values().and_then(|values| values.get(name));
            delete.delete(id.map_or("", String::as_str), value(":cutoff"), value(":endpoint"))
        });
        let query = self.clone();
        let query = mock!(aws_sdk_dynamodb::Client::query).then_compute_response(move |input| {
            if !query.queries || !(query.works)() {
                return MockResponse::Error(QueryError::generic(error(query.code)));
            }
            let attribute = input.expression_attribute_names().and_then(|names| names.get("#key"));
            let value = input.expression_attribute_values().and_then(|values| values.get(":value"));
            let found = |row: &Row| attribute.and_then(|name| row.get(name)) == value;
            let (rows, last) = query.page(input.exclusive_start_key(), found);
            MockResponse::Output(
                QueryOutput::builder().set_items(Some(rows)).set_last_evaluated_key(last).build(),
            )
        });
        let get = self.clone();
        let get_item = mock!(aws_sdk_dynamodb::Client::get_item).then_compute_response(move |input| {
            if !(get.works)() {
                return MockResponse::Error(GetItemError::generic(error(get.code)));
            }
            let id = input.key().and_then(|key| key.get("connection_id")).and_then(|id| id.as_s().ok());
            let row = get.locked().get(id.map_or("", String::as_str)).cloned();
            MockResponse::Output(GetItemOutput::builder().set_item(row).build())
        });
        let scan = self.clone();
        let scan = mock!(aws_sdk_dynamodb::Client::scan).then_compute_response(move |input| {
            if !(scan.works)() {
                return MockResponse::Error(ScanError::generic(error(scan.code)));
            }
            let (rows, last) = scan.page(input.exclusive_start_key(), |_| true);
            MockResponse::Output(
                ScanOutput::builder().set_items(Some(rows)).set_last_evaluated_key(last).build(),
            )
        });
        let rules = [&put_item, &delete_item, &query, &get_item, &scan];
        // Without retries, which the SDK tests itself.
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, rules, |config| {
            config.retry_config(RetryConfig::disabled())
        });
        ConnectionTable::new(client, "connections")
    }

    /// Returns the rows after a key, and the last row's key if the page is full.
    fn page(&self, after: Option<&Row>, found: impl Fn(&Row) -> bool) -> (Vec<Row>, Option<Row>) {
        let after = after.and_then(|key| key.get("connection_id")).and_then(|id| id.as_s().ok());
        let rows = self.locked();
        let following = rows.iter().filter(|(id, row)| after.is_none_or(|after| *id > after) && found(row));
        let page: Vec<_> = following.map(|(_, row)| row.clone()).take(self.page).collect();
        let last = page.last().filter(|_| page.len() == self.page);
        let key = last.map(|row| Row::from([("connection_id".to_owned(), row["connection_id"].clone())]));
        (page, key)
    }

    fn delete(
        &self,
        id: &str,
        cutoff: Option<&AttributeValue>,
        endpoint: Option<&AttributeValue>,
    ) -> MockResponse<DeleteItemOutput, DeleteItemError> {
        if !(self.works)() {
            return MockResponse::Error(DeleteItemError::generic(error(self.code)));
        }
        let number = |value: &AttributeValue| value.as_n().ok().and_then(|number| number.parse::<u64>().ok());
        let mut rows = self.locked();
        let connected_at = rows.get(id).and_then(|row| row.get("connected_at")).and_then(number);
        let too_young = cutoff.and_then(number).zip(connected_at).is_some_and(|(cutoff, at)| at >= cutoff);
        let at = rows.get(id).and_then(|row| row.get("endpoint"));
        let elsewhere = endpoint.zip(at).is_some_and(|(endpoint, at)| at != endpoint);
        if too_young || elsewhere {
            let refusal = ConditionalCheckFailedException::builder().set_item(rows.get(id).cloned()).build();
            return MockResponse::Error(DeleteItemError::ConditionalCheckFailedException(refusal));
        }
        MockResponse::Output(DeleteItemOutput::builder().set_attributes(rows.remove(id)).build())
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the page after a key. Every page except the last has a key, its last row's.
fn paged(pages: &[Vec<Row>], start: Option<&Row>) -> QueryOutput {
    let after = start.map(|key| &key["connection_id"]);
    let is_next = |page: &Vec<Row>| page.last().map(|row| &row["connection_id"]) == after;
    let index = after.and_then(|_| pages.iter().position(is_next)).map_or(0, |index| index + 1);
    let page = pages.get(index).cloned().unwrap_or_default();
    let last = page.last().filter(|_| index + 1 < pages.len());
    let key = last.map(|row| Row::from([("connection_id".to_owned(), row["connection_id"].clone())]));
    QueryOutput::builder().set_items(Some(page)).set_last_evaluated_key(key).build()
}

/// Builds a connection of the user `anna` of the tenant `acme`, as `$connect` writes it at `connected_at`.
///
/// # Panics
/// When `id` is not a valid connection id.
#[must_use]
#[expect(clippy::expect_used, reason = "a bug in the tests")]
pub fn connection(id: &str, connected_at: SystemTime) -> Connection {
    let valid = "a valid id";
    Connection {
        connection_id: id.try_into().expect(valid),
        user_id: "anna".try_into().expect(valid),
        tenant_id: "acme".try_into().expect(valid),
        endpoint: ENDPOINT.to_owned(),
        connected_at,
        expires_at: connected_at + Duration::from_secs(2 * 3600 + 600),
        permissions: BTreeSet::new(),
        source_ip: None,
        user_agent: None,
    }
}
