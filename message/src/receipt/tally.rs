//! Adds up the receipts of one message.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::RangeInclusive,
};

use super::{OutcomeCounts, Parts, REST, Receipt, ReceiptOutcome};

/// The receipts of one message, added up over its parts.
///
/// The receipts are those of one deployment, which their event names as its source: each cell has a tally of its own.
///
/// Receipts may be added twice and in any order. Parts of an attempt that another attempt replaced are not counted. It
/// holds one receipt for each part: a tenant with 100 000 connections has about 1000 of them.
///
/// ```
/// use streamer_message::{Receipt, ReceiptOutcome, ReceiptTally};
///
/// let receipt = |fields: &str| {
///     Receipt::decode(&format!(
///         r#"{{"specversion":"1.0","id":"e","source":"/streamer/production","type":"streamer.receipt",
///             "data":{{"version":1,"id":"m","at":1764000000000,{fields}}}}}"#
///     ))
/// };
/// let mut tally = ReceiptTally::default();
/// tally.add(receipt(r#""outcome":"expanded","connections":{},"parts":{"prefix":"9f","count":2}"#)?);
/// tally.add(receipt(r#""outcome":"delivered","connections":{"delivered":98,"gone":2},"part":"9f.0""#)?);
/// assert!(!tally.is_complete());
/// tally.add(receipt(r#""outcome":"delivered","connections":{"delivered":7},"part":"9f.1""#)?);
/// assert!(tally.is_complete());
/// assert_eq!(tally.connections()[&ReceiptOutcome::Delivered], 105);
/// # Ok::<_, streamer_message::ReceiptError>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReceiptTally {
    /// The best receipt for each part, and for the message itself (`None`).
    receipts: HashMap<Option<String>, Receipt>,
}

impl ReceiptTally {
    /// Adds a receipt of the message. An acknowledgment is about a client and is not counted.
    pub fn add(&mut self, receipt: Receipt) {
        if receipt.outcome == ReceiptOutcome::Acknowledged {
            return;
        }
        let known = self.receipts.get(&receipt.part);
        if known.is_none_or(|known| receipt.is_better_than(known)) {
            self.receipts.insert(receipt.part.clone(), receipt);
        }
    }

    /// Returns whether the receipts of the message and of all its parts are there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.counted().1
    }

    /// Returns the number of connections for each outcome, in the receipts so far.
    #[must_use]
    pub fn connections(&self) -> OutcomeCounts {
        let mut counts = OutcomeCounts::new();
        for receipt in self.counted().0 {
            for (outcome, number) in &receipt.connections {
                *counts.entry(*outcome).or_default() += number;
            }
        }
        counts
    }

    /// Returns the outcome of the message: the best one of its parts. `None` without any of their receipts.
    #[must_use]
    pub fn outcome(&self) -> Option<ReceiptOutcome> {
        let outcomes = self.counted().0.into_iter().map(|receipt| receipt.outcome);
        let whole = self.receipts.get(&None).map(|receipt| receipt.outcome);
        outcomes.filter(|outcome| *outcome != ReceiptOutcome::Expanded).min().or(whole)
    }

    /// Returns the receipts of the message and of the parts that they name, and whether there are all of them.
    fn counted(&self) -> (Vec<&Receipt>, bool) {
        let families = self.families();
        let (mut counted, mut seen, mut is_complete) = (Vec::new(), HashSet::new(), true);
        let members = |family: Family<'_>, numbers: RangeInclusive<u64>| {
            let members = families.get(&family).into_iter();
            members.flat_map(|members| members.range(numbers.clone())).map(|(_, receipt)| *receipt).collect()
        };
        let mut waiting: Vec<&Receipt> =
            match (self.receipts.get(&None), families.keys().find_map(Family::bodies)) {
                (Some(whole), _) => vec![whole],
                (None, Some(bodies)) => {
                    let members: Vec<_> = members(Family::Bodies(bodies), 1..=bodies);
                    is_complete = u64::try_from(members.len()) == Ok(bodies);
                    members
                }
                (None, None) => return (counted, false),
            };
        while let Some(receipt) = waiting.pop() {
            // A part that names itself, or a part of which it is one, is counted once.
            if !seen.insert(&receipt.part) {
                continue;
            }
            counted.push(receipt);
            let Some(Parts { prefix, count, rest }) = &receipt.parts else { continue };
            let numbered = count.checked_sub(1).map(|last| members(Family::Parts(prefix), 0..=last));
            let rests = rest.then(|| members(Family::Rest(prefix), 0..=0));
            let parts: Vec<_> = numbered.into_iter().chain(rests).flatten().collect();
            is_complete &= u64::try_from(parts.len()) == Ok(count.saturating_add(u64::from(*rest)));
            waiting.extend(parts);
        }
        (counted, is_complete)
    }

    /// Groups the receipts of parts by the beginning of their names.
    fn families(&self) -> HashMap<Family<'_>, BTreeMap<u64, &Receipt>> {
        let mut families: HashMap<_, BTreeMap<_, _>> = HashMap::new();
        for (name, receipt) in &self.receipts {
            if let Some((family, number)) = name.as_deref().and_then(Family::of) {
                families.entry(family).or_default().insert(number, receipt);
            }
        }
        families
    }
}

