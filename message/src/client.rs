//! The messages that the library builds for clients.

use std::convert::Infallible;

use serde::{Serialize, Serializer};

use crate::{MessageId, RequestId};

/// A message as a client receives it: `type` first, then what the type holds, then what every type has.
///
/// A client drops an `id` that it has seen, since delivery is at least once; it may drop a `progress` whose
/// `seq` is lower than one it has seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientMessage<'a, T> {
    /// What it says.
    #[serde(flatten)]
    pub content: ClientContent<'a, T>,
    /// The request that it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a RequestId>,
    /// The message's own id, the same on every redelivery.
    pub id: &'a MessageId,
    /// Its place among the request's messages.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// What a client message says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ClientContent<'a, T> {
    /// The request has arrived and is worked on.
    Acknowledgment {
        /// For people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// How far the work is.
    Progress {
        /// Percent of the work that is done.
        progress: Percent,
        /// For people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        /// Anything more.
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<T>,
    },
    /// The answer to a request that is answered at once.
    Response {
        /// The answer.
        data: T,
    },
    /// The end of a request that was worked on.
    Complete {
        /// What came of it.
        result: T,
    },
    /// The end of a request that failed.
    Error {
        /// What went wrong.
        error: ClientError<'a, T>,
    },
}

/// What went wrong with a request.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientError<'a, T> {
    /// For programs, such as `invalid_request`.
    pub code: &'a str,
    /// For people.
    pub message: &'a str,
    /// Anything more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<T>,
}

/// A whole number from 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Percent(#[cfg_attr(test, schemars(range(max = 100)))] u8);

/// A number over 100.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("percent go from 0 to 100, this is {0}")]
pub struct PercentOutOfRange(u8);

impl Percent {
    /// Nothing is done.
    pub const ZERO: Self = Self(0);

    /// How much `done` is of `total`, rounded down; all of it, where there is nothing to do or more is done.
    #[must_use]
    pub fn of(done: u64, total: u64) -> Self {
        let percent = u128::from(done).saturating_mul(100).checked_div(u128::from(total));
        Self(percent.and_then(|percent| u8::try_from(percent).ok()).map_or(100, |percent| percent.min(100)))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u8 {
        self.0
    }
}

impl TryFrom<u8> for Percent {
    type Error = PercentOutOfRange;

    fn try_from(number: u8) -> Result<Self, PercentOutOfRange> {
        if number <= 100 { Ok(Self(number)) } else { Err(PercentOutOfRange(number)) }
    }
}

impl From<Infallible> for PercentOutOfRange {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl Serialize for Percent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_string, value::to_raw_value};

    use super::*;

    fn text<T: Serialize>(content: ClientContent<'_, T>) -> String {
        let (id, request) = (MessageId::new("m").unwrap(), RequestId::new("r").unwrap());
        to_string(&ClientMessage { content, request_id: Some(&request), id: &id, seq: Some(7) }).unwrap()
    }

    #[test]
    fn type_comes_first_and_what_is_absent_is_left_out() {
        assert_eq!(
            text::<()>(ClientContent::Acknowledgment { message: None }),
            r#"{"type":"acknowledgment","request_id":"r","id":"m","seq":7}"#
        );
        let progress = Percent::try_from(40).unwrap();
        assert_eq!(
            text(ClientContent::Progress { progress, message: Some("half"), details: Some(json!([1])) }),
            r#"{"type":"progress","progress":40,"message":"half","details":[1],"request_id":"r","id":"m","seq":7}"#
        );
        let error = ClientError { code: "c", message: "m", details: None::<()> };
        assert_eq!(
            text(ClientContent::Error { error }),
            r#"{"type":"error","error":{"code":"c","message":"m"},"request_id":"r","id":"m","seq":7}"#
        );
    }

    #[test]
    fn data_keeps_its_bytes() {
        #[derive(Serialize)]
        struct Data {
            b: f64,
            a: u8,
        }
        let data = to_raw_value(&Data { b: 1.0, a: 2 }).unwrap();
        assert_eq!(
            text(ClientContent::Response { data: &data }),
            r#"{"type":"response","data":{"b":1.0,"a":2},"request_id":"r","id":"m","seq":7}"#
        );
        assert!(text(ClientContent::Complete { result: &data }).contains(r#""result":{"b":1.0,"a":2}"#));
    }

    #[test]
    fn a_message_of_no_request_has_no_request_id_and_no_seq() {
        let id = MessageId::new("m").unwrap();
        let content = ClientContent::Response { data: 1 };
        let message = ClientMessage { content, request_id: None, id: &id, seq: None };
        assert_eq!(to_string(&message).unwrap(), r#"{"type":"response","data":1,"id":"m"}"#);
    }

    #[test]
    fn percent_end_at_100() {
        assert_eq!(Percent::try_from(100).unwrap().get(), 100);
        assert!(Percent::try_from(101).is_err());
    }

    #[test]
    fn percent_of_something_are_rounded_down_and_end_at_100() {
        let of = |done, total| Percent::of(done, total).get();
        assert_eq!([of(0, 3), of(1, 3), of(2, 3), of(3, 3)], [0, 33, 66, 100]);
        assert_eq!([of(0, 0), of(4, 3), of(u64::MAX, u64::MAX), of(u64::MAX, 1)], [100; 4]);
    }
}
