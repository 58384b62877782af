//! Doubles of table and queue, inside the SDK's HTTP client: everything above it is real.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    error::ErrorMetadata,
    operation::{
        delete_item::{DeleteItemError, DeleteItemOutput},
        put_item::{PutItemError, PutItemOutput},
        query::{QueryError, QueryOutput},
    },
    types::{AttributeValue, error::ConditionalCheckFailedException},
};
use aws_sdk_sqs::{
    config::retry::RetryConfig,
    operation::{
        change_message_visibility_batch::ChangeMessageVisibilityBatchOutput,
        send_message::{SendMessageError, SendMessageOutput},
        send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    },
    types::{
        BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry,
        ChangeMessageVisibilityBatchResultEntry, SendMessageBatchRequestEntry, SendMessageBatchResultEntry,
    },
};
use aws_smithy_http_client::test_util::NeverClient;
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use streamer_connections::{Connection, ConnectionTable};

use crate::worker::ENDPOINT;

/// A row of the table double.
pub type Row = std::collections::HashMap<String, AttributeValue>;

/// A connection table in memory. It knows the two conditions of the real one, and no other.
#[derive(Clone)]
pub struct TableDouble {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    works: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Default for TableDouble {
    fn default() -> Self {
        Self::of(BTreeMap::<String, Row>::new(), || true)
    }
}

impl TableDouble {
    /// A table with a row for each connection, which was made at the given time.
    #[must_use]
    pub fn with<const N: usize>(connections: [(&str, SystemTime); N]) -> Self {
        let row = |(id, connected_at): (&str, SystemTime)| {
            let since_epoch = connected_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let connected_at = AttributeValue::N(since_epoch.as_millis().to_string());
            (id.to_owned(), Row::from([("connected_at".to_owned(), connected_at)]))
        };
        Self::of(connections.map(row), || true)
    }

    /// A table with these rows, by connection, which answers a call with an error where `works` says no.
    pub fn of<Id: Into<String>>(
        rows: impl IntoIterator<Item = (Id, Row)>,
        works: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let rows = rows.into_iter().map(|(id, row)| (id.into(), row)).collect();
        Self { rows: Arc::new(Mutex::new(rows)), works: Arc::new(works) }
    }

    /// The same with whole rows, of the user `anna` of the tenant `acme`, which answers a call with an error where
    /// `works` says no.
    pub fn of_user<'a>(
        connections: impl IntoIterator<Item = (&'a str, SystemTime)>,
        works: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        let millis =
            |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
        let row = |(id, connected_at): (&'a str, SystemTime)| {
            let Connection { user_id, endpoint, expires_at, .. } = connection(id, connected_at);
            let text = AttributeValue::S;
            let number = |number: u128| AttributeValue::N(number.to_string());
            let attributes = [
                ("connection_id", text(id.to_owned())),
                ("user_id", text(user_id.into())),
                ("tenant_user", text("acme#anna".to_owned())),
                ("endpoint", text(endpoint)),
                ("connected_at", number(millis(connected_at))),
                ("expires_at", number(millis(expires_at) / 1000)),
            ];
            (id, attributes.map(|(name, value)| (name.to_owned(), value)).into())
        };
        Self::of(connections.into_iter().map(row), works)
    }

    /// A table that answers every call with an error.
    #[must_use]
    pub fn failing() -> Self {
        Self::of(BTreeMap::<String, Row>::new(), || false)
    }

    /// A table that never answers.
    #[must_use]
    pub fn silent() -> ConnectionTable {
        let config = aws_sdk_dynamodb::Config::builder().with_test_defaults_v2();
        let client = aws_sdk_dynamodb::Client::from_conf(config.http_client(NeverClient::new()).build());
        ConnectionTable::new(client, "connections")
    }

