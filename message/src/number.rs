//! Numbers in JSON, which has one kind: `1.0` and `1e0` are 1 (RFC 8259, section 6).

use std::{fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

/// Reads a whole number in any notation.
pub(crate) fn whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<T, D::Error> {
    deserializer.deserialize_any(Number { fractions: false, of: PhantomData })
}

/// Reads a whole number in any notation, or `None` from `null`.
pub(crate) fn optional_whole<'de, D: Deserializer<'de>, T: TryFrom<u64>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    Ok(Option::<Whole<T>>::deserialize(deserializer)?.map(|Whole(number)| number))
}

/// A whole number in any notation.
pub(crate) struct Whole<T>(pub(crate) T);

impl<'de, T: TryFrom<u64>> Deserialize<'de> for Whole<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        whole(deserializer).map(Self)
    }
}

/// A time in milliseconds. Clocks of other languages write a fraction, which is dropped.
pub(crate) struct Millis(pub(crate) u64);

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number { fractions: true, of: PhantomData }).map(Self)
    }
}

struct Number<T> {
    fractions: bool,
    of: PhantomData<T>,
}

impl<T: TryFrom<u64>> Visitor<'_> for Number<T> {
    type Value = T;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        number.try_into().map_err(|_| E::custom("the number is too large"))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
        let whole = number.floor();
        // Both bounds are exact, and so is the cast between them.
        let fits = (0.0..18_446_744_073_709_551_616.0).contains(&number);
        if !fits || (whole != number && !self.fractions) {
            return Err(E::custom("not a whole number"));
        }
        self.visit_u64(whole as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Read {
        #[serde(deserialize_with = "whole")]
        number: u64,
        #[serde(default, deserialize_with = "optional_whole")]
        small: Option<u8>,
    }

    fn read(number: &str, small: &str) -> Option<Read> {
        serde_json::from_str(&format!(r#"{{"number":{number},"small":{small}}}"#)).ok()
    }

    #[test]
    fn other_values_are_refused() {
        for text in ["-1", "-0.5", "1.5", "1e20", "18446744073709551616", "\"1\"", "null", "true", "[1]"] {
            assert_eq!(read(text, "1"), None, "{text}");
        }
        assert_eq!(read("1", "256"), None);
        assert_eq!(read("1", "null"), Some(Read { number: 1, small: None }));
        assert_eq!(read("18446744073709551615", "255.0").map(|read| read.number), Some(u64::MAX));
    }

    #[test]
    fn times_may_have_fractions() {
        let millis = |text: &str| serde_json::from_str::<Millis>(text).map(|Millis(number)| number).ok();
        assert_eq!(millis("1764000000000.5"), Some(1_764_000_000_000));
        assert_eq!((millis("1.764e12"), millis("-1.5")), (Some(1_764_000_000_000), None));
    }

    proptest! {
        #[test]
        fn all_notations_of_a_number_are_equal(number in 0..=(1_u64 << 53)) {
            for text in [number.to_string(), format!("{number}.0"), format!("{number}e0"), format!("{number}.00E+0")] {
                prop_assert_eq!(read(&text, "1.0"), Some(Read { number, small: Some(1) }), "{}", text);
            }
        }
    }
}
