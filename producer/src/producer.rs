//! The producer.

use std::{fmt, sync::Arc, time::Duration};

use aws_config::BehaviorVersion;
use aws_sdk_sqs::Client;
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};

use crate::{
    batcher::Batcher,
    entry::{check, entries},
    error::{SendAllError, SendError, Unsent},
    message::Message,
};

/// Default timeout of a send.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends messages to the outbound queue. Cheap to clone and safe to share: clones share their batches.
///
/// # Batching
/// Concurrent sends share `SendMessageBatch` calls. While no call is in flight, a message leaves at once. While one is,
/// messages fill the next batch, of up to 10 messages and 1 MiB. The batch leaves when it is full, when no call is in
/// flight any more, or after 20 ms. Up to 8 calls are in flight at once.
///
/// # Retries
/// The producer retries messages that the queue failed to take, and only those, until the [timeout](Self::timeout).
/// If only the answer to a call was lost, the message is on the queue twice: delivery to the queue is at least once.
/// A FIFO queue drops a message that it already received within the last 5 minutes.
///
/// # Order
/// Messages of one request for one audience keep their order; on a FIFO queue, messages for one recipient do. Each
/// leaves after the previous one has completed, so a call to a FIFO queue holds at most one of them. A standard queue
/// itself keeps no order. On one, messages that are sent concurrently may share a call, and SQS may take the second and
/// fail the first.
///
/// # Limits
/// At most 16 MiB are being sent at once; beyond that, [`send`](Self::send) waits for capacity. There is no background
/// task: the futures that [`send`](Self::send) returns do all the work. Dropping a future gives its message up, which
/// may or may not be on the queue. A future that is neither polled nor dropped keeps its message's share of the
/// capacity and holds back later messages in its order; all others continue.
///
/// Source:
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/using-messagededuplicationid-property.html>.
#[derive(Clone)]
pub struct Producer {
    batcher: Arc<Batcher>,
    pub(crate) timeout: Duration,
}

/// Omits the messages being sent, which may be confidential.
impl fmt::Debug for Producer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Producer").field("timeout", &self.timeout).finish_non_exhaustive()
    }
}

impl Producer {
    /// Returns a producer for the queue at `queue_url` that uses the region, the credentials and the HTTP client of
    /// `client`. It does not use the client's retries, because it retries itself.
    ///
    /// ```no_run
    /// # async fn example() {
    /// use streamer_producer::{Producer, aws_sdk_sqs::Client};
    ///
    /// let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    /// let client = Client::new(&config);
    /// let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound";
    /// let producer = Producer::new(&client, url);
    /// # }
    /// ```
    #[must_use]
    pub fn new(client: &Client, queue_url: impl Into<String>) -> Self {
        Self { batcher: Arc::new(Batcher::new(client, queue_url.into())), timeout: TIMEOUT }
    }

    /// Returns a producer for the queue at `queue_url` with a client of its own. The client reads region, credentials
    /// and endpoint from the environment, as all AWS SDKs do, and trusts the system's root certificates.
    ///
    /// ```no_run
    /// # async fn example() {
    /// use streamer_producer::Producer;
    ///
    /// let url = "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound";
    /// let producer = Producer::connect(url).await;
    /// # }
    /// ```
    pub async fn connect(queue_url: impl Into<String>) -> Self {
        let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).build_https();
        let config = aws_config::defaults(BehaviorVersion::v2026_01_12()).http_client(http).load().await;
        Self::new(&Client::new(&config), queue_url)
    }

    /// Sets the total time that a call of [`send`](Self::send) or [`send_all`](Self::send_all) may take, including
    /// retries. The default is 10 s. In Lambda, give a clone the time that is left of the invocation.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # use streamer_producer::{Message, Producer};
    /// # async fn example(producer: &Producer, message: Message) -> Result<(), streamer_producer::SendError> {
    /// producer.clone().timeout(Duration::from_secs(2)).send(message).await
    /// # }
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sends a message to the queue. `Ok` means that the queue has it for all its recipients.
    ///
    /// ```no_run
    /// # use streamer_producer::{Message, Producer};
    /// # async fn example(producer: &Producer) -> Result<(), Box<dyn std::error::Error>> {
    /// let message = Message::connection("L0SM9cOFvHcCIhw=").request("req_123").response("hello")?;
    /// producer.send(message).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendError`], also if the queue has the message for some of its recipients. To retry, send the message again
    /// with the same id: if the payload contains the id, clients can drop the second delivery.
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        let is_fifo = self.batcher.is_fifo();
        check(&message, is_fifo)?;
        let mut failure = None;
        let failed = |(), error| failure = Some(SendError::of_two(failure.take(), error));
        let entries = entries(message, is_fifo).map(|entry| ((), entry));
        self.batcher.send(entries, self.timeout, failed).await;
        failure.map_or(Ok(()), Err)
    }

    /// Sends messages to the queue, all of them within the [timeout](Self::timeout): for many thousands, increase it.
    /// `Ok` means that the queue has all of them.
    ///
    /// Messages of a request keep their order, on a FIFO queue those for a recipient. At most 16 batches of 10 messages
    /// and 1 MiB are begun at a time, so a `send` that begins meanwhile may pass the messages behind them.
    ///
    /// ```no_run
    /// # use streamer_producer::{Message, Producer};
    /// # async fn example(producer: &Producer, users: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
    /// let messages: Result<Vec<_>, _> =
    ///     users.into_iter().map(|user| Message::user("acme", user).payload("hello")).collect();
    /// if let Err(error) = producer.send_all(messages?).await {
    ///     for unsent in &error.unsent {
    ///         println!("{}: {}", unsent.id, unsent.error);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`SendAllError`] names the messages that are not on the queue: send those again, with the same ids.
    pub async fn send_all(&self, messages: impl IntoIterator<Item = Message>) -> Result<(), SendAllError> {
        let messages: Vec<_> = messages.into_iter().collect();
        let is_fifo = self.batcher.is_fifo();
        let mut errors: Vec<_> = messages.iter().map(|message| check(message, is_fifo).err()).collect();
        let ids: Vec<_> = messages.iter().map(|message| message.id().clone()).collect();
        let valid = messages.into_iter().enumerate().filter(|(_, message)| check(message, is_fifo).is_ok());
        let entries =
            valid.flat_map(|(index, message)| entries(message, is_fifo).map(move |entry| (index, entry)));
        let failed =
            |index: usize, error| errors[index] = Some(SendError::of_two(errors[index].take(), error));
        self.batcher.send(entries, self.timeout, failed).await;
        let total = ids.len();
        let unsent = ids.into_iter().zip(errors).filter_map(|(id, error)| Some(Unsent { id, error: error? }));
        let unsent: Vec<_> = unsent.collect();
        if unsent.is_empty() { Ok(()) } else { Err(SendAllError { total, unsent }) }
    }

    /// Refuses later sends, and waits until all sends in progress have completed or were dropped. It closes all clones.
    ///
    /// ```no_run
    /// # async fn example(producer: &streamer_producer::Producer) {
    /// producer.close().await;
    /// # }
    /// ```
    pub async fn close(&self) {
        self.batcher.close().await;
    }
}
