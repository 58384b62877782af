//! `streamer down`: ends the local stack.

use clap::Args;

use crate::{screen::Screen, stack::owner};

/// Stop the local stack
///
/// Ends every process of the stack that `streamer up` or `streamer --keep` started, also while it is starting, and also
/// if some of them were killed. Does nothing if no stack is up.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  streamer down")]
pub struct Down {}

impl Down {
    /// Runs the command.
    ///
    /// # Errors
    /// When a process does not end.
    pub async fn run(self) -> anyhow::Result<()> {
        let ended = owner::end().await?;
        Screen::new().line(if ended { "the stack is down" } else { "no stack is up" });
        Ok(())
    }
}
