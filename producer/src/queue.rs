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
use streamer_message::sqs::{is_fifo, is_final, is_message_fault, is_refusal};

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
    Refused { code: String, message: String },
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
        is_fifo(&self.url)
    }

    /// Sends up to 10 entries, and says of each what became of it.
    pub async fn send(&self, entries: &[Arc<Entry>]) -> Vec<Result<(), Failure>> {
        match self.call(entries).await {
            Ok(output) => (0..entries.len()).map(|id| outcome(&output, &id.to_string())).collect(),
            // One of them may be at fault, and the others need not suffer for it.
            Err(Failure::Refused { code, .. }) if entries.len() > 1 && is_message_fault(&code) => {
                let mut outcomes = Vec::with_capacity(entries.len());
                for entry in entries {
                    let one = self.call(std::slice::from_ref(entry)).await;
                    outcomes.push(one.and_then(|output| outcome(&output, "0")));
                }
                outcomes
            }
            Err(failure) => vec![Err(failure); entries.len()],
        }
    }

    async fn call(&self, entries: &[Arc<Entry>]) -> Result<SendMessageBatchOutput, Failure> {
        let entries = entries.iter().enumerate().map(|(id, entry)| request(id, entry));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::Refused {
            code: "InvalidEntry".to_owned(),
            message: error.to_string(),
        })?;
        let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        send.send().await.map_err(|error| failed(&error))
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
    let (code, message) = (failed.code(), failed.message().unwrap_or_default());
    if is_refusal(code, failed.sender_fault()) {
        return Err(Failure::Refused { code: code.to_owned(), message: message.to_owned() });
    }
    Err(Failure::NotTaken(format!("{code}: {message}")))
}

fn failed(error: &SdkError<SendMessageBatchError>) -> Failure {
    let service = error.as_service_error();
    let code = match error {
        SdkError::ConstructionFailure(_) => Some("InvalidCall"),
        _ => service.and_then(ProvideErrorMetadata::code).filter(|code| is_final(code)),
    };
    match code {
        Some(code) => {
            let message = service.and_then(ProvideErrorMetadata::message).map(str::to_owned);
            Failure::Refused { code: code.to_owned(), message: message.unwrap_or_else(|| aws::cause(error)) }
        }
        None => Failure::NotTaken(aws::cause(error)),
    }
}
