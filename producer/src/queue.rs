//! One call to SQS, and what it says of each entry.

use std::sync::Arc;

use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    error::{ProvideErrorMetadata, SdkError},
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{
        MessageSystemAttributeNameForSends, MessageSystemAttributeValue, SendMessageBatchRequestEntry,
        SendMessageBatchResultEntry,
    },
};
use streamer_environment::aws;

use crate::entry::Entry;

/// The queue that a producer sends to.
#[derive(Debug)]
pub struct Queue {
    client: Client,
    url: String,
}

/// Why the queue does not have an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// It would refuse it again.
    Refused(String),
    /// It did not take it now; whether it has it may be unknown.
    NotTaken(String),
}

impl Queue {
    /// The queue at `url`. Tries are the producer's affair, so the client's own are off.
    pub fn new(client: &Client, url: String) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self { client: Client::from_conf(config.build()), url }
    }

    /// Whether it is a FIFO queue: its name says so.
    ///
    /// Source: "FIFO queue and message identifiers" in
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queue-message-identifiers.html>.
    pub fn is_fifo(&self) -> bool {
        self.url.ends_with(".fifo")
    }

    /// Sends up to 10 entries, and says of each what became of it.
    pub async fn send(&self, entries: &[Arc<Entry>]) -> Vec<Result<(), Failure>> {
        let all = |failure: Failure| vec![Err(failure); entries.len()];
        let request = entries.iter().enumerate().map(|(id, entry)| request(id, entry));
        let request = match request.collect::<Result<Vec<_>, _>>() {
            Ok(request) => request,
            Err(error) => return all(Failure::Refused(error.to_string())),
        };
        let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(request));
        match send.send().await {
            Ok(output) => (0..entries.len()).map(|id| outcome(&output, &id.to_string())).collect(),
            Err(error) => all(failed(&error)),
        }
    }
}

fn request(id: usize, entry: &Entry) -> Result<SendMessageBatchRequestEntry, aws_sdk_sqs::error::BuildError> {
    let mut request = SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(&entry.body)
        .set_message_group_id(entry.group.clone())
        .set_message_deduplication_id(entry.deduplication.clone());
    if let Some(trace) = &entry.trace {
        let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build()?;
        request =
            request.message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, value);
    }
    request.build()
}

/// Taken is what the queue confirms, and nothing else.
fn outcome(output: &SendMessageBatchOutput, id: &str) -> Result<(), Failure> {
    if output.successful().iter().map(SendMessageBatchResultEntry::id).any(|taken| taken == id) {
        return Ok(());
    }
    let Some(failed) = output.failed().iter().find(|failed| failed.id() == id) else {
        return Err(Failure::NotTaken("the queue did not mention it".to_owned()));
    };
    let cause = format!("{}: {}", failed.code(), failed.message().unwrap_or_default());
    let is_final = failed.sender_fault() || is_final(failed.code());
    Err(if is_final { Failure::Refused(cause) } else { Failure::NotTaken(cause) })
}

fn failed(error: &SdkError<SendMessageBatchError>) -> Failure {
    let cause = aws::cause(error);
    match error.as_service_error().and_then(ProvideErrorMetadata::code) {
        Some(code) if is_final(code) => Failure::Refused(cause),
        _ => Failure::NotTaken(cause),
    }
}

/// Whether the queue would say the same again, by the error's code: its message, or the call, the caller or the
/// queue is wrong. Everything else may pass.
///
/// Sources: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html> and
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>.
fn is_final(code: &str) -> bool {
    const FINAL: [&str; 17] = [
        "AccessDenied",
        "AccessDeniedException",
        "BatchRequestTooLong",
        "InvalidAddress",
        "InvalidClientTokenId",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "InvalidSecurity",
        "KmsAccessDenied",
        "KmsDisabled",
        "KmsInvalidKeyUsage",
        "KmsInvalidState",
        "KmsNotFound",
        "MissingParameter",
        "NonExistentQueue",
        "QueueDoesNotExist",
        "UnsupportedOperation",
    ];
    FINAL.contains(&code.rsplit('.').next().unwrap_or(code))
}
