//! Compares the queues and the report of an invocation with the outcomes of the model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_tests::{
    doubles::MailboxDouble,
    event::EPOCH_MILLIS,
    worker::{Rig, Sent},
};

use super::{
    case::{Case, Message, To},
    outcomes::{Outcome, Outcomes},
};

/// An outgoing message that a message needs, by the queue that it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    HandBack,
    /// With its reason.
    DeadLetter(&'static str),
}

/// The connections of each outgoing message that a message needs.
type Needs = BTreeMap<Need, Vec<&'static str>>;

/// Compares the queues and the reported records with the outcomes.
pub(super) fn check(
    case: &Case,
    rig: &Rig,
    mailbox: &MailboxDouble,
    reported: &BTreeSet<String>,
    outcomes: &Outcomes,
) -> Result<(), TestCaseError> {
    let mut sent = by_message(Need::HandBack, &rig.handed_back());
    for reason in ["rejected", "poison", "exhausted"] {
        let of_reason = |sent: &Sent| sent.attribute("streamer.reason") == reason;
        let dead: Vec<_> = rig.dead().into_iter().filter(of_reason).collect();
        sent.extend(by_message(Need::DeadLetter(reason), &dead));
    }
    let (mut expected_report, mut expected_hidden) = (BTreeSet::new(), BTreeSet::new());
    for (index, message) in case.messages.iter().enumerate() {
        let (mut needs, panicked) = needs(case, message, &outcomes[&index]);
        let stays = panicked || (case.fifo && needs.contains_key(&Need::HandBack));
        if stays {
            needs.clear();
            expected_hidden.extend(case.fifo.then(|| format!("receipt-{index}")));
        }
        let kinds = sent.keys().filter(|(of, _)| *of == index).map(|(_, need)| need);
        prop_assert!(kinds.eq(needs.keys()), "message {} needs {:?}", index, needs);
        for (need, connections) in &needs {
            let body = &sent[&(index, *need)];
            check_body(message, index, *need, connections, body)?;
            if *need == Need::HandBack {
                check_retry(case, index, &outcomes[&index], &body["retry"])?;
            }
        }
        let unconfirmed = needs.keys().any(|need| match need {
            Need::HandBack => !message.hand_back_accepted,
            Need::DeadLetter(_) => !message.dead_letter_accepted,
        });
        if stays || unconfirmed {
            expected_report.insert(format!("record-{index}"));
        }
    }
    check_delays(case, rig, &expected_hidden)?;
    check_mailbox(case, mailbox)?;
    prop_assert_eq!(reported, &expected_report, "a record is acknowledged only if its needs are confirmed");
    Ok(())
}

/// Checks that the mailbox has each message that is to be kept once, in order of arrival, on a FIFO queue
/// within each group, and no other.
fn check_mailbox(case: &Case, mailbox: &MailboxDouble) -> Result<(), TestCaseError> {
    for (user, is_for) in [
        ("anna", (|to| matches!(to, To::User)) as fn(&To) -> bool),
        ("absent", |to| matches!(to, To::AbsentUser)),
    ] {
        let messages = case.messages.iter().enumerate();
        let stored = messages.filter(|(_, message)| is_for(&message.to) && case.is_stored(message));
        let expected: Vec<_> = (1..).zip(stored.map(|(index, _)| index.to_string())).collect();
        prop_assert_eq!(mailbox.top(user), expected.len() as u64);
        let mut found = mailbox.messages(user);
        if case.fifo {
            // Groups may overtake each other: the numbers of each are compared without the others.
            let group = |id: &str| case.messages[id.parse::<usize>().unwrap()].group;
            let numbers: Vec<_> = found.iter().map(|(seq, _)| *seq).collect();
            found.sort_by_key(|(seq, id)| (group(id), *seq));
            let mut ids: Vec<_> = expected.into_iter().map(|(_, id)| id).collect();
            ids.sort_by_key(|id| group(id));
            prop_assert!(numbers.into_iter().eq(1..=ids.len() as u64));
            prop_assert_eq!(found.into_iter().map(|(_, id)| id).collect::<Vec<_>>(), ids);
        } else {
            prop_assert_eq!(found, expected);
        }
    }
    Ok(())
}

/// Returns the outgoing messages of one kind, by the index of their message. The id of a message is its index.
fn by_message(need: Need, sent: &[Sent]) -> BTreeMap<(usize, Need), Value> {
    let index = |body: &Value| body["id"].as_str().unwrap().parse().unwrap();
    sent.iter().map(Sent::json).map(|body| ((index(&body), need), body)).collect()
}

