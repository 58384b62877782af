//! One call to SQS, and its result for each entry.

use std::{
    error::Error,
    iter::successors,
    sync::{Arc, OnceLock},
    time::Duration,
};

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::{
    Client,
    config::retry::RetryConfig,
    error::{BuildError, ProvideErrorMetadata, SdkError},
    operation::send_message_batch::{SendMessageBatchError, SendMessageBatchOutput},
    types::{SendMessageBatchRequestEntry, SendMessageBatchResultEntry},
};
use streamer_message::sqs::{batch_entry, is_fifo, is_final, is_message_fault, is_refusal};
use tokio::time::{Instant, timeout_at};

use crate::entry::Entry;

/// Time limit of the calls for a batch; after it, the entries without an answer are retried.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

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
    /// No call can be made: the client lacks its configuration.
    NotConfigured(String),
    /// A retry can succeed. The entry may be on the queue.
    NotTaken(String),
}

/// The result of an entry of a call, once it is known.
pub(crate) type EntryResult = OnceLock<Result<(), Failure>>;

impl Queue {
    /// Returns the queue at `url`. It turns off the client's own retries, because the producer retries.
    pub(crate) fn new(client: &Client, url: String) -> Self {
        let config = client.config().to_builder().retry_config(RetryConfig::disabled());
        Self { client: Client::from_conf(config.build()), url }
    }

    pub(crate) fn is_fifo(&self) -> bool {
        is_fifo(&self.url)
    }

    /// Sends up to 10 entries, and sets the result of each as soon as it is known.
    pub(crate) async fn send(&self, entries: &[Arc<Entry>], results: &[EntryResult]) {
        let deadline = Instant::now() + CALL_TIMEOUT;
        let called = self.call(entries, deadline).await;
        for (id, (entry, known)) in entries.iter().zip(results).enumerate() {
            let result = match &called {
                Ok(output) => result(output, &id.to_string()),
                // One entry may have failed the whole call: without it, the others can succeed.
                Err(Failure::Refused { code, .. }) if entries.len() > 1 && is_message_fault(code) => {
                    let one = self.call(std::slice::from_ref(entry), deadline).await;
                    one.and_then(|output| result(&output, "0"))
                }
                Err(failure) => Err(failure.clone()),
            };
            known.get_or_init(|| result);
        }
    }

    async fn call(
        &self,
        entries: &[Arc<Entry>],
        deadline: Instant,
    ) -> Result<SendMessageBatchOutput, Failure> {
        let no_answer =
            || Failure::NotTaken(format!("the queue did not answer within {} s", CALL_TIMEOUT.as_secs()));
        if Instant::now() >= deadline {
            return Err(no_answer());
        }
        let entries = entries.iter().enumerate().map(|(id, entry)| request(id, entry));
        let entries = entries.collect::<Result<Vec<_>, _>>().map_err(|error| Failure::Refused {
            code: "InvalidEntry".to_owned(),
            message: error.to_string(),
        })?;
        let send = self.client.send_message_batch().queue_url(&self.url).set_entries(Some(entries));
        let answer = timeout_at(deadline, send.send()).await.map_err(|_| no_answer())?;
        answer.map_err(|error| match self.client.config().region() {
            Some(_) => failure(&error),
            None => Failure::NotConfigured("there is no Region".to_owned()),
        })
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
    if is_refusal(code, message, failed.sender_fault()) {
        return Err(Failure::Refused { code: code.to_owned(), message: message.to_owned() });
    }
    Err(Failure::NotTaken(format!("{code}: {message}")))
}

fn failure(error: &SdkError<SendMessageBatchError>) -> Failure {
    if let Some(cause) = misconfiguration(error) {
        return Failure::NotConfigured(cause);
    }
    let service = error.as_service_error();
    let message = service.and_then(ProvideErrorMetadata::message);
    let code = service.and_then(ProvideErrorMetadata::code);
    match code.filter(|code| is_final(code, message.unwrap_or_default())) {
        Some(code) => Failure::Refused {
            code: code.to_owned(),
            message: message.map_or_else(|| cause(error), str::to_owned),
        },
        None => Failure::NotTaken(cause(error)),
    }
}

/// Returns why the client can make no call, if its configuration is the reason. A source of credentials that failed may
/// work at the next attempt.
fn misconfiguration(error: &SdkError<SendMessageBatchError>) -> Option<String> {
    let mut sources = successors(error.source(), |&error| error.source());
    match sources.find_map(|error| error.downcast_ref()) {
        Some(CredentialsError::CredentialsNotLoaded(_)) => Some("there are no credentials".to_owned()),
        Some(CredentialsError::InvalidConfiguration(_)) => Some(cause(error)),
        _ => matches!(error, SdkError::ConstructionFailure(_)).then(|| cause(error)),
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

#[cfg(test)]
mod tests {
    use aws_credential_types::{credential_fn::provide_credentials_fn, provider::error::CredentialsError};
    use aws_sdk_sqs::{
        Config,
        config::{BehaviorVersion, Region},
    };

    use super::*;

    /// Sends to a client that can make no call, and returns the failure.
    async fn failure_of(region: Option<Region>, error: fn() -> CredentialsError) -> Failure {
        let config = Config::builder().behavior_version(BehaviorVersion::v2026_01_12()).region(region);
        let config = config.credentials_provider(provide_credentials_fn(move || async move { Err(error()) }));
        let queue = Queue::new(&Client::from_conf(config.build()), "http://127.0.0.1:9/q".to_owned());
        let body = "{}".to_owned();
        let entry = Entry { body, group: None, deduplication: None, trace: None, key: None };
        let result = EntryResult::new();
        queue.send(&[Arc::new(entry)], std::slice::from_ref(&result)).await;
        result.into_inner().unwrap().unwrap_err()
    }

    #[tokio::test]
    async fn missing_configuration_is_told_from_transient_failures() {
        let region = || Some(Region::from_static("eu-central-1"));
        let missing = || CredentialsError::not_loaded("none");
        let failure = failure_of(region(), missing).await;
        assert!(
            matches!(&failure, Failure::NotConfigured(cause) if cause == "there are no credentials"),
            "{failure:?}"
        );
        let failure = failure_of(None, missing).await;
        assert!(
            matches!(&failure, Failure::NotConfigured(cause) if cause == "there is no Region"),
            "{failure:?}"
        );
        let failure = failure_of(region(), || CredentialsError::provider_error("no answer")).await;
        assert!(matches!(failure, Failure::NotTaken(_)), "{failure:?}");
    }
}
