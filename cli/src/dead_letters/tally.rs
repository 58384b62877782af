//! What dead letters there are, by reason and cause.

use std::{collections::BTreeMap, time::SystemTime};

use super::Letter;
use crate::screen::{age, shown};

/// Lines, at most.
const LINES: usize = 50;

/// Characters of a cause that are shown.
const CAUSE: usize = 100;

/// How many letters there are, by reason and cause.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally(BTreeMap<(String, String), Kind>);

/// Letters of one reason and cause.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    /// How many.
    pub letters: usize,
    /// The time of the oldest.
    pub oldest: SystemTime,
    /// One of them.
    pub example: String,
    /// What the worker said of it.
    pub detail: String,
}

impl Tally {
    /// Counts a letter.
    pub fn add(&mut self, letter: &Letter) {
        let example = || letter.source.as_ref().map_or_else(|| letter.id().to_owned(), ToString::to_string);
        let kind = self.0.entry((letter.reason.clone(), letter.cause())).or_insert_with(|| Kind {
            letters: 0,
            oldest: letter.since,
            example: example(),
            detail: letter.detail.clone(),
        });
        kind.letters += 1;
        if letter.since < kind.oldest {
            (kind.oldest, kind.example, kind.detail) = (letter.since, example(), letter.detail.clone());
        }
    }

    /// All that were counted.
    #[must_use]
    pub fn letters(&self) -> usize {
        self.0.values().map(|kind| kind.letters).sum()
    }

    /// The time of the oldest, if there is one.
    #[must_use]
    pub fn oldest(&self) -> Option<SystemTime> {
        self.0.values().map(|kind| kind.oldest).min()
    }

    /// How many there are of each reason.
    #[must_use]
    pub fn by_reason(&self) -> BTreeMap<&str, usize> {
        let mut reasons = BTreeMap::new();
        for ((reason, _), kind) in &self.0 {
            *reasons.entry(reason.as_str()).or_default() += kind.letters;
        }
        reasons
    }

    /// A line for each reason and cause, under a line that says what stands in them.
    #[must_use]
    pub fn lines(&self, now: SystemTime) -> Vec<String> {
        let line = |[letters, reason, oldest, example, cause]: [&str; 5]| {
            format!("{letters:>7}  {reason:<20}  {oldest:<11}  {example:<40}  {cause}")
        };
        let mut lines = vec![line(["LETTERS", "REASON", "OLDEST", "EXAMPLE", "ITS CAUSE"])];
        for ((reason, _), Kind { letters, oldest, example, detail }) in self.0.iter().take(LINES) {
            let age = age(now.duration_since(*oldest).unwrap_or_default());
            let cause: String = shown(detail).chars().take(CAUSE).collect();
            let cause = if cause.is_empty() { "-" } else { &cause };
            lines.push(line([&letters.to_string(), &shown(reason), &age, &shown(example), cause]));
        }
        if self.0.len() > LINES {
            lines.push(format!("         and {} more causes: say --reason", self.0.len() - LINES));
        }
        lines
    }
}
