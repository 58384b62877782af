//! Waits for the receipts of messages that were sent.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    pin::pin,
    time::Duration,
};

use futures::FutureExt as _;
use streamer_message::{MessageId, OutcomeCounts, Receipt, ReceiptOutcome, ReceiptTally};
use tokio::time::{Instant, sleep};

use crate::queue::{HeldQueue, Received};

/// Longest time for which receipts of other messages are held. Released at once, they would be received again and again,
/// and hide the receipts behind them.
const PASS: Duration = Duration::from_secs(5);

/// Time in which other consumers can take the receipts that were released.
const PAUSE: Duration = Duration::from_millis(100);

/// The receipts of some messages, so far.
#[derive(Debug)]
pub struct Wait {
    messages: BTreeMap<MessageId, Awaited>,
    /// The messages without all of their receipts.
    open: HashSet<MessageId>,
    /// Why receipts could not be deleted.
    pub causes: BTreeSet<String>,
}

/// The receipts of a message, so far.
#[derive(Debug, Default)]
struct Awaited {
    tally: ReceiptTally,
    is_kept: bool,
    cause: Option<String>,
}

/// The outcome of a message.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether all receipts have come.
    pub is_complete: bool,
    /// The best outcome. `None` without a receipt.
    pub best: Option<ReceiptOutcome>,
    /// The number of connections for each outcome. A part of the message that met no connection counts as one, unless it
    /// has no recipient.
    pub counts: OutcomeCounts,
    /// Whether the mailbox has the message.
    pub is_kept: bool,
    /// The cause of a failure.
    pub cause: Option<String>,
}

impl Wait {
    /// Creates the wait for the receipts of the messages with these ids.
    #[must_use]
    pub fn new(ids: impl IntoIterator<Item = MessageId>) -> Self {
        let messages: BTreeMap<_, _> = ids.into_iter().map(|id| (id, Awaited::default())).collect();
        let open = messages.keys().cloned().collect();
        Self { messages, open, causes: BTreeSet::new() }
    }

    /// Takes the receipts of the messages from the queue, until all have come, `limit` has passed, or `stop` completes.
    /// Returns the result of `stop` if that ended it. Receipts of other messages are released after at most 5 s, and the
    /// caller [releases](HeldQueue::release) the last ones.
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn run<S>(
        &mut self,
        queue: &mut HeldQueue,
        limit: Duration,
        stop: impl Future<Output = S>,
    ) -> anyhow::Result<Option<S>> {
        let (mut stop, began) = (pin!(stop), Instant::now());
        let mut pass = began;
        loop {
            let received = queue.poll().await?;
            let own = self.add(&received);
            if !own.is_empty() {
                self.causes.extend(queue.delete(&own).await.causes);
            }
            if self.open.is_empty() || began.elapsed() >= limit {
                return Ok(None);
            }
            // A receive that is interrupted would leave messages hidden.
            if let Some(stopped) = stop.as_mut().now_or_never() {
                return Ok(Some(stopped));
            }
            if received.is_empty() || queue.is_full() || pass.elapsed() >= PASS {
                queue.release().await;
                sleep(PAUSE).await;
                pass = Instant::now();
            }
        }
    }

    /// Adds receipts, and returns SQS's ids of those that belong to the messages.
    fn add<'a>(&mut self, received: &'a [Received]) -> Vec<&'a str> {
        let mut own = Vec::new();
        for Received { id, body, .. } in received {
            let Ok(receipt) = Receipt::decode(body) else { continue };
            let Some(message) = self.messages.get_mut(&receipt.id) else { continue };
            own.push(id.as_str());
            let message_id = receipt.id.clone();
            message.add(receipt);
            if message.tally.is_complete() {
                self.open.remove(&message_id);
            }
        }
        own
    }

    /// Returns the outcome of each message.
    #[must_use]
    pub fn outcomes(&self) -> Vec<Outcome> {
        self.messages.iter().map(|(id, message)| message.outcome(!self.open.contains(id))).collect()
    }
}

