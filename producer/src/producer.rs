//! The way to the queue.

use aws_sdk_sqs::{Client, error::ProvideErrorMetadata, types::SendMessageBatchRequestEntry};
use futures::{StreamExt, stream};
use streamer_environment::aws;
use streamer_message::{InvalidAudience, Limit, MessageId, OutboundMessage, pack};

use crate::Message;

/// Batches of one `send_all` that are under way at the same time, at most.
const BATCHES_AT_ONCE: usize = 8;

/// Puts messages on the queue. Cheap to clone and safe to share.
#[derive(Debug, Clone)]
pub struct Producer {
    client: Client,
    queue_url: String,
}

/// Why the queue does not have the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// More connections than one message may name.
    #[error("{0}, or call `broadcast`")]
    TooManyRecipients(#[from] InvalidAudience),
    /// The message could not be written.
    #[error("the message cannot be written as JSON: {0}")]
    NotJson(String),
    /// The queue refused the message, and would refuse it again.
    #[error("the queue refused the message: {0}")]
    Refused(String),
    /// The queue did not take the message now; whether it has it may be unknown.
    #[error("the queue did not take the message: {0}; send it again with the same id")]
    NotTaken(String),
}

/// Some messages of many are not on the queue; the others are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of {total} messages are not on the queue; the first: {}", unsent.len(), first(unsent))]
pub struct SendAllError {
    /// Messages of the queue that there were.
    pub total: usize,
    /// Those that are not on the queue.
    pub unsent: Vec<Unsent>,
}

/// A message that is not on the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsent {
    /// Which.
    pub id: MessageId,
    /// Why.
    pub error: SendError,
}

fn first(unsent: &[Unsent]) -> String {
    unsent.first().map(|unsent| format!("{}: {}", unsent.id, unsent.error)).unwrap_or_default()
}

impl Producer {
    /// A producer for the queue at `queue_url`, on a client that the program has.
    #[must_use]
    pub fn new(client: Client, queue_url: impl Into<String>) -> Self {
        Self { client, queue_url: queue_url.into() }
    }

    /// A producer for the queue at `queue_url`, on a client of its own: region and credentials are those of
    /// the environment.
    pub async fn connect(queue_url: impl Into<String>) -> Self {
        Self::new(Client::new(&aws::load().await), queue_url)
    }

    /// Puts a message for up to 100 connections on the queue. `Ok` means that the queue has it.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        let body = encode(&message.into_outbound()?)?;
        let send = self.client.send_message().queue_url(&self.queue_url).message_body(body);
        match send.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().and_then(|error| error.code()).is_some_and(is_final) => {
                Err(SendError::Refused(aws::cause(&error)))
            }
            Err(error) => Err(SendError::NotTaken(aws::cause(&error))),
        }
    }

    /// Puts messages on the queue, in batches of up to 10 messages and 1 MiB. `Ok` means that the queue has
    /// them all.
    ///
    /// # Errors
    /// [`SendAllError`] names those that are not on the queue.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<(), SendAllError> {
        let outbound = messages.into_iter().map(|message| {
            let id = message.id().clone();
            message.into_outbound().map_err(|error| Unsent { id, error: error.into() })
        });
        self.send_outbound(outbound.collect()).await
    }

    /// Puts a message for any number of connections on the queue, split by 100. `Ok` means that the queue has
    /// all the parts.
    ///
    /// # Errors
    /// [`SendAllError`] counts the parts that are not on the queue. All parts have the message's id: who
    /// sends it again with that id reaches nobody twice, where the payload holds it.
    pub async fn broadcast(&self, message: Message) -> Result<(), SendAllError> {
        let id = message.id().clone();
        let parts = match message.split() {
            Ok(parts) => parts.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(Unsent { id, error: error.into() })],
        };
        self.send_outbound(parts).await
    }

    async fn send_outbound(
        &self,
        messages: Vec<Result<OutboundMessage<'static>, Unsent>>,
    ) -> Result<(), SendAllError> {
        let total = messages.len();
        let mut unsent = Vec::new();
        let bodies = messages.into_iter().filter_map(|message| {
            let body = message.and_then(|message| {
                encode(&message).map(|body| (message.id.clone(), body)).map_err(|error| {
                    let id = message.id;
                    Unsent { id, error }
                })
            });
            body.map_err(|fault| unsent.push(fault)).ok()
        });
        let batches = pack(bodies, Limit::QUEUE_BATCH, |(_, body)| body.len());
        let mut sending =
            stream::iter(batches).map(|batch| self.send_batch(batch)).buffer_unordered(BATCHES_AT_ONCE);
        while let Some(failed) = sending.next().await {
            unsent.extend(failed);
        }
        if unsent.is_empty() { Ok(()) } else { Err(SendAllError { total, unsent }) }
    }

    /// Sends one batch and returns what the queue did not take of it.
    async fn send_batch(&self, batch: Vec<(MessageId, String)>) -> Vec<Unsent> {
        let (ids, bodies): (Vec<_>, Vec<_>) = batch.into_iter().unzip();
        let entries = bodies.into_iter().enumerate().map(|(index, body)| {
            SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body).build()
        });
        let all_unsent = |error: SendError| {
            ids.iter().map(|id| Unsent { id: id.clone(), error: error.clone() }).collect::<Vec<_>>()
        };
        let entries = match entries.collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return all_unsent(SendError::Refused(error.to_string())),
        };
        let send = self.client.send_message_batch().queue_url(&self.queue_url).set_entries(Some(entries));
        match send.send().await {
            Ok(output) => {
                // Taken is what the queue confirms, and nothing else.
                let confirmed: Vec<_> =
                    output.successful().iter().filter_map(|entry| entry.id().parse::<usize>().ok()).collect();
                let missing = ids.iter().enumerate().filter(|(index, _)| !confirmed.contains(index));
                missing
                    .map(|(index, id)| {
                        let failed = output.failed().iter().find(|entry| entry.id() == index.to_string());
                        let error = failed.map_or_else(
                            || SendError::NotTaken("the queue did not mention it".to_owned()),
                            |entry| {
                                let cause =
                                    format!("{}: {}", entry.code(), entry.message().unwrap_or_default());
                                if entry.sender_fault() {
                                    SendError::Refused(cause)
                                } else {
                                    SendError::NotTaken(cause)
                                }
                            },
                        );
                        Unsent { id: id.clone(), error }
                    })
                    .collect()
            }
            Err(error) => all_unsent(SendError::NotTaken(aws::cause(&error))),
        }
    }
}

/// Whether the queue would refuse the same message again, by the error's code.
fn is_final(code: &str) -> bool {
    ["InvalidMessageContents", "InvalidParameterValue", "MissingParameter", "UnsupportedOperation"]
        .iter()
        .any(|known| code.ends_with(known))
}

fn encode(message: &OutboundMessage<'_>) -> Result<String, SendError> {
    message.encode().map_err(|error| SendError::NotJson(error.to_string()))
}
