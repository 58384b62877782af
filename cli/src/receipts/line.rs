//! Receipts for people, one line each.

use std::{collections::HashMap, time::SystemTime};

use anstyle::Style;
use streamer_message::{OutcomeCounts, Parts, Receipt, ReceiptOutcome};

use crate::{
    audience,
    paint::{DIM, GREEN, Paint, RED},
    screen::{clock, sanitize},
};

/// Maximum number of messages that became parts whose numbers of parts are remembered. At the limit, all are forgotten,
/// and lines about parts lack the total.
const MAX_PREFIXES: usize = 10_000;

/// Formats receipts, and remembers how many parts messages became.
#[derive(Debug)]
pub struct ReceiptLines {
    paint: Paint,
    /// The number of parts by the prefix of their names.
    parts: HashMap<String, u64>,
}

impl ReceiptLines {
    /// Creates a formatter with these colours.
    #[must_use]
    pub fn new(paint: Paint) -> Self {
        Self { paint, parts: HashMap::new() }
    }

    /// Returns the line of a receipt: time, outcome, id, audience, part, counts if there are several connections, and
    /// cause.
    pub fn line(&mut self, receipt: &Receipt, now: SystemTime) -> String {
        let outcome = format!("{:<12}", receipt.outcome.as_str());
        let mut columns = vec![
            self.paint.paint(DIM, &clock(receipt.time(), now)),
            self.paint.paint(style(receipt.outcome), &outcome),
            sanitize(receipt.id.as_str()),
        ];
        columns.extend(receipt.to.as_ref().map(|to| sanitize(&audience::describe(to))));
        columns.extend(receipt.connection.as_ref().map(|connection| format!("by {connection}")));
        columns.extend(receipt.part.as_ref().map(|part| sanitize(&self.part(part))));
        columns.extend(receipt.parts.as_ref().map(|parts| self.split(parts)));
        columns.extend(several(&receipt.connections));
        columns.extend(receipt.cause.as_ref().map(|cause| format!("({})", sanitize(cause))));
        columns.join("  ")
    }

    fn split(&mut self, Parts { prefix, count, rest }: &Parts) -> String {
        if self.parts.len() >= MAX_PREFIXES {
            self.parts.clear();
        }
        let total = count.saturating_add(u64::from(*rest));
        self.parts.insert(prefix.clone(), total);
        if total == 1 { "1 part".to_owned() } else { format!("{total} parts") }
    }

    /// Returns a part's number, counted from 1, and the total if it is known. The names of a worker count from 0, and the
    /// rest of an audience is the last part.
    fn part(&self, name: &str) -> String {
        let Some((prefix, number)) = name.rsplit_once('.') else { return format!("part {name}") };
        match (number.parse::<u64>(), self.parts.get(prefix)) {
            (Ok(number), Some(total)) => format!("part {}/{total}", number.saturating_add(1)),
            (Ok(number), None) => format!("part {}", number.saturating_add(1)),
            (Err(_), Some(total)) => format!("part {total}/{total}"),
            (Err(_), None) => format!("part {number}"),
        }
    }
}

/// Returns the counts by outcome, such as `2 delivered, 1 gone`, if they are of more than one connection.
fn several(connections: &OutcomeCounts) -> Option<String> {
    let total = connections.values().fold(0, |total: u64, number| total.saturating_add(*number));
    (total > 1).then(|| counts(connections))
}

/// Returns counts by outcome, such as `2 delivered, 1 gone`.
pub(crate) fn counts(counts: &OutcomeCounts) -> String {
    counts.iter().map(|(outcome, number)| format!("{number} {outcome}")).collect::<Vec<_>>().join(", ")
}

fn style(outcome: ReceiptOutcome) -> Style {
    use ReceiptOutcome::{Acknowledged, Delivered, Exhausted, Expanded, Kept, Poison, Rejected};

    match outcome {
        Acknowledged | Delivered | Kept | Expanded => GREEN,
        Exhausted | Rejected | Poison => RED,
        _ => DIM,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const NOW: SystemTime = SystemTime::UNIX_EPOCH;

    fn receipt(fields: Value) -> Receipt {
        let mut receipt = json!({"version": 1, "id": "order-7", "at": 61_000, "outcome": "delivered"});
        receipt.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        serde_json::from_value(receipt).unwrap()
    }

    fn plain(fields: &[Value]) -> Vec<String> {
        let mut lines = ReceiptLines::new(Paint { colours: false, terminal: true });
        fields.iter().map(|fields| lines.line(&receipt(fields.clone()), NOW)).collect()
    }

    #[test]
    fn receipt_becomes_one_line() {
        let user = json!({"user": {"tenant": "acme", "user": "anna"}});
        let lines = plain(&[
            json!({"to": user, "connections": {"delivered": 2, "gone": 1}}),
            json!({"to": {"connection": "c="}, "connections": {"delivered": 1}}),
            json!({"outcome": "rejected", "to": user, "cause": "too\nlarge"}),
            json!({"outcome": "acknowledged", "to": user, "connection": "c="}),
            json!({"outcome": "poison", "at": u64::MAX}),
        ]);
        let expected = [
            "00:01:01.000  delivered     order-7  user anna of acme  2 delivered, 1 gone",
            "00:01:01.000  delivered     order-7  c=",
            "00:01:01.000  rejected      order-7  user anna of acme  (too\u{fffd}large)",
            "00:01:01.000  acknowledged  order-7  user anna of acme  by c=",
            "9999-12-31 23:59:59.999  poison        order-7",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn parts_are_counted_from_one() {
        let part = |part: &str| json!({"part": part});
        let expanded = json!({"outcome": "expanded", "parts": {"prefix": "9f", "count": 8}});
        let lines = plain(&[part("9f.2"), expanded, part("9f.2"), part("1/3"), part("\u{1b}")]);
        let ends: Vec<_> = lines.iter().map(|line| line.split_once("order-7  ").unwrap().1).collect();
        assert_eq!(ends, ["part 3", "8 parts", "part 3/8", "part 1/3", "part \u{fffd}"]);
    }

    #[test]
    fn outcome_decides_the_colour() {
        let mut lines = ReceiptLines::new(Paint { colours: true, terminal: true });
        for (outcome, style) in [("kept", GREEN), ("exhausted", RED), ("gone", DIM)] {
            let line = lines.line(&receipt(json!({"outcome": outcome})), NOW);
            assert!(line.contains(&format!("{style}{outcome:<12}{style:#}")), "{line:?}");
        }
    }
}