    /// A table whose indexes have these pages. A page that is not the last ends at its last row's connection.
    #[must_use]
    pub fn paged(pages: Vec<Vec<Row>>) -> ConnectionTable {
        let query = mock!(aws_sdk_dynamodb::Client::query).then_compute_output(move |input| {
            let after = input.exclusive_start_key().map(|key| &key["connection_id"]);
            let is_next = |page: &Vec<Row>| page.last().map(|row| &row["connection_id"]) == after;
            let place = after.and_then(|_| pages.iter().position(is_next)).map_or(0, |place| place + 1);
            let page = pages.get(place).cloned().unwrap_or_default();
            let last = page.last().filter(|_| place + 1 < pages.len());
            let key = last.map(|row| Row::from([("connection_id".to_owned(), row["connection_id"].clone())]));
            QueryOutput::builder().set_items(Some(page)).set_last_evaluated_key(key).build()
        });
        ConnectionTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&query]), "connections")
    }

    /// The rows, by connection.
    #[must_use]
    pub fn rows(&self) -> BTreeMap<String, Row> {
        self.locked().clone()
    }

    /// The connections that have rows.
    #[must_use]
    pub fn connections(&self) -> Vec<String> {
        self.locked().keys().cloned().collect()
    }

    /// A client of the table.
    #[must_use]
    pub fn client(&self) -> ConnectionTable {
        let (put, delete) = (self.clone(), self.clone());
        let put_item = mock!(aws_sdk_dynamodb::Client::put_item).then_compute_response(move |input| {
            let row = input.item().cloned().unwrap_or_default();
            if !(put.works)() {
                return MockResponse::Error(PutItemError::generic(denied()));
            }
            let id = row.get("connection_id").and_then(|id| id.as_s().ok()).cloned().unwrap_or_default();
            put.locked().insert(id, row);
            MockResponse::Output(PutItemOutput::builder().build())
        });
        let delete_item = mock!(aws_sdk_dynamodb::Client::delete_item).then_compute_response(move |input| {
            let id = input.key().and_then(|key| key.get("connection_id")).and_then(|id| id.as_s().ok());
            let cutoff = input.expression_attribute_values().and_then(|values| values.get(":cutoff"));
            delete.delete(id.map_or("", String::as_str), cutoff)
        });
        let query = self.clone();
        let query = mock!(aws_sdk_dynamodb::Client::query).then_compute_response(move |input| {
            if !(query.works)() {
                return MockResponse::Error(QueryError::generic(denied()));
            }
            let attribute = input.expression_attribute_names().and_then(|names| names.get("#key"));
            let value = input.expression_attribute_values().and_then(|values| values.get(":value"));
            let found = |row: &Row| attribute.and_then(|name| row.get(name)) == value;
            let rows = query.locked().values().filter(|row| found(row)).cloned().collect();
            MockResponse::Output(QueryOutput::builder().set_items(Some(rows)).build())
        });
        let rules = [&put_item, &delete_item, &query];
        ConnectionTable::new(mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, rules), "connections")
    }

    fn delete(
        &self,
        id: &str,
        cutoff: Option<&AttributeValue>,
    ) -> MockResponse<DeleteItemOutput, DeleteItemError> {
        if !(self.works)() {
            return MockResponse::Error(DeleteItemError::generic(denied()));
        }
        let number = |value: &AttributeValue| value.as_n().ok().and_then(|number| number.parse::<u64>().ok());
        let mut rows = self.locked();
        let connected_at = rows.get(id).and_then(|row| row.get("connected_at")).and_then(number);
        let too_young = cutoff.and_then(number).zip(connected_at).is_some_and(|(cutoff, at)| at >= cutoff);
        if too_young {
            let refusal = ConditionalCheckFailedException::builder().build();
            return MockResponse::Error(DeleteItemError::ConditionalCheckFailedException(refusal));
        }
        MockResponse::Output(DeleteItemOutput::builder().set_attributes(rows.remove(id)).build())
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Row>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of the user `anna` of the tenant `acme` that was made at `connected_at`, as `$connect` writes it.
///
/// # Panics
/// When `id` is none.
#[must_use]
#[expect(clippy::expect_used, reason = "a fault of the tests themselves")]
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

/// An error that the SDK does not try again.
fn denied() -> ErrorMetadata {
    error("AccessDeniedException")
}

fn error(code: &str) -> ErrorMetadata {
    ErrorMetadata::builder().code(code).message("scripted").build()
}

/// What the queue double does with an entry of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// Takes it.
    Taken,
    /// Refuses it: the sender's fault.
    Refused,
    /// Fails to take it: the queue's fault.
    NotTaken,
    /// Does not mention it.
    Unmentioned,
}

