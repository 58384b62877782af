//! `streamer listen`: connects as a client and prints each frame.

mod connection;
mod frame;
mod lookup;
mod mailbox;
mod outgoing;
mod run;
mod source;
pub(super) mod token;

use std::{
    io::{IsTerminal as _, stdin},
    num::NonZeroUsize,
    path::PathBuf,
    time::Duration,
};

use anyhow::{bail, ensure};
use clap::Args;
use streamer_message::{TenantId, UserId};
use tokio::{pin, select, time::sleep};

use self::{frame::Frames, mailbox::Mailbox, outgoing::Outgoing, run::Run, source::Source};
use crate::{paint::Paint, shutdown};

/// Connect as a client and print each message
///
/// Connects to the stack on this machine as a user, or with --url to any WebSocket API, and prints each frame that
/// arrives. Connects again when the connection ends, until Ctrl-C. Sends each line that is typed as a frame.
///
/// API Gateway ends a connection after 2 h, and after 10 min without traffic. The command sends a ping every 4 min.
/// AWS does not document whether a ping counts as traffic; if not, the command connects again.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer listen --user anna --tenant acme
  streamer listen --user anna --tenant acme --send '{\"type\":\"echo\",\"request_id\":\"r1\",\"text\":\"hello\"}'
  streamer listen --user anna --tenant acme --mailbox
  streamer listen --user anna --tenant acme --json --count 1 | jq .frame
  STREAMER_TOKEN=$(cat token) streamer listen --url wss://abc123.execute-api.eu-central-1.amazonaws.com/production

With --json, each line is an object: received_at, duplicate, and frame, or text for a frame that is not JSON.")]
pub struct Listen {
    /// User to connect as
    #[arg(long, required_unless_present = "url", value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    /// Tenant of the user
    #[arg(long, required_unless_present = "url", value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// Connect to this WebSocket URL, with the token in the variable STREAMER_TOKEN
    #[arg(long, conflicts_with_all = ["user", "tenant"])]
    url: Option<String>,
    /// Read the token for --url from this file before each connection
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Send this frame after the first connection; can be repeated
    #[arg(long, value_name = "JSON")]
    send: Vec<String>,
    /// Ask for the kept messages after each connection, from the oldest on
    #[arg(long)]
    mailbox: bool,
    /// Send each line of standard input, even if that is no terminal
    #[arg(long)]
    stdin: bool,
    /// Print one JSON object per frame
    #[arg(long)]
    json: bool,
    /// End after this number of frames, duplicates not counted
    #[arg(long, value_name = "NUMBER")]
    count: Option<NonZeroUsize>,
    /// End after this time, such as 30s or 5m; an error if --count is not reached by then
    #[arg(long, value_name = "TIME")]
    r#for: Option<humantime::Duration>,
}

/// The reason to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stop {
    /// Ctrl-C or SIGTERM.
    Requested,
    /// The time of `--for` is over.
    TimeOver,
    /// The frames of `--count` have arrived.
    Complete,
}

impl Listen {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, the handshake is refused, or fewer than `--count` frames arrive in time.
    pub async fn run(self) -> anyhow::Result<()> {
        let source = match (self.url, self.tenant, self.user) {
            (Some(url), _, _) => Source::Url { url, token_file: self.token_file },
            (None, Some(tenant), Some(user)) => Source::Local { tenant, user },
            _ => bail!("name a client with --user and --tenant, or an API with --url"),
        };
        let outgoing = Outgoing::new(self.send, self.stdin || stdin().is_terminal());
        let mailbox = self.mailbox.then(Mailbox::default);
        let frames = Frames::new(Paint::stdout(), self.json);
        let mut run = Run::new(source, frames, outgoing, mailbox, self.count);
        let limit = self.r#for.map(Duration::from);
        let stop = async {
            select! {
                _ = shutdown::requested() => Stop::Requested,
                () = sleep(limit.unwrap_or_default()), if limit.is_some() => Stop::TimeOver,
            }
        };
        pin!(stop);
        let stopped = run.listen(stop).await?;
        let (received, wanted) = (run.received(), self.count.map_or(0, NonZeroUsize::get));
        ensure!(
            stopped != Stop::TimeOver || received >= wanted,
            "only {received} of {wanted} frames arrived"
        );
        Ok(())
    }
}
