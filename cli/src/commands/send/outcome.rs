//! Describes the outcomes of messages.

use std::{collections::BTreeMap, time::Duration};

use super::receipts::{Fate, Receipt};
use crate::exit::{Exit, NOT_DELIVERED};

/// Maximum number of recipients that are listed.
const MAX_LISTED: usize = 20;

/// Returns the lines about the receipts of messages for `audience`, and the error unless every recipient has its
/// message, or the mailbox keeps it. A message that `is_to_be_kept` is posted only after it is stored, so it is kept for
/// a device that is gone.
pub(super) fn describe(
    receipts: &[Receipt],
    audience: &str,
    is_to_be_kept: bool,
    limit: Duration,
) -> (Vec<String>, Option<Exit>) {
    let fates: Vec<_> = receipts.iter().flat_map(|receipt| &receipt.recipients).collect();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, fate) in &fates {
        *counts.entry(name(fate)).or_default() += 1;
    }
    let mut lines = Vec::new();
    if let [_] = receipts
        && fates.len() <= MAX_LISTED
    {
        lines.extend(fates.iter().map(|(connection, fate)| {
            let to = connection.as_deref().unwrap_or(audience);
            let cause = fate.cause.as_ref().map(|cause| format!(" ({cause})")).unwrap_or_default();
            format!("{:<12} {to}{cause}", name(fate))
        }));
    }
    if lines.is_empty() || fates.len() > 1 {
        let counts: Vec<_> = counts.iter().map(|(name, number)| format!("{number} {name}")).collect();
        lines.extend((!counts.is_empty()).then(|| counts.join(", ")));
    }
    let open = receipts.iter().filter(|receipt| !receipt.is_complete).count();
    let is_success = |name: &str| SUCCESSES.contains(&name) || (is_to_be_kept && name == "gone");
    let others: Vec<_> = counts.keys().filter(|name| !is_success(name)).collect();
    if open == 0 && others.is_empty() && !fates.is_empty() {
        return (lines, None);
    }
    let mut parts: Vec<_> = others.iter().map(|name| format!("{name}: {}", remedy(name))).collect();
    if open > 0 && !counts.contains_key(STILL_TRYING) {
        let messages = if receipts.len() == 1 {
            String::new()
        } else {
            format!(" of {open} of {} messages", receipts.len())
        };
        parts.push(format!(
            "no outcome{messages} after {}: `streamer status` shows the queue, and `streamer logs delivery` the worker",
            humantime::format_duration(limit)
        ));
    } else if open > 0 {
        parts.push(format!("waited for {}", humantime::format_duration(limit)));
    }
    let text = format!("not delivered to every recipient; {}", parts.join("; "));
    (lines, Some(Exit { code: NOT_DELIVERED, text }))
}

/// The outcomes after which nothing is left to do. A message is kept only if its sender asked for it.
const SUCCESSES: [&str; 2] = ["delivered", "kept"];

/// The name of `handed_back` for people.
const STILL_TRYING: &str = "still trying";

fn name(fate: &Fate) -> &str {
    if fate.is_pending() { STILL_TRYING } else { &fate.outcome }
}

/// Returns the reason of an outcome, and what to do.
fn remedy(outcome: &str) -> &'static str {
    match outcome {
        "gone" => "the connection has ended or never existed, `streamer connections` lists the open ones",
        "no_recipient" => "the audience has no open connection, `streamer connections` lists them",
        "expired" => "the time of --expires-in was over before it could be posted",
        "superseded" => "a later message of the same request replaced it",
        STILL_TRYING => "the worker goes on, `streamer logs delivery --follow` shows it",
        _ => "it is a dead letter, `streamer redrive` lists it",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    fn receipt(is_complete: bool, recipients: &[(Option<&str>, &str, Option<&str>)]) -> Receipt {
        let recipients = recipients.iter().map(|(to, outcome, cause)| {
            let (outcome, cause) = ((*outcome).to_owned(), cause.map(str::to_owned));
            (to.map(str::to_owned), Fate { outcome, cause })
        });
        Receipt { is_complete, recipients: recipients.collect() }
    }

    fn described(receipts: &[Receipt]) -> (Vec<String>, Option<String>) {
        let (lines, exit) = describe(receipts, "user anna of tenant acme", false, LIMIT);
        assert!(exit.as_ref().is_none_or(|exit| exit.code == 3));
        (lines, exit.map(|exit| exit.text))
    }

    #[test]
    fn only_delivery_to_all_succeeds() {
        let (lines, error) = described(&[receipt(true, &[(Some("a="), "delivered", None)])]);
        assert_eq!((lines, error), (vec!["delivered    a=".to_owned()], None));
        let both = [(Some("a="), "delivered", None), (Some("b="), "gone", None)];
        let (lines, error) = described(&[receipt(true, &both)]);
        assert_eq!(lines, ["delivered    a=", "gone         b=", "1 delivered, 1 gone"]);
        assert!(error.unwrap().contains("gone: the connection has ended or never existed"));
        let (lines, error) = described(&[receipt(true, &[(None, "kept", None)])]);
        assert_eq!((lines, error), (vec!["kept         user anna of tenant acme".to_owned()], None));
        let (_, error) = described(&[receipt(true, &[(None, "no_recipient", None)])]);
        assert!(error.unwrap().contains("no open connection"));
    }

    #[test]
    fn kept_message_waits_for_gone_device() {
        let both = [(Some("a="), "delivered", None), (Some("b="), "gone", None)];
        let describe = |receipt| describe(&[receipt], "user anna of tenant acme", true, LIMIT);
        let (lines, exit) = describe(receipt(true, &both));
        assert_eq!(lines.last().map(String::as_str), Some("1 delivered, 1 gone"));
        assert!(exit.is_none());
        assert!(describe(receipt(true, &[(None, "rejected", None)])).1.is_some());
    }

    #[test]
    fn end_of_wait_is_explained() {
        let (lines, error) = described(&[receipt(false, &[])]);
        assert!(lines.is_empty());
        assert!(error.unwrap().contains("no outcome after 10s: `streamer status` shows the queue"));
        let away = receipt(false, &[(None, "handed_back", Some("user away"))]);
        let (lines, error) = described(&[away]);
        assert_eq!(lines, ["still trying user anna of tenant acme (user away)"]);
        assert!(
            error
                .unwrap()
                .ends_with("the worker goes on, `streamer logs delivery --follow` shows it; waited for 10s")
        );
    }

    #[test]
    fn many_messages_are_counted_by_outcome() {
        let delivered = receipt(true, &[(Some("a="), "delivered", None)]);
        let gone = receipt(true, &[(Some("b="), "gone", None)]);
        let (lines, error) = described(&[delivered.clone(), gone, delivered.clone(), receipt(false, &[])]);
        assert_eq!(lines, ["2 delivered, 1 gone"]);
        assert!(error.unwrap().contains("no outcome of 1 of 4 messages after 10s"));
        assert_eq!(described(&[delivered.clone(), delivered]), (vec!["2 delivered".to_owned()], None));
    }
}
