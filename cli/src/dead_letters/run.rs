//! Goes through the dead-letter queue once.

use std::{collections::BTreeSet, ops::ControlFlow, pin::pin};

use futures::FutureExt as _;
use serde::Serialize;

use super::{
    dead_letter::DeadLetter,
    filter::Filter,
    outcome::{Handled, Outcome},
    queue::DeadLetterQueue,
    tally::Tally,
};

/// Minimum number of dead letters to inspect, if there are so many. The maximum is the queue's count at the start, so
/// that dead letters that arrive meanwhile cannot keep a run going.
const MIN_INSPECTED: usize = 100;

/// The action of a run on the dead letters that match.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lists them.
    #[default]
    List,
    /// Sends them back to the outbound queue.
    Send,
    /// Deletes them for good.
    Drop,
}

/// Numbers of dead letters, each of which is counted once.
///
/// `matching` is the sum of `sent`, `not_deleted` and `refused` if the run sends, and of `dropped` and `not_dropped` if
/// it drops.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Dead letters that were received, without those that `returned`.
    pub inspected: usize,
    /// Dead letters that match the filter.
    pub matching: usize,
    /// Sent to the outbound queue and deleted here.
    pub sent: usize,
    /// Sent to the outbound queue, but not deleted here.
    pub not_deleted: usize,
    /// Not accepted by the outbound queue.
    pub refused: usize,
    /// Deleted for good.
    pub dropped: usize,
    /// Could not be deleted.
    pub not_dropped: usize,
    /// Dead letters with a message that this run had sent back: it failed again at once, or there were two copies.
    pub returned: usize,
}

/// A run, with its results so far.
#[derive(Debug, Default)]
pub struct Run {
    action: Action,
    filter: Filter,
    /// Numbers of dead letters.
    pub totals: Totals,
    /// The dead letters that match.
    pub tally: Tally,
    /// Causes of failures.
    pub causes: BTreeSet<String>,
}

impl Run {
    /// Creates a run that does `action` with the dead letters that match `filter`.
    #[must_use]
    pub fn new(action: Action, filter: Filter) -> Self {
        Self { action, filter, ..Self::default() }
    }

    /// Goes through the queue until it is empty, `stop` completes, or `observe`, which gets the matching dead letters
    /// with their outcomes, breaks. Returns the result of `stop` if that ended the run. The dead letters that are left
    /// have to be [released](DeadLetterQueue::release).
    ///
    /// # Errors
    /// When SQS does not answer.
    pub async fn process<S>(
        &mut self,
        queue: &mut DeadLetterQueue,
        stop: impl Future<Output = S>,
        mut observe: impl FnMut(&Totals, Vec<(DeadLetter, Outcome)>) -> ControlFlow<()>,
    ) -> anyhow::Result<Option<S>> {
        let mut stop = pin!(stop);
        let max_inspected = queue.counts().await?.waiting.max(MIN_INSPECTED);
        while self.totals.inspected < max_inspected {
            if let Some(stopped) = stop.as_mut().now_or_never() {
                return Ok(Some(stopped));
            }
            let letters = queue.receive().await?;
            if letters.is_empty() {
                break;
            }
            let matching = self.select(letters, queue);
            let handled = self.handle(matching, queue).await;
            let is_final = handled.is_final;
            self.totals.add(&handled.letters);
            self.causes.extend(handled.causes);
            if observe(&self.totals, handled.letters).is_break() || is_final {
                break;
            }
        }
        Ok(None)
    }

    /// Counts dead letters and returns those that match the filter.
    fn select(&mut self, letters: Vec<DeadLetter>, queue: &DeadLetterQueue) -> Vec<DeadLetter> {
        let mut matching = Vec::new();
        for letter in letters {
            if queue.was_sent(&letter) {
                // Sending it again could loop forever.
                self.totals.returned += 1;
                continue;
            }
            self.totals.inspected += 1;
            if self.filter.matches(&letter) {
                self.tally.add(&letter);
                matching.push(letter);
            }
        }
        matching
    }

    async fn handle(&self, letters: Vec<DeadLetter>, queue: &mut DeadLetterQueue) -> Handled {
        match self.action {
            Action::List => {
                let letters = letters.into_iter().map(|letter| (letter, Outcome::Listed)).collect();
                Handled { letters, ..Handled::default() }
            }
            Action::Send => queue.send_back(letters).await,
            Action::Drop => queue.drop_letters(letters).await,
        }
    }
}

impl Totals {
    fn add(&mut self, letters: &[(DeadLetter, Outcome)]) {
        self.matching += letters.len();
        for (_, outcome) in letters {
            match outcome {
                Outcome::Listed => {}
                Outcome::Sent => self.sent += 1,
                Outcome::NotDeleted => self.not_deleted += 1,
                Outcome::Refused => self.refused += 1,
                Outcome::Dropped => self.dropped += 1,
                Outcome::NotDropped => self.not_dropped += 1,
            }
        }
    }
}
