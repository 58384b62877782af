//! Times in a body: milliseconds since the epoch, and the numbers and texts that other clocks write instead.

use std::ops::RangeInclusive;

use serde_json::value::RawValue;

use crate::{error::DecodeError, fields::Fields, number::Millis};

/// The lowest time: 3 March 1973. A lower number is a time in seconds, up to the year 5138.
pub const EARLIEST: u64 = 100_000_000_000;

/// Numbers that are the time of these years in microseconds, 2001 to 2128. In milliseconds they would be the years
/// 33658 to 160410, which no one means. Numbers that stand for "never" are elsewhere: the year 9999 is below, and
/// the largest integers of JavaScript, of 64 bits with and without sign are above.
const MICROSECONDS: RangeInclusive<u64> = 1_000_000_000_000_000..=4_999_999_999_999_999;

/// The same years in nanoseconds.
const NANOSECONDS: RangeInclusive<u64> = 1_000_000_000_000_000_000..=4_999_999_999_999_999_999;

const EXPECTED: &str = "milliseconds since the epoch, a number such as 1795791600000";

/// Reads a time that may be absent.
pub(crate) fn optional(fields: &mut Fields<'_>, field: &'static str) -> Result<Option<u64>, DecodeError> {
    let Some(value) = fields.optional::<&RawValue>(field, EXPECTED)? else { return Ok(None) };
    let unlike = |found, remedy| DecodeError::NotMilliseconds { field, found, remedy };
    let millis = match serde_json::from_str(value.get()) {
        Ok(Millis(millis)) => millis,
        Err(_) if is_number_in_quotes(value.get()) => {
            return Err(unlike("is a number in quotes", "write it without quotes"));
        }
        Err(_) if value.get().starts_with('"') => {
            return Err(unlike("is a string", "write a date as the number of milliseconds"));
        }
        Err(_) => return Err(DecodeError::Invalid { field, expected: EXPECTED }),
    };
    match millis {
        0..EARLIEST => Err(unlike("looks like seconds", "multiply it by 1000")),
        _ if MICROSECONDS.contains(&millis) => Err(unlike("looks like microseconds", "divide it by 1000")),
        _ if NANOSECONDS.contains(&millis) => Err(unlike("looks like nanoseconds", "divide it by 1000000")),
        _ => Ok(Some(millis)),
    }
}

fn is_number_in_quotes(json: &str) -> bool {
    let text = json.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    text.is_some_and(|text| text.trim().parse::<f64>().is_ok_and(f64::is_finite))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Result<Option<u64>, String> {
        let body = format!(r#"{{"expires_at":{value}}}"#);
        optional(&mut Fields::read(&body).unwrap(), "expires_at").map_err(|error| error.to_string())
    }

    #[test]
    fn other_units_are_named_with_their_remedy() {
        let expected = "; expected milliseconds since the epoch, a number such as 1795791600000: ";
        for (value, found, remedy) in [
            ("1795791600", "looks like seconds", "multiply it by 1000"),
            ("1795791600.25", "looks like seconds", "multiply it by 1000"),
            ("1.7957916e9", "looks like seconds", "multiply it by 1000"),
            ("99999999999", "looks like seconds", "multiply it by 1000"),
            ("0", "looks like seconds", "multiply it by 1000"),
            ("1000000000000000", "looks like microseconds", "divide it by 1000"),
            ("1795791600000000", "looks like microseconds", "divide it by 1000"),
            ("1795791600000000000", "looks like nanoseconds", "divide it by 1000000"),
            (r#""1795791600000""#, "is a number in quotes", "write it without quotes"),
            (r#"" 1795791600.5 ""#, "is a number in quotes", "write it without quotes"),
            (r#""2026-11-27T12:00:00Z""#, "is a string", "write a date as the number of milliseconds"),
            (r#""never""#, "is a string", "write a date as the number of milliseconds"),
        ] {
            assert_eq!(read(value), Err(format!("`expires_at` {found}{expected}{remedy}")), "{value}");
        }
        for value in ["-1", "true", "[1795791600000]", "{}", "1e30"] {
            assert!(read(value).unwrap_err().starts_with("`expires_at` is not valid"), "{value}");
        }
    }

    #[test]
    fn every_time_in_milliseconds_is_valid() {
        let never =
            [253_402_300_799_000, 8_640_000_000_000_000, 9_007_199_254_740_991, i64::MAX as u64, u64::MAX];
        for millis in [EARLIEST, 1_764_000_000_000, 4_102_444_800_000].into_iter().chain(never) {
            assert_eq!(read(&millis.to_string()), Ok(Some(millis)), "{millis}");
        }
        assert_eq!(read("null"), Ok(None));
        assert_eq!(read("4102444800000.5"), Ok(Some(4_102_444_800_000)));
    }
}
