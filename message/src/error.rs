//! Why the body of a queue message cannot be decoded.

/// Why a body is not a message. No text repeats a value of the body, because values may be confidential.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The body is not a JSON object.
    #[error("the body is not a JSON object (line {line}, column {column})")]
    NotAnObject {
        /// The line of the fault, from 1.
        line: usize,
        /// The column of the fault, from 1.
        column: usize,
    },
    /// The body is a message inside something else, or something else that another service sends.
    #[error("the body is {found}: {remedy}")]
    Wrapped {
        /// A description of the body.
        found: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// The message was written for a later version of Streamer.
    #[error("version {0} is not known here, only version 1: upgrade the worker, then redrive")]
    UnknownVersion(u64),
    /// A required field is missing.
    #[error("`{field}` is missing; expected {expected}")]
    Missing {
        /// The name of the field.
        field: &'static str,
        /// A description of its valid values.
        expected: &'static str,
    },
    /// A field occurs more than once.
    #[error("`{0}` occurs more than once")]
    Repeated(&'static str),
    /// The value of a field is not valid.
    #[error("`{field}` is not valid; expected {expected}")]
    Invalid {
        /// The name of the field.
        field: &'static str,
        /// A description of its valid values.
        expected: &'static str,
    },
    /// The value of a field is a time in another unit or form.
    #[error(
        "`{field}` {found}; expected milliseconds since the epoch, a number such as 1795791600000: {remedy}"
    )]
    NotMilliseconds {
        /// The name of the field.
        field: &'static str,
        /// A description of the value.
        found: &'static str,
        /// The remedy.
        remedy: &'static str,
    },
    /// The message is to be kept, and is not for a user.
    #[error("`keep` is only for a message to one user: address the user, or leave `keep` out")]
    KeepAudience,
}
