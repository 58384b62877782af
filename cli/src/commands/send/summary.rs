//! The result of sending many lines.

use std::{io, path::Path, time::Duration};

use streamer_message::MessageId;
use streamer_producer::{Message, SendError};

use super::errors::explain;
use crate::shutdown::Signal;

/// Maximum number of ranges of line numbers that are printed.
const MAX_RANGES: usize = 20;

/// The lines that were read: those queued, failed and invalid are all of them.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub queued: Queued,
    /// The lines whose messages are not, or not certainly, on the queue.
    pub failed: Vec<usize>,
    /// The lines that are no messages.
    pub invalid: Vec<usize>,
    pub end: End,
    /// The number of the last line that was read as a whole.
    pub last_line: usize,
    /// Whether the whole input was read.
    pub is_whole: bool,
    /// Whether the file of unsent messages lacks some of them.
    pub is_file_incomplete: bool,
}

/// The messages that the queue has.
#[derive(Debug, Default)]
pub(super) struct Queued {
    pub number: usize,
    /// Their ids, if they are kept.
    pub ids: Option<Vec<MessageId>>,
}

/// Why a run ended.
#[derive(Debug, Default)]
pub(super) enum End {
    /// At the end of the input.
    #[default]
    OfInput,
    /// The input could not be read any further.
    Unreadable(io::Error),
    /// The queue refuses every message.
    Refused(SendError),
    /// The queue confirmed no message for the producer's whole timeout.
    Unreachable(SendError),
    /// By a signal.
    Interrupted(Signal),
}

impl Queued {
    pub(super) fn push(&mut self, message: &Message) {
        self.number += 1;
        if let Some(ids) = &mut self.ids {
            ids.push(message.id().clone());
        }
    }
}

impl End {
    /// Sets the reason, unless there is an earlier one.
    pub(super) fn or(&mut self, later: Self) {
        if matches!(self, Self::OfInput) {
            *self = later;
        }
    }
}

impl Summary {
    /// Returns the line with the totals.
    pub(super) fn totals(&self, took: Duration) -> String {
        let (queued, failed, invalid) = (self.queued.number, self.failed.len(), self.invalid.len());
        let seconds = took.as_secs_f64();
        let (lines, rate) = (lines(queued + failed + invalid), queued as f64 / seconds.max(0.001));
        format!(
            "{lines} in {seconds:.1} s: {queued} queued ({rate:.0} per second), {failed} failed, {invalid} invalid"
        )
    }

    /// Returns the error that the command ends with, if it does: what happened, and what to do. `file` took the
    /// messages that were not sent.
    pub(super) fn error(&self, file: Option<&Path>, aws_queue: Option<&str>) -> Option<String> {
        let mut parts = Vec::new();
        match &self.end {
            End::OfInput => {}
            End::Unreadable(error) => parts.push(format!("cannot read the input: {error}")),
            End::Refused(error) | End::Unreachable(error) => parts.push(explain(error, aws_queue)),
            End::Interrupted(_) => parts.push("interrupted".to_owned()),
        }
        if !self.is_whole {
            parts.push(format!("the input after line {} was not read", self.last_line));
        }
        if !self.failed.is_empty() {
            let number = lines(self.failed.len());
            let were = if self.failed.len() == 1 { "was" } else { "were" };
            let remedy = match file {
                Some(file) => {
                    let kept = if self.is_file_incomplete { "some" } else { "all" };
                    format!(
                        "{kept} are kept in {0}: send them with `streamer send --retry {0}`",
                        file.display()
                    )
                }
                None => "`--failed FILE` keeps them with their ids".to_owned(),
            };
            parts.push(format!("{number} {were} not sent (line {}); {remedy}", ranges(&self.failed)));
        }
        if !self.invalid.is_empty() {
            let number = lines(self.invalid.len());
            let are = if self.invalid.len() == 1 { "is no message" } else { "are no messages" };
            let elsewhere = file.map_or("", |_| ", and not in that file");
            parts.push(format!(
                "{number} {are}{elsewhere} (line {}): correct and send again",
                ranges(&self.invalid)
            ));
        }
        (!parts.is_empty()).then(|| parts.join("\n"))
    }
}

fn lines(number: usize) -> String {
    if number == 1 { "1 line".to_owned() } else { format!("{number} lines") }
}

/// Formats numbers as ranges, such as `2, 5-7`.
fn ranges(numbers: &[usize]) -> String {
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    let ranges: Vec<_> = numbers
        .chunk_by(|one, next| *next == one + 1)
        .map(|range| match range {
            [first, .., last] => format!("{first}-{last}"),
            one => one.iter().map(ToString::to_string).collect(),
        })
        .collect();
    match ranges.len() {
        0..=MAX_RANGES => ranges.join(", "),
        _ => format!("{}, … {}", ranges[..MAX_RANGES].join(", "), numbers[numbers.len() - 1]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_numbers_are_printed_as_ranges() {
        assert_eq!(ranges(&[7, 2, 5, 6]), "2, 5-7");
        let odd: Vec<_> = (0..100).map(|number| number * 2 + 1).collect();
        assert!(ranges(&odd).ends_with("37, 39, … 199"), "{}", ranges(&odd));
    }

    #[test]
    fn totals_add_up() {
        let queued = Queued { number: 4, ids: None };
        let summary =
            Summary { queued, failed: vec![5], invalid: vec![6], is_whole: true, ..Summary::default() };
        assert_eq!(
            summary.totals(Duration::from_secs(2)),
            "6 lines in 2.0 s: 4 queued (2 per second), 1 failed, 1 invalid"
        );
        let error = summary.error(None, None).unwrap();
        assert!(error.contains("1 line was not sent (line 5); `--failed FILE`"), "{error}");
        assert!(error.contains("1 line is no message (line 6): correct"), "{error}");
        assert_eq!(Summary { is_whole: true, ..Summary::default() }.error(None, None), None);
    }
}
