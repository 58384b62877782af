//! Sends dead letters to the outbound queue.

use std::{
    collections::HashSet,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::SystemTime,
};

use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use streamer_message::{Limit, MessageId, pack, sqs};

use super::{
    dead_letter::DeadLetter,
    outcome::{Handled, Outcome},
    queue::DeadLetterQueue,
};
use crate::aws::Call;

impl DeadLetterQueue {
    /// Returns whether the same message was sent back already: it failed again at once, or the queue has two copies.
    #[must_use]
    pub fn was_sent(&self, letter: &DeadLetter) -> bool {
        self.sent.contains(&hash(letter))
    }

    /// Sends dead letters to the outbound queue, and then deletes those that it confirmed, so that each is on at least
    /// one queue at any time. On a FIFO queue, a refusal also holds back the later messages of its group.
    pub async fn send_back(&mut self, letters: Vec<DeadLetter>) -> Handled {
        let mut handled = Handled::default();
        let mut waiting = letters;
        while !waiting.is_empty() {
            let (now, later) =
                if self.is_fifo() { split_first_of_groups(waiting) } else { (waiting, Vec::new()) };
            let mut refused = HashSet::new();
            for batch in pack(now, Limit::QUEUE_BATCH, |letter| letter.body.len()) {
                let confirmed = self.send(&batch, &mut handled).await;
                let sent: Vec<_> = confirmed.iter().map(|id| &batch[*id]).collect();
                self.sent.extend(sent.iter().map(|letter| hash(letter)));
                let deleted: HashSet<usize> =
                    self.delete(&sent, &mut handled).await.into_iter().map(|id| confirmed[id]).collect();
                for (id, letter) in batch.into_iter().enumerate() {
                    let outcome = match (confirmed.contains(&id), deleted.contains(&id)) {
                        (true, true) => Outcome::Sent,
                        (true, false) => Outcome::NotDeleted,
                        (false, _) => Outcome::Refused,
                    };
                    if outcome == Outcome::Refused {
                        refused.insert(letter.group.clone());
                    }
                    handled.letters.push((letter, outcome));
                }
            }
            let (held_back, next): (Vec<_>, _) =
                later.into_iter().partition(|letter| refused.contains(&letter.group));
            handled.letters.extend(held_back.into_iter().map(|letter| (letter, Outcome::Refused)));
            waiting = next;
        }
        handled
    }

    fn is_fifo(&self) -> bool {
        sqs::is_fifo(&self.outbound)
    }

    /// Sends a batch and returns the positions of the dead letters that the outbound queue confirmed.
    async fn send(&self, batch: &[DeadLetter], handled: &mut Handled) -> Vec<usize> {
        let now = SystemTime::now();
        let entries = batch.iter().enumerate();
        let entries = entries.filter_map(|(id, letter)| entry(id, letter, self.is_fifo(), now)).collect();
        let send = self.client.send_message_batch().queue_url(&self.outbound).set_entries(Some(entries));
        match send.send().await {
            Ok(output) => {
                handled.causes.extend(output.failed().iter().map(|failed| failed.code().to_owned()));
                let confirmed = output.successful().iter().filter_map(|entry| entry.id().parse().ok());
                confirmed.filter(|id| *id < batch.len()).collect()
            }
            Err(error) => {
                let resource = format!("queue {}", self.outbound);
                handled.failed(&Call { action: "sqs:SendMessage", resource: &resource }, &error);
                Vec::new()
            }
        }
    }
}

/// Splits dead letters into the first of each message group, and the others.
fn split_first_of_groups(letters: Vec<DeadLetter>) -> (Vec<DeadLetter>, Vec<DeadLetter>) {
    let mut groups = HashSet::new();
    letters.into_iter().partition(|letter| groups.insert(letter.group.clone()))
}

/// Returns a hash that copies of one message share, whatever their retry state.
fn hash(letter: &DeadLetter) -> u64 {
    let mut hasher = DefaultHasher::new();
    letter.body_without_retry().hash(&mut hasher);
    hasher.finish()
}

fn entry(
    id: usize,
    letter: &DeadLetter,
    fifo: bool,
    now: SystemTime,
) -> Option<SendMessageBatchRequestEntry> {
    let body = letter.redrive_body(now);
    let mut entry = sqs::batch_entry(id, body, letter.group.as_deref(), letter.trace.as_deref()).ok()?;
    if fifo {
        // SQS would drop the message if it still remembered its old deduplication id.
        entry = entry.message_deduplication_id(MessageId::generate().as_str());
    }
    entry.build().ok()
}
