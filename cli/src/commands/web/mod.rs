//! `streamer web`: serves a page with the client of `client/`, to look at the local stack.
//!
//! - `files`: the page and the client, embedded in this program.
//! - `guard`: refuses requests of other sites.
//! - `actions`: the requests with which the page acts on the stack.
//! - `answer`: from a request to its response. `server`: the connections.

mod actions;
mod answer;
mod files;
mod guard;
mod server;

use std::{net::Ipv4Addr, pin::pin, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::json;
use tokio::{net::TcpListener, time::sleep};

use self::answer::Site;
use crate::{screen::Screen, shutdown, stack::state};

/// How often the command checks that the stack is still up.
const STACK_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Serve a page that shows the local stack at work
///
/// Serves a page on 127.0.0.1 until Ctrl-C or the end of the stack. The page signs in as a user, connects one or more
/// devices with the JavaScript client, and shows each frame. Buttons cut the network, keep messages and kill the worker.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer web
  streamer web --port 8080
  streamer web --json | jq -r .url")]
pub struct Web {
    /// Port of the page [default: a free port]
    #[arg(long)]
    port: Option<u16>,
    /// Print one JSON object with the page's URL
    #[arg(long)]
    json: bool,
}

impl Web {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, the port is in use, the stack ends, or a signal ends the command.
    pub async fn run(self) -> anyhow::Result<()> {
        // One future for the whole time, so that no signal is lost in between.
        let mut shutdown = pin!(shutdown::requested());
        let running = state::require_running().await?;
        let port = self.port.unwrap_or(0);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.with_context(|| {
            format!(
                "cannot listen on port {port} of 127.0.0.1: choose another one with --port, or leave it out"
            )
        })?;
        let site = Site::new(listener.local_addr()?, running.stack);
        let url = site.url();
        let screen = Screen::new();
        if self.json {
            screen.verbatim(json!({ "url": url }).to_string());
        } else {
            screen.line(format!("\n page  {url}\n\n Open it in a browser. End it with Ctrl-C.\n"));
        }
        tokio::select! {
            signal = &mut shutdown => Err(signal.interrupted("the page is closed")),
            () = server::serve(listener, site) => bail!("the server has ended"),
            () = stack_ended(running.pid) => bail!("the stack has ended, and with it the page: start one with `streamer up`"),
        }
    }
}

/// Waits until the stack with this owner has ended.
async fn stack_ended(pid: u32) {
    // After an error, the owner is unknown: the next check has the answer.
    while !matches!(state::owner_pid(), Ok(owner) if owner != Some(pid)) {
        sleep(STACK_POLL_INTERVAL).await;
    }
}
