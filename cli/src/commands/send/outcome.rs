//! Describes the outcomes of messages.

use std::time::Duration;

use streamer_message::{OutcomeCounts, ReceiptOutcome};

use crate::{
    exit::{Exit, NOT_DELIVERED},
    receipts::{Outcome, counts},
    screen::sanitize,
};

/// Returns the lines about the outcomes of messages for `audience`, and the error unless every recipient has its message,
/// or the mailbox keeps it. A kept message is posted only after it is stored, so a device that is gone gets it later.
pub(super) fn describe(
    outcomes: &[Outcome],
    audience: &str,
    limit: Duration,
    is_aws: bool,
) -> (Vec<String>, Option<Exit>) {
    let (mut totals, mut failures) = (OutcomeCounts::new(), Vec::<&ReceiptOutcome>::new());
    for outcome in outcomes {
        for (name, number) in &outcome.counts {
            let total = totals.entry(*name).or_default();
            *total = total.saturating_add(*number);
        }
        failures.extend(outcome.counts.keys().filter(|name| !is_success(**name, outcome.is_kept)));
    }
    failures.sort_unstable();
    failures.dedup();
    let lines = lines(outcomes, &totals, audience);
    let open = outcomes.iter().filter(|outcome| !outcome.is_complete).count();
    if open == 0 && failures.is_empty() {
        return (lines, None);
    }
    let mut parts: Vec<_> = failures.iter().map(|name| format!("{name}: {}", remedy(**name))).collect();
    if open > 0 {
        parts.push(missing(outcomes, open, limit, is_aws));
    }
    let head =
        if failures.is_empty() { "not known to be delivered" } else { "not delivered to every recipient" };
    (lines, Some(Exit { code: NOT_DELIVERED, text: format!("{head}; {}", parts.join("; ")) }))
}

fn lines(outcomes: &[Outcome], totals: &OutcomeCounts, audience: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if let [Outcome { best: Some(best), cause, .. }] = outcomes {
        let cause = cause.as_ref().map(|cause| format!(" ({})", sanitize(cause))).unwrap_or_default();
        lines.push(format!("{:<12} {audience}{cause}", best.as_str()));
    }
    let total = totals.values().fold(0, |total: u64, number| total.saturating_add(*number));
    if total > 1 || (lines.is_empty() && total > 0) {
        lines.push(counts(totals));
    }
    lines
}

/// Returns whether nothing is left to do after this outcome.
fn is_success(outcome: ReceiptOutcome, is_kept: bool) -> bool {
    outcome.is_success() || (is_kept && outcome == ReceiptOutcome::Gone)
}

/// Describes the end of the time with `open` messages whose receipts have not all come.
fn missing(outcomes: &[Outcome], open: usize, limit: Duration, is_aws: bool) -> String {
    let receipts = match outcomes {
        [Outcome { best: Some(_), .. }] => "the receipts of some parts are missing".to_owned(),
        [_] => "no receipt".to_owned(),
        all => format!("receipts of {open} of {} messages are missing", all.len()),
    };
    let worker = match is_aws {
        true => {
            "`streamer status --aws` shows the queue, and the log group /aws/lambda/NAME-delivery the worker"
        }
        false => "`streamer status` shows the queue, and `streamer logs delivery` the worker",
    };
    format!(
        "{receipts} after {}: the worker may still be trying, or another consumer has taken the receipt; {worker}",
        humantime::format_duration(limit)
    )
}

/// Returns the reason of an outcome, and the remedy.
fn remedy(outcome: ReceiptOutcome) -> &'static str {
    match outcome {
        ReceiptOutcome::Gone => {
            "the connection has ended or never existed, `streamer connections` lists the open ones"
        }
        ReceiptOutcome::NoRecipient => {
            "the audience has no open connection, `streamer connections` lists them"
        }
        ReceiptOutcome::Expired => "the time of --expires-in was over before it could be posted",
        ReceiptOutcome::Superseded => "a later message of the same request replaced it",
        _ => "it is a dead letter, `streamer redrive` lists it",
    }
}