/// Told a receipt handle, and for how many seconds it is hidden.
type Hide = dyn Fn(&str, i32) + Send + Sync;

/// A queue in memory.
#[derive(Clone)]
pub struct QueueDouble {
    fails: Option<&'static str>,
    sent: Arc<Mutex<Vec<Vec<SendMessageBatchRequestEntry>>>>,
    waits: Arc<Mutex<Vec<(String, i32)>>>,
    hide: Arc<Hide>,
    decide: Arc<dyn Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync>,
}

impl QueueDouble {
    /// A queue that does with each entry what `decide` says.
    pub fn new(decide: impl Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync + 'static) -> Self {
        Self {
            fails: None,
            sent: Arc::default(),
            waits: Arc::default(),
            hide: Arc::new(|_, _| {}),
            decide: Arc::new(decide),
        }
    }

    /// The same, which tells `hide` each receipt handle that is hidden, and for how many seconds.
    #[must_use]
    pub fn hiding(self, hide: impl Fn(&str, i32) + Send + Sync + 'static) -> Self {
        Self { hide: Arc::new(hide), ..self }
    }

    /// A queue that takes everything.
    #[must_use]
    pub fn taking() -> Self {
        Self::new(|_| Entry::Taken)
    }

    /// A queue that answers every call with this error.
    #[must_use]
    pub fn failing(code: &'static str) -> Self {
        Self { fails: Some(code), ..Self::taking() }
    }

    /// A client of a queue that never answers.
    #[must_use]
    pub fn silent() -> aws_sdk_sqs::Client {
        let config = aws_sdk_sqs::Config::builder().with_test_defaults_v2();
        aws_sdk_sqs::Client::from_conf(config.http_client(NeverClient::new()).build())
    }

