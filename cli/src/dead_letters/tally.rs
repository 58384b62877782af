//! Counts dead letters by reason and cause.

use std::{collections::BTreeMap, time::SystemTime};

use super::dead_letter::DeadLetter;
use crate::screen::{age, sanitize};

/// Maximum number of lines.
const MAX_LINES: usize = 50;

/// Characters of a cause that a line shows.
const SHOWN_CAUSE_CHARACTERS: usize = 100;

/// Number of dead letters by reason and cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(String, String), TallyEntry>);

/// The dead letters of one reason and cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TallyEntry {
    /// The number of dead letters.
    pub count: usize,
    /// When a worker first received the oldest.
    pub oldest: SystemTime,
    /// The id and audience of the oldest.
    pub example: String,
    /// The worker's description of that one's cause.
    pub detail: String,
}

impl Tally {
    /// Counts a dead letter.
    pub fn add(&mut self, letter: &DeadLetter) {
        let example = || letter.envelope.as_ref().map_or_else(|| letter.id().to_owned(), ToString::to_string);
        let entry = self.0.entry((letter.reason.clone(), letter.cause())).or_insert_with(|| TallyEntry {
            count: 0,
            oldest: letter.since,
            example: example(),
            detail: letter.detail.clone(),
        });
        entry.count += 1;
        if letter.since < entry.oldest {
            (entry.oldest, entry.example, entry.detail) = (letter.since, example(), letter.detail.clone());
        }
    }

    /// Returns the number of dead letters.
    #[must_use]
    pub fn total(&self) -> usize {
        self.0.values().map(|entry| entry.count).sum()
    }

    /// Returns when a worker first received the oldest dead letter.
    #[must_use]
    pub fn oldest(&self) -> Option<SystemTime> {
        self.0.values().map(|entry| entry.oldest).min()
    }

    /// Returns the number of dead letters by reason.
    #[must_use]
    pub fn by_reason(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for ((reason, _), entry) in &self.0 {
            *reasons.entry(reason.as_str()).or_default() += entry.count;
        }
        reasons
    }

    /// Returns a table with a header, and a line for each reason and cause.
    #[must_use]
    pub fn lines(&self, now: SystemTime) -> Vec<String> {
        let line = |[count, reason, oldest, example, cause]: [&str; 5]| {
            format!("{count:>7}  {reason:<20}  {oldest:<11}  {example:<40}  {cause}")
        };
        let mut lines = vec![line(["COUNT", "REASON", "OLDEST", "EXAMPLE", "CAUSE"])];
        for ((reason, _), TallyEntry { count, oldest, example, detail }) in self.0.iter().take(MAX_LINES) {
            let age = age(now.duration_since(*oldest).unwrap_or_default());
            let cause: String = sanitize(detail).chars().take(SHOWN_CAUSE_CHARACTERS).collect();
            let cause = if cause.is_empty() { "-" } else { &cause };
            lines.push(line([&count.to_string(), &sanitize(reason), &age, &sanitize(example), cause]));
        }
        if self.0.len() > MAX_LINES {
            let more = self.0.len() - MAX_LINES;
            lines.push(format!("         and {more} more causes: narrow the list with --reason"));
        }
        lines
    }
}
