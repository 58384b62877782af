//! The cargo that builds the Lambda functions.

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{ExitStatus, Stdio},
};

use anyhow::Context as _;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::Command,
};

/// Width of cargo's progress bar with the names after it, in columns.
const PROGRESS_WIDTH: &str = "100";

/// Returns the cargo that runs this process, or else the one in `PATH`.
pub(crate) fn program() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The output of a command of cargo that has ended.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    /// Standard error without the progress.
    pub(crate) messages: String,
}

/// Runs a command of cargo until it ends, and passes its progress to `show`.
///
/// # Errors
/// When the command cannot be run.
pub(crate) async fn run(command: &mut Command, show: impl FnMut(&str)) -> anyhow::Result<Output> {
    let name = command.as_std().get_program().to_string_lossy().into_owned();
    let child = command
        .env("CARGO_TERM_PROGRESS_WHEN", "always")
        .env("CARGO_TERM_PROGRESS_WIDTH", PROGRESS_WIDTH)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.with_context(|| {
        format!("cannot run `{name}`, which builds the Lambda functions: install Rust with rustup")
    })?;
    let (mut out, err) =
        (child.stdout.take().context("no output")?, child.stderr.take().context("no output")?);
    let mut stdout = Vec::new();
    let (read, messages) = tokio::join!(out.read_to_end(&mut stdout), read_messages(err, show));
    read?;
    Ok(Output { status: child.wait().await?, stdout, messages: messages? })
}

/// Reads cargo's standard error to its end: passes the progress to `show`, and returns the rest.
async fn read_messages(
    mut stderr: impl AsyncRead + Unpin,
    mut show: impl FnMut(&str),
) -> std::io::Result<String> {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    loop {
        let ended = stderr.read_buf(&mut buffer).await? == 0;
        // Cargo overwrites its progress, which therefore ends with a carriage return.
        while let Some(end) = buffer.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let line: Vec<_> = buffer.drain(..=end).collect();
            match progress(&String::from_utf8_lossy(&line)) {
                Some(text) => show(&text),
                None => messages.extend(line.into_iter().filter(|byte| *byte != b'\r')),
            }
        }
        if ended {
            messages.append(&mut buffer);
            return Ok(String::from_utf8_lossy(&messages).into_owned());
        }
    }
}

/// Returns what cargo is doing according to a line of its standard error, or `None` for any other line.
fn progress(line: &str) -> Option<String> {
    let (status, rest) = line.trim().split_once(' ')?;
    let rest = rest.trim();
    match status {
        // Such as `[=====>      ] 12/345: serde, tokio`.
        "Building" if rest.starts_with('[') => {
            let (count, names) = rest.split_once("] ")?.1.split_once(": ")?;
            let (done, all) = count.trim().split_once('/')?;
            Some(format!("{done} of {all}: {}", names.split(", ").next()?))
        }
        "Blocking" => Some("waits for another cargo".to_owned()),
        "Updating" | "Downloading" | "Downloaded" => Some(format!("{} {rest}", status.to_lowercase())),
        _ => None,
    }
}

/// Cargo's JSON message for an artifact.
#[derive(Deserialize)]
struct Artifact {
    target: Target,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// Returns the executables that cargo's JSON messages name, with the names of their targets.
pub(crate) fn executables(stdout: &[u8]) -> impl Iterator<Item = (String, PathBuf)> {
    let artifacts = stdout.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    artifacts.filter_map(|Artifact { target, executable }| Some((target.name, executable?)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[tokio::test]
    async fn progress_is_separate_from_messages() {
        let output = "    Updating crates.io index\n   Compiling serde v1.0.1\n    \
                      Building [===>     ] 12/345: serde, tokio\r\u{1b}[Kerror: no such crate\n    \
                      Blocking waiting for file lock on build directory\nlast";
        let mut shown = Vec::new();
        let messages = read_messages(output.as_bytes(), |text| shown.push(text.to_owned())).await.unwrap();
        assert_eq!(shown, ["updating crates.io index", "12 of 345: serde", "waits for another cargo"]);
        assert_eq!(messages, "   Compiling serde v1.0.1\n\u{1b}[Kerror: no such crate\nlast");
    }
}