    /// The batches that arrived.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<SendMessageBatchRequestEntry>> {
        self.locked().clone()
    }

    /// The entries that arrived.
    #[must_use]
    pub fn entries(&self) -> Vec<SendMessageBatchRequestEntry> {
        self.batches().concat()
    }

    /// How long what was received is hidden: each receipt handle, and the seconds.
    #[must_use]
    pub fn waits(&self) -> Vec<(String, i32)> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client of the queue.
    #[must_use]
    pub fn client(&self) -> aws_sdk_sqs::Client {
        let (one, many) = (self.clone(), self.clone());
        let send = mock!(aws_sdk_sqs::Client::send_message).then_compute_response(move |_| match one.fails {
            Some(code) => MockResponse::Error(SendMessageError::generic(error(code))),
            None => MockResponse::Output(SendMessageOutput::builder().message_id("m").build()),
        });
        let send_batch = mock!(aws_sdk_sqs::Client::send_message_batch).then_compute_response(move |input| {
            if let Some(code) = many.fails {
                return MockResponse::Error(SendMessageBatchError::generic(error(code)));
            }
            obey(input.queue_url().unwrap_or_default(), input.entries());
            many.locked().push(input.entries().to_vec());
            MockResponse::Output(many.answer(input.entries()))
        });
        let hiding = self.clone();
        let hide =
            mock!(aws_sdk_sqs::Client::change_message_visibility_batch).then_compute_output(move |input| {
                assert!((1..=10).contains(&input.entries().len()), "SQS takes 1 to 10 entries");
                for entry in input.entries() {
                    let (receipt, seconds) =
                        (entry.receipt_handle(), entry.visibility_timeout().unwrap_or(-1));
                    assert!((0..=43_200).contains(&seconds), "SQS hides a message for up to 12 h");
                    (hiding.hide)(receipt, seconds);
                    let mut waits = hiding.waits.lock().unwrap_or_else(PoisonError::into_inner);
                    waits.push((receipt.to_owned(), seconds));
                }
                let hidden = |entry: &ChangeMessageVisibilityBatchRequestEntry| {
                    ChangeMessageVisibilityBatchResultEntry::builder().id(entry.id()).build().ok()
                };
                let hidden = input.entries().iter().filter_map(hidden).collect();
                let output = ChangeMessageVisibilityBatchOutput::builder().set_successful(Some(hidden));
                #[expect(clippy::expect_used, reason = "both lists are set")]
                output.set_failed(Some(Vec::new())).build().expect("a whole answer")
            });
        // Retries are left out: the SDK's own tests hold them.
        mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&send, &send_batch, &hide], |config| {
            config.retry_config(RetryConfig::disabled())
        })
    }

    fn answer(&self, entries: &[SendMessageBatchRequestEntry]) -> SendMessageBatchOutput {
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for entry in entries {
            match (self.decide)(entry) {
                Entry::Taken => {
                    let taken = SendMessageBatchResultEntry::builder().id(entry.id()).message_id("m");
                    successful.extend(taken.md5_of_message_body("unchecked").build());
                }
                Entry::Unmentioned => {}
                fault => {
                    let refused = fault == Entry::Refused;
                    let code = if refused { "InvalidMessageContents" } else { "InternalError" };
                    let entry = BatchResultErrorEntry::builder().id(entry.id()).code(code);
                    failed.extend(entry.sender_fault(refused).message("scripted").build());
                }
            }
        }
        let output =
            SendMessageBatchOutput::builder().set_successful(Some(successful)).set_failed(Some(failed));
        #[expect(clippy::expect_used, reason = "both lists are set")]
        output.build().expect("a whole answer")
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Vec<SendMessageBatchRequestEntry>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long ago a connection was made that is past every grace.
pub const LONG_AGO: Duration = Duration::from_secs(3600);

/// What SQS wants of a batch.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>.
///
/// # Panics
/// When it would refuse the batch.
fn obey(queue_url: &str, entries: &[SendMessageBatchRequestEntry]) {
    let ids: BTreeSet<_> = entries.iter().map(SendMessageBatchRequestEntry::id).collect();
    assert!(
        (1..=10).contains(&entries.len()) && ids.len() == entries.len(),
        "1 to 10 entries, each with its id"
    );
    let attributes = |entry: &SendMessageBatchRequestEntry| {
        entry
            .message_attributes()
            .into_iter()
            .flatten()
            .map(|(name, value)| {
                let text = value.string_value().unwrap_or_default();
                assert!(!text.is_empty(), "SQS takes no empty attribute: {name}");
                name.len() + value.data_type().len() + text.len()
            })
            .sum::<usize>()
    };
    let bytes: usize = entries.iter().map(|entry| entry.message_body().len() + attributes(entry)).sum();
    assert!(bytes <= 1024 * 1024, "a batch of {bytes} bytes");
    for entry in entries {
        let (group, deduplication) = (entry.message_group_id(), entry.message_deduplication_id());
        assert!(group.is_none_or(|group| (1..=128).contains(&group.len())), "a group of 1 to 128 characters");
        if queue_url.ends_with(".fifo") {
            assert!(
                group.is_some() && deduplication.is_some(),
                "a FIFO queue wants a group and a deduplication id"
            );
            assert!(entry.delay_seconds().is_none(), "a FIFO queue takes no delay of a message");
        } else {
            assert!(deduplication.is_none(), "a standard queue takes no deduplication id");
            assert!((0..=900).contains(&entry.delay_seconds().unwrap_or_default()), "SQS delays up to 900 s");
        }
    }
}
