//! Errors with an exit code of their own.

use std::{error::Error, fmt};

/// Exit code for invalid arguments, as clap uses it.
pub const INVALID_ARGUMENT: u8 = 2;

/// Exit code of `send --wait` when a message was not delivered.
pub const NOT_DELIVERED: u8 = 3;

/// Exit code of `doctor` when a check failed.
pub const CHECK_FAILED: u8 = 4;

/// An error that ends the command with this exit code instead of 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code.
    pub code: u8,
    /// The text of the error.
    pub text: String,
}

impl Exit {
    /// Returns an error about an argument.
    #[must_use]
    pub fn invalid_argument(text: impl Into<String>) -> Self {
        Self { code: INVALID_ARGUMENT, text: text.into() }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl Error for Exit {}
