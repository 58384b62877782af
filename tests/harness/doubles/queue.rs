//! A queue in memory.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
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
use streamer_message::sqs::is_fifo;

use super::error;

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
    kept: Arc<Mutex<Vec<SendMessageBatchRequestEntry>>>,
    waits: Arc<Mutex<Vec<(String, i32)>>>,
    hide: Arc<Hide>,
    /// Whether it notes what it gets.
    remembers: bool,
    calls: Arc<AtomicUsize>,
    decide: Arc<dyn Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync>,
}

impl QueueDouble {
    /// A queue that does with each entry what `decide` says.
    pub fn new(decide: impl Fn(&SendMessageBatchRequestEntry) -> Entry + Send + Sync + 'static) -> Self {
        Self {
            fails: None,
            sent: Arc::default(),
            kept: Arc::default(),
            waits: Arc::default(),
            hide: Arc::new(|_, _| {}),
            remembers: true,
            calls: Arc::default(),
            decide: Arc::new(decide),
        }
    }

    /// The same, which tells `hide` each receipt handle that is hidden, and for how many seconds.
    #[must_use]
    pub fn hiding(self, hide: impl Fn(&str, i32) + Send + Sync + 'static) -> Self {
        Self { hide: Arc::new(hide), ..self }
    }

    /// The same, which notes nothing of what it gets: for what is too much to be kept.
    #[must_use]
    pub fn forgetting(self) -> Self {
        Self { remembers: false, ..self }
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

    /// How many batches arrived.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// The batches that arrived.
    #[must_use]
    pub fn batches(&self) -> Vec<Vec<SendMessageBatchRequestEntry>> {
        self.locked().clone()
    }

    /// The entries that it took.
    #[must_use]
    pub fn taken(&self) -> Vec<SendMessageBatchRequestEntry> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
            many.calls.fetch_add(1, Ordering::Relaxed);
            if many.remembers {
                many.locked().push(input.entries().to_vec());
            }
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
                    if self.remembers {
                        self.kept.lock().unwrap_or_else(PoisonError::into_inner).push(entry.clone());
                    }
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
        if is_fifo(queue_url) {
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
