//! Doubles of table and queue, inside the SDK's HTTP client: everything above it is real.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::{
    error::ErrorMetadata,
    operation::{
        delete_item::{DeleteItemError, DeleteItemOutput},
        put_item::{PutItemError, PutItemOutput},
    },
    types::{AttributeValue, error::ConditionalCheckFailedException},
};
use aws_sdk_sqs::{
    operation::send_message_batch::SendMessageBatchOutput,
    types::{BatchResultErrorEntry, SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use aws_smithy_mocks::{MockResponse, RuleMode, mock, mock_client};
use streamer_connections::ConnectionTable;

/// A row of the table double.
pub type Row = std::collections::HashMap<String, AttributeValue>;

/// A connection table in memory. It knows the two conditions of the real one, and no other.
#[derive(Debug, Clone, Default)]
pub struct TableDouble {
    rows: Arc<Mutex<BTreeMap<String, Row>>>,
    fails: bool,
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
        Self { rows: Arc::new(Mutex::new(connections.map(row).into())), fails: false }
    }

    /// A table that answers every call with an error.
    #[must_use]
    pub fn failing() -> Self {
        Self { fails: true, ..Self::default() }
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
            if put.fails {
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
        let client = mock_client!(aws_sdk_dynamodb, RuleMode::MatchAny, [&put_item, &delete_item]);
        ConnectionTable::new(client, "connections")
    }

    fn delete(
        &self,
        id: &str,
        cutoff: Option<&AttributeValue>,
    ) -> MockResponse<DeleteItemOutput, DeleteItemError> {
        if self.fails {
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

/// An error that the SDK does not try again.
fn denied() -> ErrorMetadata {
    ErrorMetadata::builder().code("AccessDeniedException").message("not for you").build()
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

/// A queue in memory.
#[derive(Clone)]
pub struct QueueDouble {
    sent: Arc<Mutex<Vec<Vec<SendMessageBatchRequestEntry>>>>,
    decide: Arc<dyn Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync>,
}

impl QueueDouble {
    /// A queue that does with each entry what `decide` says.
    pub fn new(decide: impl Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync + 'static) -> Self {
        Self { sent: Arc::default(), decide: Arc::new(decide) }
    }

    /// A queue that takes everything.
    #[must_use]
    pub fn taking() -> Self {
        Self::new(|_| Entry::Taken)
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

    /// A client of the queue.
    #[must_use]
    pub fn client(&self) -> aws_sdk_sqs::Client {
        let queue = self.clone();
        let send = mock!(aws_sdk_sqs::Client::send_message_batch).then_compute_output(move |input| {
            queue.locked().push(input.entries().to_vec());
            queue.answer(input.entries())
        });
        mock_client!(aws_sdk_sqs, RuleMode::MatchAny, [&send])
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
