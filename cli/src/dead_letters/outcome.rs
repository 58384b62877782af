//! Results of sending back or dropping dead letters.

use std::{collections::BTreeSet, error::Error, fmt::Debug};

use aws_sdk_sqs::error::{ProvideErrorMetadata, SdkError};
use serde::Serialize;
use streamer_environment::failure::FailureKind;

use super::dead_letter::DeadLetter;
use crate::aws::Call;

/// The result of a run for a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is unchanged.
    Listed,
    /// It was sent to the outbound queue and deleted here.
    Sent,
    /// It was sent to the outbound queue but could not be deleted here. Sent back again, it has the same id.
    NotDeleted,
    /// The outbound queue did not accept it. It is still here.
    Refused,
    /// It was deleted for good.
    Dropped,
    /// It could not be deleted. It is still here.
    NotDropped,
}

/// Dead letters with their outcomes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Handled {
    /// Each dead letter, and its result.
    pub letters: Vec<(DeadLetter, Outcome)>,
    /// Causes of failures.
    pub causes: BTreeSet<String>,
    /// Whether a call failed that would fail again for other dead letters.
    pub is_final: bool,
}

impl Handled {
    /// Returns the number of dead letters with this outcome.
    #[must_use]
    pub fn count(&self, outcome: Outcome) -> usize {
        self.letters.iter().filter(|(_, found)| *found == outcome).count()
    }

    pub(super) fn failed<E, R>(&mut self, call: &Call<'_>, error: &SdkError<E, R>)
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: Debug + 'static,
    {
        self.is_final |= !FailureKind::of(error).is_transient();
        self.causes.insert(call.failed(error).to_string());
    }
}
