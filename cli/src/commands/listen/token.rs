//! A client's token.

use std::{env, fs, path::Path};

use anyhow::{Context as _, ensure};

/// The variable that has the token, unless a file has it.
pub(in crate::commands) const VARIABLE: &str = "STREAMER_TOKEN";

/// Reads a token from a file, or else from the variable. `needed_by` is the flag that needs one.
///
/// # Errors
/// When neither has a token, or it has characters that no token has.
pub(in crate::commands) fn read(file: Option<&Path>, needed_by: &str) -> anyhow::Result<String> {
    let token = match file {
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("cannot read a token from {}", path.display()))?,
        None => env::var(VARIABLE).ok().with_context(|| {
            format!("{needed_by} needs a token: --token-file FILE, or the variable {VARIABLE}")
        })?,
    };
    let token = token.trim();
    let is_token = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    ensure!(is_token, "the token is empty or has characters that no token has");
    Ok(token.to_owned())
}