/// Parts that one receipt names, or the bodies of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Family<'a> {
    Parts(&'a str),
    Rest(&'a str),
    Bodies(u64),
}

impl<'a> Family<'a> {
    /// Returns the family of a part with this name, and its number in it.
    fn of(name: &'a str) -> Option<(Self, u64)> {
        match name.rsplit_once('.') {
            Some((prefix, REST)) => return Some((Self::Rest(prefix), 0)),
            Some((prefix, number)) => return Some((Self::Parts(prefix), number.parse().ok()?)),
            None => {}
        }
        let (number, bodies) = name.split_once('/')?;
        Some((Self::Bodies(bodies.parse().ok()?), number.parse().ok()?))
    }

    fn bodies(&self) -> Option<u64> {
        match self {
            Self::Bodies(bodies) => Some(*bodies),
            Self::Parts(_) | Self::Rest(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn receipt(part: Option<&str>, outcome: &str, delivered: u64, parts: Option<(&str, u64)>) -> Receipt {
        let parts = parts.map(|(prefix, count)| json!({"prefix": prefix, "count": count}));
        let connections = if delivered == 0 { json!({}) } else { json!({"delivered": delivered}) };
        let receipt = json!({
            "version": 1, "id": "m", "at": 1, "outcome": outcome, "connections": connections,
            "part": part, "parts": parts,
        });
        serde_json::from_value(receipt).unwrap()
    }

    fn tally(receipts: impl IntoIterator<Item = Receipt>) -> ReceiptTally {
        let mut tally = ReceiptTally::default();
        receipts.into_iter().for_each(|receipt| tally.add(receipt));
        tally
    }

    fn delivered(tally: &ReceiptTally) -> u64 {
        tally.connections().get(&ReceiptOutcome::Delivered).copied().unwrap_or_default()
    }

    #[test]
    fn message_without_parts_needs_one_receipt() {
        assert!(!tally([]).is_complete());
        assert_eq!(tally([]).outcome(), None);
        let tally = tally([receipt(None, "delivered", 2, None)]);
        assert_eq!(
            (tally.is_complete(), delivered(&tally), tally.outcome()),
            (true, 2, Some(ReceiptOutcome::Delivered))
        );
    }

    #[test]
    fn better_outcome_replaces_earlier_one() {
        let receipts = [receipt(None, "exhausted", 0, None), receipt(None, "delivered", 1, None)];
        for order in [receipts.clone(), [receipts[1].clone(), receipts[0].clone()]] {
            assert_eq!(tally(order).outcome(), Some(ReceiptOutcome::Delivered));
        }
    }

    /// After a lost confirmation, two copies of a message are handed back, and both may end in the same millisecond.
    #[test]
    fn one_of_two_equally_good_receipts_stays() {
        let to =
            |connections: [&str; 2]| serde_json::from_value(json!({ "connections": connections })).unwrap();
        let receipt = receipt(None, "delivered", 2, None);
        let (first, second) = (
            Receipt { to: to(["a", "c"]), ..receipt.clone() },
            Receipt { to: to(["c", "a"]), ..receipt.clone() },
        );
        assert_eq!(tally([first.clone(), second.clone()]), tally([second, first]));
        let failed = |cause: &str| Receipt { cause: Some(cause.to_owned()), ..receipt.clone() };
        assert_eq!(tally([failed("403"), failed("413")]), tally([failed("413"), failed("403")]));
        assert!(!receipt.is_better_than(&receipt));
    }

    #[test]
    fn acknowledgment_is_not_an_outcome() {
        let receipts = [receipt(None, "kept", 0, None), receipt(None, "acknowledged", 0, None)];
        assert_eq!(tally(receipts).outcome(), Some(ReceiptOutcome::Kept));
    }

    #[test]
    fn absurd_number_of_parts_is_never_complete() {
        let tally = tally([receipt(None, "expanded", 0, Some(("a", u64::MAX)))]);
        assert_eq!((tally.is_complete(), tally.outcome()), (false, Some(ReceiptOutcome::Expanded)));
    }

    /// A part of the rest is no part with a number: a fan-out may have sent more parts than its receipt names.
    #[test]
    fn rest_is_apart_from_numbered_parts() {
        let mut whole = receipt(None, "expanded", 0, Some(("a", 1)));
        whole.parts.as_mut().unwrap().rest = true;
        let parts = ["a.0", "a.1"].map(|name| receipt(Some(name), "delivered", 100, None));
        let mut tally = tally(parts.into_iter().chain([whole]));
        assert_eq!((tally.is_complete(), delivered(&tally)), (false, 100));
        tally.add(receipt(Some("a.rest"), "delivered", 7, None));
        assert_eq!((tally.is_complete(), delivered(&tally)), (true, 107));
    }

    #[test]
    fn part_that_names_itself_is_counted_once() {
        let receipts = [
            receipt(None, "expanded", 0, Some(("a", 1))),
            receipt(Some("a.0"), "expanded", 5, Some(("a", 1))),
        ];
        assert_eq!(delivered(&tally(receipts)), 5);
    }

    #[test]
    fn bodies_of_a_message_are_added_up() {
        let body = |name| receipt(Some(name), "delivered", 100, None);
        let mut tally = tally([body("1/3"), body("3/3")]);
        assert_eq!((tally.is_complete(), delivered(&tally)), (false, 200));
        tally.add(body("2/3"));
        assert_eq!((tally.is_complete(), delivered(&tally)), (true, 300));
    }

    /// The receipts of a tenant's message with parts of parts, and of an attempt that was replaced.
    fn receipts() -> Vec<Receipt> {
        vec![
            receipt(None, "expanded", 0, Some(("a", 2))),
            receipt(Some("a.0"), "delivered", 3, None),
            receipt(Some("a.1"), "expanded", 0, Some(("b", 2))),
            // Another account of the same part, which met fewer connections.
            receipt(Some("a.0"), "delivered", 2, None),
            receipt(Some("b.0"), "delivered", 100, None),
            receipt(Some("b.1"), "no_recipient", 0, None),
            receipt(Some("old.0"), "delivered", 1000, None),
        ]
    }

    proptest! {
        #[test]
        fn order_and_duplicates_change_nothing(
            order in Just(receipts().into_iter().chain(receipts()).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let tally = tally(order);
            prop_assert!(tally.is_complete());
            prop_assert_eq!(delivered(&tally), 103);
            prop_assert_eq!(tally.outcome(), Some(ReceiptOutcome::Delivered));
        }

        #[test]
        fn tally_is_complete_with_every_part_alone(missing in prop::sample::select(vec![0, 2, 4, 5])) {
            let mut receipts = receipts();
            receipts.remove(missing);
            prop_assert!(!tally(receipts).is_complete(), "without {}", missing);
        }
    }
}
