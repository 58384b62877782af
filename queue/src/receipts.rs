//! The queue for receipts.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use streamer_environment::{Environment, Faulty, Variable, values};
use streamer_message::{Receipt, ReceiptEvent};
use tokio::time::Instant;

use crate::{Outgoing, Queue, QueueKind};

/// The URL of the receipts queue.
pub const RECEIPTS_QUEUE_URL: Variable = Variable {
    name: "RECEIPTS_QUEUE_URL",
    expected: "the URL of the queue for receipts, a standard queue; without it, receipts that producers ask for are \
               counted and dropped",
    example: "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-receipts",
};

/// Maximum time for which an invocation tries to send receipts.
const SEND_TIME: Duration = Duration::from_secs(2);

/// Time after a failure during which no receipt is sent, so that a queue that is away delays few invocations.
const PAUSE: Duration = Duration::from_secs(10);

/// Reads [`RECEIPTS_QUEUE_URL`].
///
/// # Errors
/// [`Faulty`] if it is malformed, or the URL of a FIFO queue.
pub fn receipts_queue_url(environment: &mut Environment) -> Result<Option<String>, Faulty> {
    let standard =
        |text: &str| values::http_url(text).filter(|url| QueueKind::of_url(url) == QueueKind::Standard);
    environment.optional(&RECEIPTS_QUEUE_URL, standard)
}

/// The receipts queue of a deployment, which may have none.
#[derive(Debug)]
pub struct ReceiptsQueue {
    queue: Option<Queue>,
    /// The deployment's stage, which events name as their source.
    stage: String,
    /// When receipts are sent again after a failure, by the wall clock: the monotonic clock may stop while Lambda
    /// freezes the environment.
    paused_until: Mutex<Option<SystemTime>>,
    /// Whether the missing queue was logged.
    has_warned: AtomicBool,
}

/// The result of sending receipts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SentReceipts {
    /// The number of receipts that SQS has confirmed.
    pub confirmed: usize,
    /// The number of receipts that were dropped, because the deployment has no receipts queue.
    pub without_queue: usize,
    /// The indexes of the receipts that SQS has not confirmed.
    pub unconfirmed: BTreeSet<usize>,
}

impl ReceiptsQueue {
    /// Returns the receipts queue of the deployment with this stage.
    #[must_use]
    pub fn new(queue: Option<Queue>, stage: impl Into<String>) -> Self {
        Self {
            queue,
            stage: stage.into(),
            paused_until: Mutex::default(),
            has_warned: AtomicBool::new(false),
        }
    }

    /// Returns the event that carries a receipt.
    #[must_use]
    pub fn event(&self, receipt: Receipt) -> ReceiptEvent {
        ReceiptEvent::new(&self.stage, receipt)
    }

    /// Sends receipts for up to 2 s, and for up to half of the time until `deadline`, so that its caller has the other
    /// half to put those that are not confirmed elsewhere. After a failure, it sends none for 10 s. `now` is the wall
    /// clock.
    ///
    /// Without a receipts queue, it drops them, and logs a warning the first time.
    pub async fn send(&self, receipts: &[Outgoing], now: SystemTime, deadline: Instant) -> SentReceipts {
        if receipts.is_empty() {
            return SentReceipts::default();
        }
        // A clock that was set back must not lengthen the pause.
        if self.paused_until().is_some_and(|until| now < until && until <= now + PAUSE) {
            let unconfirmed = receipts.iter().map(|receipt| receipt.index).collect();
            return SentReceipts { unconfirmed, ..SentReceipts::default() };
        }
        let Some(queue) = &self.queue else {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                tracing::warn!(
                    "a message asks for a receipt, and there is no receipts queue: set RECEIPTS_QUEUE_URL"
                );
            }
            return SentReceipts { without_queue: receipts.len(), ..SentReceipts::default() };
        };
        let began = Instant::now();
        let half = deadline.saturating_duration_since(began) / 2;
        let unconfirmed = queue.send(receipts, began + half.min(SEND_TIME)).await;
        let confirmed = receipts.iter().filter(|receipt| !unconfirmed.contains(&receipt.index)).count();
        *self.paused_until() = (confirmed == 0).then(|| now + PAUSE);
        SentReceipts { confirmed, unconfirmed, without_queue: 0 }
    }

    fn paused_until(&self) -> MutexGuard<'_, Option<SystemTime>> {
        self.paused_until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
