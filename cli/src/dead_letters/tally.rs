//! Counts dead letters by reason and cause.

use std::{collections::BTreeMap, time::SystemTime};

use super::dead_letter::DeadLetter;
use crate::{
    layout::{Column, Table, fit},
    screen::{age, sanitize},
};

/// Maximum number of rows on a terminal.
const MAX_ROWS: usize = 50;

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

    /// Returns a table with a header, and a row for each reason and cause, which fits into `width` columns. Without a
    /// width it has every row.
    #[must_use]
    pub fn lines(&self, now: SystemTime, width: Option<usize>) -> Vec<String> {
        let mut table = Table::new(&[
            Column::right("COUNT", 7),
            Column::left("REASON", 20),
            Column::left("OLDEST", 11),
            Column::left("EXAMPLE", 40),
            Column::left("CAUSE", 0),
        ]);
        let shown = width.map_or(usize::MAX, |_| MAX_ROWS);
        for ((reason, _), TallyEntry { count, oldest, example, detail }) in self.0.iter().take(shown) {
            let age = age(now.duration_since(*oldest).unwrap_or_default());
            let cause = if detail.is_empty() { "-".to_owned() } else { sanitize(detail) };
            table.row([count.to_string(), sanitize(reason), age, sanitize(example), cause]);
        }
        let mut lines = table.lines(0, width);
        let more: Vec<_> = self.0.values().skip(shown).map(|entry| entry.count).collect();
        if !more.is_empty() {
            let (causes, letters) = (more.len(), more.iter().sum::<usize>());
            let line = format!("{letters:>7}  with {causes} more causes: narrow the list with --reason");
            lines.push(fit(&line, width));
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use aws_sdk_sqs::types::Message;
    use proptest::prelude::*;

    use super::*;
    use crate::queue::Received;

    fn letter(reason: &str, detail: &str) -> DeadLetter {
        let message = Message::builder().message_id("m").receipt_handle("r").body("{}").build();
        let letter = DeadLetter::from(Received::read(message).unwrap());
        DeadLetter { reason: reason.to_owned(), detail: detail.to_owned(), ..letter }
    }

    /// Returns the sum of the first column.
    fn sum(lines: &[String]) -> usize {
        lines.iter().filter_map(|line| line.split_whitespace().next()?.parse::<usize>().ok()).sum()
    }

    proptest! {
        /// Each letter is in one row, or in the line about the rows that are left out, and every text is whole.
        #[test]
        fn rows_add_up_to_the_total(details in proptest::collection::vec("[a-e]{1,2} (x{0,120})", 1..150), width in 40..200_usize) {
            let mut tally = Tally::default();
            details.iter().for_each(|detail| tally.add(&letter("poison", detail)));
            prop_assert_eq!(tally.total(), details.len());
            prop_assert_eq!(tally.by_reason()["poison"], details.len());
            let now = SystemTime::UNIX_EPOCH;
            prop_assert_eq!(sum(&tally.lines(now, None)), details.len());
            prop_assert_eq!(sum(&tally.lines(now, Some(width))), details.len());
        }
    }

    #[test]
    fn causes_are_shown_whole() {
        let mut tally = Tally::default();
        let detail = format!("{}the end", "a cause of many words ".repeat(40));
        tally.add(&letter("rejected", &detail));
        let now = SystemTime::UNIX_EPOCH;
        assert!(tally.lines(now, None)[1].ends_with(&detail));
        let narrow = tally.lines(now, Some(60));
        assert!(narrow.iter().all(|line| line.len() <= 60), "{narrow:?}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert!(words(&narrow.join(" ")).ends_with(&words(&detail)), "{narrow:?}");
    }
}
