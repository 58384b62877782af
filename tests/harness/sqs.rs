//! What SQS and Lambda's event source mapping do with messages around a worker, in virtual time: a standard or
//! a FIFO queue in memory, with its dead-letter queue.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::{SqsEvent, SqsMessage};
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use tokio::time::{Instant, sleep};

use crate::{
    doubles::{Entry, QueueDouble},
    event::{EPOCH_MILLIS, epoch},
};

/// Messages in a batch, at most.
const BATCH: usize = 10;

/// How long a received message is hidden.
const VISIBILITY: Duration = Duration::from_secs(180);

/// A queue and its dead-letter queue. Cheap to clone: all clones are the same queue.
#[derive(Clone)]
pub struct Sqs {
    fifo: bool,
    max_receives: u32,
    began: Instant,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// How far the queue's clock is ahead of the one that the worker's environment has.
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
    /// An empty queue.
    #[must_use]
    pub fn new(fifo: bool) -> Self {
        let max_receives = if fifo { 1000 } else { 10 };
        Self { fifo, max_receives, began: Instant::now(), state: Arc::default() }
    }

    /// The wall clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        epoch() + (self.instant() - self.began)
    }

    /// The queue's own clock, which no freeze stops.
    #[must_use]
    pub fn instant(&self) -> Instant {
        Instant::now() + self.locked().ahead
    }

    /// Waits until the queue's clock shows `until`: while it does, the workers' clock stands still if they are `frozen`.
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

    /// The queue as the worker sees it. `decide` says of each entry whether the queue takes it, and what it
    /// answers; `hides` says whether it hides what it is asked to.
    pub fn outbound(
        &self,
        decide: impl Fn(&SendMessageBatchRequestEntry) -> (bool, Entry) + Send + Sync + 'static,
        hides: impl Fn() -> bool + Send + Sync + 'static,
    ) -> QueueDouble {
        let (queue, hiding) = (self.clone(), self.clone());
        let double = QueueDouble::new(move |entry| {
            let (takes, answer) = decide(entry);
            if takes {
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

    /// The dead-letter queue as the worker sees it.
    pub fn dead_letters(
        &self,
        decide: impl Fn(&SendMessageBatchRequestEntry) -> (bool, Entry) + Send + Sync + 'static,
    ) -> QueueDouble {
        let queue = self.clone();
        QueueDouble::new(move |entry| {
            let (takes, answer) = decide(entry);
            if takes {
                queue.locked().dead.push(entry.message_body().to_owned());
            }
            answer
        })
    }

    /// When the next message can be received; none where the queue is empty.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.locked().waiting.iter().map(|message| message.visible_at).min()
    }

    /// The next batch, as Lambda hands it to a function.
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

    fn record(&self, message: &Waiting) -> SqsMessage {
        let millis = |at: Instant| (EPOCH_MILLIS + (at - self.began).as_millis() as u64).to_string();
        let attributes = [
            ("ApproximateReceiveCount", message.receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", message.first_received_at.map(millis).unwrap_or_default()),
            ("SentTimestamp", millis(message.sent_at)),
            ("MessageGroupId", message.group.clone().unwrap_or_default()),
        ];
        let mut record = SqsMessage::default();
        record.message_id = Some(message.id.to_string());
        record.receipt_handle = Some(message.id.to_string());
        record.body = Some(message.body.clone());
        record.attributes = attributes.map(|(name, value)| (name.to_owned(), value)).into();
        record
    }

    fn hide(&self, receipt: &str, seconds: i32) {
        let until = self.instant() + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        let mut state = self.locked();
        let hidden = state.waiting.iter_mut().filter(|message| message.id.to_string() == receipt);
        hidden.for_each(|message| message.visible_at = until);
    }

    /// Deletes a batch, but for what is reported.
    pub fn acknowledge(&self, event: &SqsEvent, reported: &BTreeSet<String>) {
        let done = event.records.iter().filter_map(|record| record.message_id.as_ref());
        let done: BTreeSet<_> = done.filter(|id| !reported.contains(*id)).cloned().collect();
        self.locked().waiting.retain(|message| !done.contains(&message.id.to_string()));
    }

    /// The bodies on the queue, received or not.
    #[must_use]
    pub fn bodies(&self) -> Vec<String> {
        self.locked().waiting.iter().map(|message| message.body.clone()).collect()
    }

    /// The bodies on the dead-letter queue.
    #[must_use]
    pub fn dead(&self) -> Vec<String> {
        self.locked().dead.clone()
    }

    /// How many messages the worker has sent again.
    #[must_use]
    pub fn sent_again(&self) -> usize {
        self.locked().sent
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
