//! One call to SQS, and its result for each entry.

use std::{error::Error as _, sync::Arc};

use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use streamer_message::sqs::{batch_entry, is_fifo, is_final, is_message_fault, is_refusal};

use crate::entry::Entry;

/// The queue that a producer sends to.
#[derive(Debug)]
pub(crate) struct Queue {
    client: Client,
    url: String,
}

/// Why the queue does not have an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The queue would refuse the entry again.
    Refused { code: String, message: String },
    /// A retry can succeed. The entry may be on the queue.
    NotTaken(String),
}

impl Queue {
    /// Returns the queue at `url`. It turns off the client's own retries, because the producer retries.
    pub(crate) fn new(client: &Client, url: String) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self { client: Client::from_conf(config.build()), url }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        is_fifo(&self.url)
    }

    /// Sends up to 10 entries, and returns the result of each.
    pub(crate) async fn send(&self, entries: &[Arc<Entry>]) -> Vec<Result<(), Failure>> {
        match self.call(entries).await {
            Ok(output) => (0..entries.len()).map(|id| result(&output, &id.to_string())).collect(),
            // One entry may have failed the whole call: without it, the others can succeed.
            Err(Failure::Refused { code, .. }) if entries.len() > 1 && is_message_fault(&code) => {
                let mut results = Vec::with_capacity(entries.len());
                for entry in entries {
                    let one = self.call(std::slice::from_ref(entry)).await;
                    results.push(one.and_then(|output| result(&output, "0")));
                }
                results
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
        send.send().await.map_err(|error| failure(&error))
    }
}

fn request(id: usize, entry: &Entry) -> Result<SendMessageBatchRequestEntry, BuildError> {
    batch_entry(id, &entry.body, entry.group.as_deref(), entry.trace.as_deref())?
        .set_message_deduplication_id(entry.deduplication.clone())
        .build()
}

/// Returns the result of one entry. An entry that the output does not mention counts as not taken.
fn result(output: &SendMessageBatchOutput, id: &str) -> Result<(), Failure> {
    if output.successful().iter().map(SendMessageBatchResultEntry::id).any(|taken| taken == id) {
        return Ok(());
    }
    let Some(failed) = output.failed().iter().find(|failed| failed.id() == id) else {
        return Err(Failure::NotTaken("the queue's answer does not mention it".to_owned()));
    };
    let (code, message) = (failed.code(), failed.message().unwrap_or_default());
    if is_refusal(code, failed.sender_fault()) {
        return Err(Failure::Refused { code: code.to_owned(), message: message.to_owned() });
    }
    Err(Failure::NotTaken(format!("{code}: {message}")))
}

fn failure(error: &SdkError<SendMessageBatchError>) -> Failure {
    let service = error.as_service_error();
    let code = match error {
        SdkError::ConstructionFailure(_) => Some("InvalidCall"),
        _ => service.and_then(ProvideErrorMetadata::code).filter(|code| is_final(code)),
    };
    match code {
        Some(code) => {
            let message = service.and_then(ProvideErrorMetadata::message).map(str::to_owned);
            Failure::Refused { code: code.to_owned(), message: message.unwrap_or_else(|| cause(error)) }
        }
        None => Failure::NotTaken(cause(error)),
    }
}

/// Returns SQS's code and message, or why there was no answer.
fn cause(error: &SdkError<SendMessageBatchError>) -> String {
    let service = error.as_service_error();
    if let Some(code) = service.and_then(ProvideErrorMetadata::code) {
        let message = service.and_then(ProvideErrorMetadata::message).unwrap_or_default();
        return format!("{code}: {message}");
    }
    let (mut text, mut root) = (error.to_string(), error.source());
    let mut last = text.clone();
    while let Some(source) = root {
        last = source.to_string();
        text = format!("{text}: {last}");
        root = source.source();
    }
    match error {
        SdkError::DispatchFailure(failure) if failure.is_timeout() => "no connection in time".to_owned(),
        SdkError::DispatchFailure(failure) if failure.is_io() => format!("no connection: {last}"),
        SdkError::TimeoutError(_) => "no answer in time".to_owned(),
        _ => text,
    }
}
