//! SQS and Lambda's event source mapping around a worker, in virtual time: a standard or FIFO queue in memory, with its
//! dead-letter queue.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use streamer_events::{Body, SqsEvent, SqsRecord};
use tokio::time::{Instant, sleep};

use crate::{
    doubles::{Entry, QueueDouble},
    event::{EPOCH_MILLIS, epoch},
};

/// Largest batch.
const BATCH: usize = 10;

/// The queue's visibility timeout.
const VISIBILITY: Duration = Duration::from_secs(180);

/// A queue and its dead-letter queue. All clones are the same queue.
#[derive(Clone)]
pub struct Sqs {
    fifo: bool,
    max_receives: u32,
    began: Instant,
    /// The ARN in its records.
    arn: Option<String>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How far the queue's clock is ahead of the worker's, whose execution environment freezes.
    ahead: Duration,
    next: usize,
    waiting: Vec<Waiting>,
    dead: Vec<String>,
    sent: usize,
}

/// A message on the queue.
#[derive(Debug, Clone)]
struct Waiting {
    id: usize,
    body: String,
    group: Option<String>,
    sent_at: Instant,
    visible_at: Instant,
    first_received_at: Option<Instant>,
    receives: u32,
}

impl Sqs {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(fifo: bool) -> Self {
        let max_receives = if fifo { 1000 } else { 10 };
        Self { fifo, max_receives, began: Instant::now(), arn: None, state: Arc::default() }
    }

    /// Names the queue in its records.
    #[must_use]
    pub fn named(self, arn: &str) -> Self {
        Self { arn: Some(arn.to_owned()), ..self }
    }

    /// Returns the wall-clock time.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        epoch() + (self.instant() - self.began)
    }

    /// Returns the time of the queue's clock, which runs while the execution environment is frozen.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant::now() + self.locked().ahead
    }

    /// Advances the queue's clock to `until`. The worker's clock stops meanwhile if its environment is `frozen`.
    pub async fn wait(&self, until: Instant, frozen: bool) {
        let left = until.saturating_duration_since(self.instant());
        match frozen {
            true => self.locked().ahead += left,
            false => sleep(left).await,
        }
    }

    /// Puts a message on the queue.
    pub fn send(&self, body: impl Into<String>, group: Option<&str>, delay: Duration) {
        let now = self.instant();
        let mut state = self.locked();
        state.next += 1;
        let waiting = Waiting {
            id: state.next,
            body: body.into(),
            group: group.map(str::to_owned),
            sent_at: now,
            visible_at: now + delay,
            first_received_at: None,
            receives: 0,
        };
        state.waiting.push(waiting);
    }

    /// Returns the test double of the outbound queue. `decide` returns for each entry whether the queue accepts it,
    /// and the answer. `hides` returns whether a visibility change takes effect.
    pub fn outbound(
        &self,
        decide: impl Fn(&SendMessageBatchRequestEntry) -> (bool, Entry) + Send + Sync + 'static,
        hides: impl Fn() -> bool + Send + Sync + 'static,
    ) -> QueueDouble {
        let (queue, hiding) = (self.clone(), self.clone());
        let double = QueueDouble::new(move |entry| {
            let (accepts, answer) = decide(entry);
            if accepts {
                let delay = u64::try_from(entry.delay_seconds().unwrap_or_default()).unwrap_or_default();
                queue.send(entry.message_body(), entry.message_group_id(), Duration::from_secs(delay));
                queue.locked().sent += 1;
            }
            answer
        });
        double.hiding(move |receipt, seconds| {
            if hides() {
                hiding.hide(receipt, seconds);
            }
        })
    }

    /// Returns the test double of the dead-letter queue. `decide` returns for each entry whether the queue accepts
    /// it, and the answer.
    pub fn dead_letters(
        &self,
        decide: impl Fn(&SendMessageBatchRequestEntry) -> (bool, Entry) + Send + Sync + 'static,
    ) -> QueueDouble {
        let queue = self.clone();
        QueueDouble::new(move |entry| {
            let (accepts, answer) = decide(entry);
            if accepts {
                queue.locked().dead.push(entry.message_body().to_owned());
            }
            answer
        })
    }

    /// Returns when the next message becomes visible, unless the queue is empty.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.locked().waiting.iter().map(|message| message.visible_at).min()
    }

    /// Receives the next batch, as the event of an invocation.
    #[must_use]
    pub fn receive(&self) -> SqsEvent {
        let now = self.instant();
        let mut state = self.locked();
        let mut blocked: BTreeSet<Option<String>> = BTreeSet::new();
        let mut event = SqsEvent::default();
        let (mut kept, mut dead) = (Vec::new(), Vec::new());
        for mut message in std::mem::take(&mut state.waiting) {
            let visible = message.visible_at <= now && !blocked.contains(&message.group);
            if self.fifo && !visible {
                blocked.insert(message.group.clone());
            }
            if visible && message.receives >= self.max_receives {
                dead.push(message.body);
                continue;
            }
            if visible && event.records.len() < BATCH {
                message.receives += 1;
                message.first_received_at.get_or_insert(now);
                message.visible_at = now + VISIBILITY;
                event.records.push(self.record(&message));
            }
            kept.push(message);
        }
        state.waiting = kept;
        state.dead.extend(dead);
        event
    }

    fn record(&self, message: &Waiting) -> SqsRecord {
        let millis = |at: Instant| (EPOCH_MILLIS + (at - self.began).as_millis() as u64).to_string();
        let attributes = [
            ("ApproximateReceiveCount", message.receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", message.first_received_at.map(millis).unwrap_or_default()),
            ("SentTimestamp", millis(message.sent_at)),
            ("MessageGroupId", message.group.clone().unwrap_or_default()),
        ];
        SqsRecord {
            message_id: Some(message.id.to_string()),
            receipt_handle: Some(message.id.to_string()),
            queue_arn: self.arn.clone(),
            body: Body::Text(message.body.clone()),
            attributes: attributes.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    fn hide(&self, receipt: &str, seconds: i32) {
        let until = self.instant() + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let mut state = self.locked();
        let hidden = state.waiting.iter_mut().filter(|message| message.id.to_string() == receipt);
        hidden.for_each(|message| message.visible_at = until);
    }

    /// Deletes a batch except the reported records.
    pub fn acknowledge(&self, event: &SqsEvent, reported: &BTreeSet<String>) {
        let acknowledged = event.records.iter().filter_map(|record| record.message_id.as_ref());
        let acknowledged: BTreeSet<_> = acknowledged.filter(|id| !reported.contains(*id)).cloned().collect();
        self.locked().waiting.retain(|message| !acknowledged.contains(&message.id.to_string()));
    }

    /// Returns the age of the oldest message as `ApproximateAgeOfOldestMessage` shows it: SQS leaves out messages that
    /// were received more than three times.
    #[must_use]
    pub fn age_of_oldest(&self) -> Duration {
        let now = self.instant();
        let state = self.locked();
        let seen = state.waiting.iter().filter(|message| message.receives <= 3);
        seen.map(|message| now.saturating_duration_since(message.sent_at)).max().unwrap_or_default()
    }

    /// Returns the bodies on the queue, received or not.
    #[must_use]
    pub fn bodies(&self) -> Vec<String> {
        self.locked().waiting.iter().map(|message| message.body.clone()).collect()
    }

    /// Returns the bodies on the dead-letter queue.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        self.locked().dead.clone()
    }

    /// Returns the number of messages that the worker has sent to the outbound queue.
    #[must_use]
    pub fn sent_again(&self) -> usize {
        self.locked().sent
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
