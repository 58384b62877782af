//! `streamer env`: prints the variables with which other programs use the local stack.

use std::io::{Write as _, stdout};

use clap::Args;
use serde_json::Value;

use crate::stack::{
    ENDPOINT_OF_STACK,
    deploy::{CREDENTIAL, Deployed},
    state,
};

/// Print variables for programs that use the local stack
///
/// Prints lines for a shell: the endpoint, the Region and the credentials for any AWS SDK, and the names and URLs of the
/// stack's queues, tables and WebSocket API.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  eval \"$(streamer env)\"
  (eval \"$(streamer env)\"; aws sqs receive-message --queue-url \"$DEAD_LETTER_QUEUE_URL\")   for one command
  eval \"$(streamer env --unset)\"")]
pub struct Env {
    /// Print one JSON object
    #[arg(long, conflicts_with = "unset")]
    json: bool,
    /// Print a line that removes the variables; needs no stack
    #[arg(long)]
    unset: bool,
}

impl Env {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up.
    pub async fn run(self) -> anyhow::Result<()> {
        if self.unset {
            let names = variables(&Deployed::default()).map(|(name, _)| name);
            return Ok(writeln!(stdout(), "unset {}", names.join(" "))?);
        }
        let deployed = state::require_running().await?.stack.deployed;
        if self.json {
            let object = variables(&deployed).map(|(name, value)| (name.to_owned(), value.into()));
            return Ok(writeln!(stdout(), "{}", Value::Object(object.into_iter().collect()))?);
        }
        Ok(write!(stdout(), "{}", shell_lines(&deployed))?)
    }
}

/// Returns lines that set the variables in a POSIX shell.
#[must_use]
pub fn shell_lines(deployed: &Deployed) -> String {
    variables(deployed).map(|(name, value)| format!("export {name}={}\n", quoted(value))).concat()
}

fn variables(deployed: &Deployed) -> [(&'static str, &str); 14] {
    [
        ("AWS_ENDPOINT_URL", &deployed.endpoint_url),
        (ENDPOINT_OF_STACK, &deployed.endpoint_url),
        ("AWS_REGION", &deployed.region),
        ("AWS_DEFAULT_REGION", &deployed.region),
        ("AWS_ACCESS_KEY_ID", CREDENTIAL),
        ("AWS_SECRET_ACCESS_KEY", CREDENTIAL),
        ("AWS_EC2_METADATA_DISABLED", "true"),
        ("QUEUE_URL", &deployed.queue_url),
        ("PARTS_QUEUE_URL", &deployed.parts_queue_url),
        ("DEAD_LETTER_QUEUE_URL", &deployed.dead_letter_queue_url),
        ("RECEIPTS_QUEUE_URL", &deployed.receipts_queue_url),
        ("CONNECTIONS_TABLE", &deployed.connections_table),
        ("MAILBOX_TABLE", &deployed.mailbox_table),
        ("WEBSOCKET_URL", &deployed.websocket_url),
    ]
}

/// Quotes a word for a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn shell_reads_quoted_word_unchanged() {
        let word = "it's $HOME `id` \"a\" \\ \n end'";
        let script = format!("printf %s {}", quoted(word));
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), word);
    }
}
