//! The payloads that the library builds for clients.

use std::{convert::Infallible, fmt};

use serde::{Serialize, Serializer};

use crate::id::{MessageId, RequestId};

/// A message as a client receives it: `type`, then the fields of this type, then the fields of all types.
///
/// Delivery is at least once, so a client drops a message whose `id` it has seen. It may drop a `progress` whose
/// `seq` is lower than one that it has seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientMessage<'a, T> {
    /// The type, and its fields.
    #[serde(flatten)]
    pub content: ClientContent<'a, T>,
    /// The id of the request that the message answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<&'a RequestId>,
    /// The message's id, the same on every redelivery.
    pub id: &'a MessageId,
    /// The message's sequence number within its request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
}

/// The content of a client message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[serde(tag = "type", rename_all = "snake_case")]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub enum ClientContent<'a, T> {
    /// The request has arrived, and work on it has begun.
    Acknowledgment {
        /// A text for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
    },
    /// The share of the work that is done.
    Progress {
        /// Percentage of the work that is done.
        progress: Percent,
        /// A text for people.
        #[serde(skip_serializing_if = "Option::is_none")]
        message: Option<&'a str>,
        /// Further details.
        #[serde(skip_serializing_if = "Option::is_none")]
        details: Option<T>,
    },
    /// The answer to a request that is answered at once.
    Response {
        /// The answer.
        data: T,
    },
    /// The work on a request has ended with a result.
    Complete {
        /// The result.
        result: T,
    },
    /// The request failed.
    Error {
        /// The error.
        error: ClientError<'a, T>,
    },
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[non_exhaustive]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ClientError<'a, T> {
    /// A code for programs, such as `invalid_request`.
    pub code: &'a str,
    /// A text for people.
    pub message: &'a str,
    /// Further details.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub details: Option<T>,
}

impl<'a, T> ClientMessage<'a, T> {
    /// Returns a message without a request.
    ///
    /// ```
    /// use streamer_message::{ClientContent, ClientMessage, MessageId};
    ///
    /// let id = MessageId::new("m-1")?;
    /// let message = ClientMessage::new(&id, ClientContent::Response { data: "hello" });
    /// assert_eq!(serde_json::to_string(&message)?, r#"{"type":"response","data":"hello","id":"m-1"}"#);
    /// # Ok::<_, Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn new(id: &'a MessageId, content: ClientContent<'a, T>) -> Self {
        Self { content, request_id: None, id, seq: None }
    }
}

impl<'a, T> ClientError<'a, T> {
    /// Returns an error without details.
    #[must_use]
    pub fn new(code: &'a str, message: &'a str) -> Self {
        Self { code, message, details: None }
    }

    /// Sets the details.
    #[must_use]
    pub fn with_details(self, details: T) -> Self {
        Self { details: Some(details), ..self }
    }
}

/// A whole number from 0 to 100.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Percent(#[cfg_attr(test, schemars(range(max = 100)))] u8);

/// A number over 100 is not a percentage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("percent must be between 0 and 100, got {0}")]
pub struct PercentOutOfRange(u8);

impl Percent {
    /// 0 percent.
    pub const ZERO: Self = Self(0);

    /// Returns the percentage that `done` is of `total`, rounded down. It is 100 if `total` is 0, or less than `done`.
    ///
    /// ```
    /// use streamer_message::Percent;
    ///
    /// assert_eq!(Percent::of(1, 3).get(), 33);
    /// assert!(Percent::try_from(101).is_err());
    /// ```
    #[must_use]
    pub fn of(done: u64, total: u64) -> Self {
        let percent = u128::from(done).saturating_mul(100).checked_div(u128::from(total));
        Self(percent.and_then(|percent| u8::try_from(percent).ok()).map_or(100, |percent| percent.min(100)))
    }

    /// Returns the number.
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

impl From<Percent> for u8 {
    fn from(percent: Percent) -> Self {
        percent.0
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Lets a function take a `Percent` where it takes any number that may be one.
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
    fn type_is_first_and_absent_fields_omitted() {
        assert_eq!(
            text::<()>(ClientContent::Acknowledgment { message: None }),
            r#"{"type":"acknowledgment","request_id":"r","id":"m","seq":7}"#
        );
        let progress = Percent::try_from(40).unwrap();
        assert_eq!(
            text(ClientContent::Progress { progress, message: Some("half"), details: Some(json!([1])) }),
            r#"{"type":"progress","progress":40,"message":"half","details":[1],"request_id":"r","id":"m","seq":7}"#
        );
        let error = ClientError::<()>::new("c", "m");
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
    fn request_id_and_seq_are_optional() {
        let id = MessageId::new("m").unwrap();
        let content = ClientContent::Response { data: 1 };
        let message = ClientMessage { content, request_id: None, id: &id, seq: None };
        assert_eq!(to_string(&message).unwrap(), r#"{"type":"response","data":1,"id":"m"}"#);
    }

    #[test]
    fn percent_is_at_most_100() {
        assert_eq!(Percent::try_from(100).unwrap().get(), 100);
        assert!(Percent::try_from(101).is_err());
    }

    #[test]
    fn percent_of_total_is_rounded_down() {
        let of = |done, total| Percent::of(done, total).get();
        assert_eq!([of(0, 3), of(1, 3), of(2, 3), of(3, 3)], [0, 33, 66, 100]);
        assert_eq!([of(0, 0), of(4, 3), of(u64::MAX, u64::MAX), of(u64::MAX, 1)], [100; 4]);
    }
}