impl Awaited {
    fn add(&mut self, mut receipt: Receipt) {
        use ReceiptOutcome::{Acknowledged, Expanded, NoRecipient};

        self.is_kept |= receipt.kept.is_some() || receipt.outcome == ReceiptOutcome::Kept;
        if let Some(cause) = &receipt.cause {
            self.cause.get_or_insert_with(|| cause.clone());
        }
        let has_no_count = matches!(receipt.outcome, Acknowledged | Expanded | NoRecipient);
        if receipt.connections.is_empty() && !has_no_count {
            receipt.connections.insert(receipt.outcome, 1);
        }
        self.tally.add(receipt);
    }

    fn outcome(&self, is_complete: bool) -> Outcome {
        let (best, mut counts) = (self.tally.outcome(), self.tally.connections());
        if let Some(best) = best.filter(|best| counts.is_empty() && *best != ReceiptOutcome::Expanded) {
            counts.insert(best, 1);
        }
        // A message that was redriven may have ended better.
        let has_failed = counts.keys().chain(&best).any(|outcome| has_cause(*outcome));
        let cause = self.cause.clone().filter(|_| has_failed);
        Outcome { is_complete, best, counts, is_kept: self.is_kept, cause }
    }
}

fn has_cause(outcome: ReceiptOutcome) -> bool {
    use ReceiptOutcome::{Exhausted, Poison, Rejected};

    matches!(outcome, Exhausted | Poison | Rejected)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn outcome(receipts: &[Value]) -> Outcome {
        let mut wait = Wait::new([MessageId::new("m").unwrap()]);
        for receipt in receipts {
            let mut data = json!({"version": 1, "id": "m", "at": 1});
            data.as_object_mut().unwrap().extend(receipt.as_object().unwrap().clone());
            let message = wait.messages.values_mut().next().unwrap();
            message.add(serde_json::from_value(data).unwrap());
            if message.tally.is_complete() {
                wait.open.clear();
            }
        }
        wait.outcomes().remove(0)
    }

    fn counts(expected: &[(ReceiptOutcome, u64)]) -> OutcomeCounts {
        expected.iter().copied().collect()
    }

    #[test]
    fn failed_part_is_counted_once() {
        use ReceiptOutcome::{Delivered, Exhausted};

        let outcome = outcome(&[
            json!({"outcome": "expanded", "parts": {"prefix": "a", "count": 3}}),
            json!({"outcome": "delivered", "connections": {"delivered": 7}, "part": "a.0"}),
            json!({"outcome": "no_recipient", "part": "a.1"}),
            json!({"outcome": "exhausted", "cause": "table", "part": "a.2"}),
        ]);
        assert_eq!(outcome.counts, counts(&[(Delivered, 7), (Exhausted, 1)]));
        assert_eq!((outcome.best, outcome.cause.as_deref()), (Some(Delivered), Some("table")));
        assert!(outcome.is_complete);
    }

    #[test]
    fn audience_without_connections_counts_once() {
        use ReceiptOutcome::NoRecipient;

        let whole = outcome(&[json!({"outcome": "no_recipient"})]);
        assert_eq!((whole.best, whole.counts), (Some(NoRecipient), counts(&[(NoRecipient, 1)])));
        let split = outcome(&[json!({"outcome": "expanded", "parts": {"prefix": "a", "count": 1}})]);
        assert_eq!((split.is_complete, split.counts), (false, counts(&[])));
    }

    #[test]
    fn better_outcome_has_no_cause() {
        let exhausted = json!({"outcome": "exhausted", "cause": "503", "connections": {"exhausted": 1}});
        assert_eq!(outcome(std::slice::from_ref(&exhausted)).cause.as_deref(), Some("503"));
        let redriven =
            outcome(&[exhausted, json!({"outcome": "delivered", "connections": {"delivered": 1}})]);
        assert_eq!((redriven.best, redriven.cause), (Some(ReceiptOutcome::Delivered), None));
    }

    #[test]
    fn acknowledgment_is_not_the_outcome() {
        let acknowledged = json!({"outcome": "acknowledged", "connection": "c="});
        assert_eq!(outcome(std::slice::from_ref(&acknowledged)).best, None);
        let kept = outcome(&[acknowledged, json!({"outcome": "kept", "kept": {"epoch": "e.0", "seq": 1}})]);
        assert!(kept.is_complete && kept.is_kept && kept.best == Some(ReceiptOutcome::Kept), "{kept:?}");
    }
}
