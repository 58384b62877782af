//! Which deployment a command works on.

use anyhow::{Context as _, bail};
use clap::Args;
use streamer_producer::Producer;

use crate::stack::state;

/// Which deployment a command works on: the stack on this machine if one is up, AWS only with `--aws`.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deployment")]
pub struct Target {
    /// Works on AWS, with the region and the credentials of the environment.
    #[arg(long)]
    aws: bool,
    /// The outbound queue on AWS.
    #[arg(long, env = "QUEUE_URL", value_name = "URL")]
    queue_url: Option<String>,
}

impl Target {
    /// A producer for the outbound queue.
    ///
    /// # Errors
    /// When no deployment is meant, or the one that is meant is not there.
    pub async fn producer(&self) -> anyhow::Result<Producer> {
        if self.aws {
            let queue_url = self
                .queue_url
                .as_deref()
                .context("--aws needs the queue: --queue-url, or the variable QUEUE_URL")?;
            return Ok(Producer::connect(queue_url).await);
        }
        match state::running().await? {
            Some(running) => Ok(running.stack.producer()),
            None => bail!(
                "no stack is up on this machine: start one with `streamer up`, or say --aws and --queue-url to send \
                 to AWS"
            ),
        }
    }
}
