//! Output of `streamer redrive`.

use std::time::SystemTime;

use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use crate::{
    dead_letters::{Action, DeadLetter, Outcome, Run},
    screen::{Screen, age, print_error, sanitize, width},
};

/// Prints a dead letter as a JSON object, without its body.
pub(super) fn print_object(letter: &DeadLetter, outcome: Outcome) {
    let mut object = letter.summary();
    object.insert("outcome".to_owned(), json!(outcome));
    Screen::new().verbatim(Value::from(object).to_string());
}

/// Prints the totals of a run as a JSON object. `rest` is the number of dead letters that it did not inspect.
pub(super) fn print_totals(run: &Run, rest: usize) {
    let mut totals = json!(run.totals);
    totals["not_inspected"] = json!(rest);
    Screen::new().verbatim(json!({ "totals": totals }).to_string());
}

/// Prints the dead letters of a run by reason and cause, and its totals. `drop` says whether the user asked to drop
/// them.
pub(super) fn print_summary(run: &Run, action: Action, drop: bool, rest: usize) {
    let screen = Screen::new();
    if run.totals.matching > 0 {
        run.tally.lines(SystemTime::now(), width()).iter().for_each(|line| screen.verbatim(line));
    }
    summary(run, action, drop, rest).iter().for_each(|line| screen.line(line));
}

fn summary(run: &Run, action: Action, drop: bool, rest: usize) -> Vec<String> {
    let totals = &run.totals;
    let number = dead_letters(totals.inspected);
    let matching = format!("{number}, matching: {}", totals.matching);
    let mut lines = vec![match (totals.inspected, totals.matching, action) {
        (0, ..) => "no dead letters".to_owned(),
        (_, 0, _) => format!("{number}, none of them matches"),
        (_, _, Action::List) if drop => {
            format!("{matching}; nothing was dropped, use --drop --yes to delete them for good")
        }
        (_, _, Action::List) => format!("{matching}; nothing was sent, use --send to send"),
        (_, _, Action::Send) => {
            let counts = [("not deleted", totals.not_deleted), ("refused", totals.refused)];
            format!("{matching}, sent back: {}{}", totals.sent, others(counts))
        }
        (_, _, Action::Drop) => {
            format!(
                "{matching}, dropped: {}{}",
                totals.dropped,
                others([("not dropped", totals.not_dropped)])
            )
        }
    }];
    if totals.returned > 0 {
        lines.push(format!(
            "{} not counted and not sent again: each failed again during this run, or is a copy of a message that was sent",
            dead_letters(totals.returned)
        ));
    }
    if rest > 0 {
        lines.push(format!(
            "about {rest} more not inspected: held by another consumer, new, or behind others of their message group"
        ));
    }
    lines
}

/// Returns the counts that are not zero.
fn others<const N: usize>(counts: [(&str, usize); N]) -> String {
    let counts = counts.into_iter().filter(|(_, count)| *count > 0);
    counts.map(|(name, count)| format!(", {name}: {count}")).collect()
}

/// Returns a number of dead letters, with the noun.
pub(super) fn dead_letters(number: usize) -> String {
    if number == 1 { "1 dead letter".to_owned() } else { format!("{number} dead letters") }
}

/// Prints a dead letter with its body: as one JSON object, or the body to standard output and the rest to standard
/// error.
pub(super) fn print_letter(letter: &DeadLetter, as_object: bool) {
    let screen = Screen::new();
    if as_object {
        let mut object = letter.summary();
        object.insert("body".to_owned(), json!(letter.body));
        return screen.verbatim(Value::from(object).to_string());
    }
    header(letter, SystemTime::now()).iter().for_each(|line| print_error(line, None));
    screen.document(&letter.body);
}

fn header(letter: &DeadLetter, now: SystemTime) -> Vec<String> {
    let since = age(now.duration_since(letter.since).unwrap_or_default());
    let envelope = letter.envelope.as_ref().map_or_else(|| letter.id().to_owned(), ToString::to_string);
    let line = |name: &str, value: &str| format!("{name:<15} {}", sanitize(value));
    let mut lines = vec![
        line("message", &envelope),
        line("SQS's id", &letter.message_id),
        line("reason", &letter.reason),
        line("cause", if letter.detail.is_empty() { "-" } else { &letter.detail }),
    ];
    lines.extend(letter.group.as_ref().map(|group| line("message group", group)));
    let since = format!("{}, {since} ago", format_rfc3339_seconds(letter.since));
    lines.extend([
        line("first received", &since),
        line("receives", &letter.receives.to_string()),
        line("bytes", &letter.body.len().to_string()),
        String::new(),
    ]);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dead_letters::{Filter, Totals};

    fn first_line(action: Action, drop: bool, totals: Totals) -> String {
        let mut run = Run::new(action, Filter::default());
        run.totals = totals;
        summary(&run, action, drop, 0).swap_remove(0)
    }

    #[test]
    fn summary_names_every_number() {
        let listed = Totals { inspected: 5, matching: 3, ..Totals::default() };
        assert_eq!(
            first_line(Action::List, false, listed),
            "5 dead letters, matching: 3; nothing was sent, use --send to send"
        );
        assert_eq!(
            first_line(Action::List, true, listed),
            "5 dead letters, matching: 3; nothing was dropped, use --drop --yes to delete them for good"
        );
        let sent = Totals { sent: 1, refused: 2, ..listed };
        assert_eq!(
            first_line(Action::Send, false, sent),
            "5 dead letters, matching: 3, sent back: 1, refused: 2"
        );
        let dropped = Totals { dropped: 3, ..listed };
        assert_eq!(first_line(Action::Drop, true, dropped), "5 dead letters, matching: 3, dropped: 3");
        assert_eq!(first_line(Action::List, false, Totals::default()), "no dead letters");
    }
}