/// Returns the outgoing messages that the outcomes of a message need, and whether a post of it panicked. A message that
/// would be exhausted after a panic becomes a dead letter as after a hand-back.
fn needs(case: &Case, message: &Message, outcomes: &[(Option<&'static str>, Outcome)]) -> (Needs, bool) {
    let exhausted = !case.fifo && message.is_exhausted();
    let (mut needs, mut panicked) = (Needs::new(), false);
    for (connection, outcome) in outcomes {
        let need = match outcome {
            Outcome::Settled | Outcome::Kept | Outcome::Gone | Outcome::Superseded => continue,
            Outcome::Rejected => Need::DeadLetter("rejected"),
            Outcome::Poison => Need::DeadLetter("poison"),
            Outcome::Exhausted => Need::DeadLetter("exhausted"),
            Outcome::HandedBack | Outcome::Panicked if exhausted => Need::DeadLetter("exhausted"),
            Outcome::HandedBack => Need::HandBack,
            Outcome::Panicked => {
                panicked = true;
                Need::HandBack
            }
        };
        needs.entry(need).or_default().extend(connection);
    }
    (needs, panicked)
}

/// Checks that an outgoing message is the original for the given connections, except for `retry`. Poison keeps it, too.
fn check_body(
    message: &Message,
    index: usize,
    need: Need,
    connections: &[&'static str],
    body: &Value,
) -> Result<(), TestCaseError> {
    let (mut found, mut expected) = (body.clone(), message.body(index));
    expected["to"] = sorted(audience(message, index, connections));
    found["to"] = sorted(found["to"].clone());
    if need != Need::DeadLetter("poison") {
        for body in [&mut found, &mut expected] {
            body.as_object_mut().unwrap().remove("retry");
        }
    }
    prop_assert_eq!(found, expected);
    Ok(())
}

/// Checks `retry` of a hand-back: the counts, the first receive, the connections of a user that are done, and the
/// position of a stored message.
fn check_retry(
    case: &Case,
    index: usize,
    outcomes: &[(Option<&'static str>, Outcome)],
    retry: &Value,
) -> Result<(), TestCaseError> {
    let message = &case.messages[index];
    let (count, receives) = message.retry.unwrap_or_default();
    prop_assert_eq!(retry["kept"].is_object(), case.is_stored(message));
    prop_assert_eq!(&retry["count"], &json!(count + 1));
    prop_assert_eq!(&retry["receives"], &json!(receives + message.receives - 1));
    prop_assert_eq!(&retry["since"], &json!(EPOCH_MILLIS - message.age));
    prop_assert!(retry["cause"].as_str().is_some_and(|cause| !cause.is_empty()));
    let is_done = |outcome: Outcome| {
        matches!(message.to, To::User) && !matches!(outcome, Outcome::HandedBack | Outcome::Gone)
    };
    let done = outcomes.iter().filter(|(_, outcome)| is_done(*outcome));
    let done: BTreeSet<_> = done.filter_map(|(connection, _)| *connection).collect();
    let found = retry["done"].as_array().into_iter().flatten().filter_map(Value::as_str);
    prop_assert_eq!(found.collect::<BTreeSet<_>>(), done);
    Ok(())
}

/// Checks that exactly the expected receipts are hidden, for the same time within a group, and that hand-backs are
/// delayed, by 0 to 120 s.
fn check_delays(case: &Case, rig: &Rig, expected_hidden: &BTreeSet<String>) -> Result<(), TestCaseError> {
    let hidden = rig.outbound.waits();
    let receipts: BTreeSet<_> = hidden.iter().map(|(receipt, _)| receipt.clone()).collect();
    prop_assert_eq!(hidden.len(), expected_hidden.len());
    prop_assert_eq!(&receipts, expected_hidden);
    let mut of_groups: BTreeMap<bool, BTreeSet<i32>> = BTreeMap::new();
    for (receipt, seconds) in hidden {
        let index: usize = receipt.rsplit('-').next().unwrap().parse().unwrap();
        prop_assert!((0..=120).contains(&seconds), "hidden for {} s", seconds);
        of_groups.entry(case.messages[index].group).or_default().insert(seconds);
    }
    prop_assert!(of_groups.values().all(|seconds| seconds.len() == 1), "{:?}", of_groups);
    for sent in rig.handed_back() {
        prop_assert!(sent.delay.is_some_and(|delay| (0..=120).contains(&delay)), "{:?}", sent.delay);
    }
    Ok(())
}

/// Returns the audience of an outgoing message for these connections.
fn audience(message: &Message, index: usize, connections: &[&'static str]) -> Value {
    match (&message.to, connections) {
        (To::Connections(_), [one]) => json!({ "connection": one }),
        (To::Connections(_), [_, ..]) => json!({ "connections": connections }),
        _ => message.body(index)["to"].clone(),
    }
}

/// Sorts the connections of an audience, whose order is no promise.
fn sorted(mut to: Value) -> Value {
    if let Some(ids) = to.get_mut("connections").and_then(Value::as_array_mut) {
        ids.sort_by_key(|id| id.as_str().map(str::to_owned));
    }
    to
}
