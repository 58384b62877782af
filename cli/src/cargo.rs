//! The cargo that builds the Lambda functions.

use std::{env, ffi::OsString};

/// Returns the cargo that runs this process, or else the one in `PATH`.
pub(crate) fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
