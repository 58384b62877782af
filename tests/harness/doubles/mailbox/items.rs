//! Keys, sizes and values of items in DynamoDB's JSON.

use serde_json::Value;

use super::table::Item;

/// Bytes that a read unit reads consistently, and a write unit writes.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/capacity-unit-calculations.html>.
const READ_BYTES: usize = 4096;
const WRITE_BYTES: usize = 1024;

/// Returns the units of a consistent read of so many bytes. One without a result costs a unit, too.
pub(super) fn read_units(bytes: usize) -> usize {
    bytes.div_ceil(READ_BYTES).max(1)
}

/// Returns the units of a write of an item of so many bytes, the larger of its old and its new size. A refused one costs
/// those of the item that refuses it, or 1.
pub(super) fn write_units(bytes: usize) -> usize {
    bytes.div_ceil(WRITE_BYTES).max(1)
}

/// Returns the size of an item in bytes, as DynamoDB counts it: the names and the values.
///
/// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
pub(super) fn size(item: &Item) -> usize {
    let of = |value: &Value| match (value["S"].as_str(), value["N"].as_str()) {
        (Some(text), _) => text.len(),
        (None, Some(number)) => number.len().div_ceil(2) + 1,
        (None, None) => 1,
    };
    item.iter().map(|(name, value)| name.len() + of(value)).sum()
}

/// Returns hash key and range key of an item.
pub(super) fn key(item: &Value) -> (String, String) {
    (text(&item["stream"]), text(&item["item"]))
}

pub(super) fn text(value: &Value) -> String {
    value["S"].as_str().unwrap_or_default().to_owned()
}

pub(super) fn number(value: &Value) -> u64 {
    value["N"].as_str().map_or(0, parse)
}

pub(super) fn parse(number: &str) -> u64 {
    number.parse().unwrap_or_default()
}