#[cfg(test)]
mod tests {
    use ReceiptOutcome::{Delivered, Gone, Kept, NoRecipient, Rejected};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn outcome(best: ReceiptOutcome, counts: &[(ReceiptOutcome, u64)]) -> Outcome {
        let (best, counts) = (Some(best), counts.iter().copied().collect());
        Outcome { is_complete: true, best, counts, ..Outcome::default() }
    }

    fn described(outcomes: &[Outcome]) -> (Vec<String>, Option<String>) {
        let (lines, exit) = describe(outcomes, "user anna of tenant acme", LIMIT, false);
        assert!(exit.as_ref().is_none_or(|exit| exit.code == 3));
        (lines, exit.map(|exit| exit.text))
    }

    #[test]
    fn only_delivery_to_all_succeeds() {
        let (lines, error) = described(&[outcome(Delivered, &[(Delivered, 1)])]);
        assert_eq!((lines, error), (vec!["delivered    user anna of tenant acme".to_owned()], None));
        let (lines, error) = described(&[outcome(Delivered, &[(Delivered, 1), (Gone, 1)])]);
        assert_eq!(lines, ["delivered    user anna of tenant acme", "1 delivered, 1 gone"]);
        assert!(error.unwrap().contains("gone: the connection has ended or never existed"));
        let (lines, error) = described(&[outcome(Kept, &[(Kept, 1)])]);
        assert_eq!((lines, error), (vec!["kept         user anna of tenant acme".to_owned()], None));
        let (_, error) = described(&[outcome(NoRecipient, &[(NoRecipient, 1)])]);
        assert!(error.unwrap().contains("no open connection"));
    }

    #[test]
    fn cause_of_failure_is_printed() {
        let rejected = Outcome { cause: Some("413\n".to_owned()), ..outcome(Rejected, &[(Rejected, 1)]) };
        let (lines, error) = described(&[rejected]);
        assert_eq!(lines, ["rejected     user anna of tenant acme (413\u{fffd})"]);
        assert!(error.unwrap().contains("rejected: it is a dead letter, `streamer redrive` lists it"));
    }

    #[test]
    fn kept_message_waits_for_gone_device() {
        let kept = |best, counts: &[_]| Outcome { is_kept: true, ..outcome(best, counts) };
        let (lines, error) = described(&[kept(Delivered, &[(Delivered, 1), (Gone, 1)])]);
        assert_eq!(lines.last().map(String::as_str), Some("1 delivered, 1 gone"));
        assert_eq!(error, None);
        assert!(described(&[kept(Rejected, &[(Rejected, 1)])]).1.is_some());
    }

    #[test]
    fn end_of_wait_is_explained() {
        let (lines, error) = described(&[Outcome::default()]);
        assert!(lines.is_empty());
        let error = error.unwrap();
        assert!(
            error.starts_with("not known to be delivered; no receipt after 10s: the worker may"),
            "{error}"
        );
        assert!(
            error.contains("or another consumer has taken the receipt; `streamer status` shows"),
            "{error}"
        );
        let (_, exit) = describe(&[Outcome::default()], "tenant acme", LIMIT, true);
        assert!(exit.unwrap().text.contains("`streamer status --aws`"));

        let partial = Outcome { is_complete: false, ..outcome(Delivered, &[(Delivered, 7)]) };
        let (lines, error) = described(&[partial]);
        assert_eq!(lines.last().map(String::as_str), Some("7 delivered"));
        assert!(error.unwrap().contains("the receipts of some parts are missing after 10s"));
    }

    #[test]
    fn many_messages_are_counted_by_outcome() {
        let (delivered, gone) = (outcome(Delivered, &[(Delivered, 1)]), outcome(Gone, &[(Gone, 1)]));
        let (lines, error) = described(&[delivered.clone(), gone, delivered.clone(), Outcome::default()]);
        assert_eq!(lines, ["2 delivered, 1 gone"]);
        assert!(error.unwrap().contains("receipts of 1 of 4 messages are missing after 10s"));
        assert_eq!(described(&[delivered.clone(), delivered]), (vec!["2 delivered".to_owned()], None));
    }
}
