//! Options that select the deployment a command works on.

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use clap::Args;
use streamer_connections::ConnectionTable;
use streamer_producer::{Producer, SendError};
use tokio::sync::OnceCell;

use crate::{
    aws,
    stack::{Stack, state},
};

/// The deployment a command works on: the stack on this machine, or with `--aws` a deployment on AWS.
#[derive(Debug, Args)]
#[command(next_help_heading = "Deployment")]
pub struct Target {
    /// Use AWS, with the environment's Region and credentials
    #[arg(long)]
    aws: bool,
    /// URL of the outbound queue on AWS
    #[arg(long, env = "QUEUE_URL", value_name = "URL")]
    queue_url: Option<String>,
    /// Name of the connection table on AWS
    #[arg(long, env = "CONNECTIONS_TABLE", value_name = "NAME")]
    table: Option<String>,
    #[arg(skip)]
    loaded: OnceCell<SdkConfig>,
}

impl Target {
    /// Returns a producer for the outbound queue.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL, a Region or credentials.
    pub async fn producer(&self) -> anyhow::Result<Producer> {
        let (client, queue_url) = self.outbound_queue().await?;
        Ok(Producer::new(&client, queue_url))
    }

    /// Returns a client for the outbound queue, and its URL.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL, a Region or credentials.
    pub async fn outbound_queue(&self) -> anyhow::Result<(Client, String)> {
        if self.aws {
            let queue_url = self.queue_url.clone();
            let queue_url =
                queue_url.context("--aws needs the queue: --queue-url, or the variable QUEUE_URL")?;
            return Ok((Client::new(&self.config().await?), queue_url));
        }
        let stack = local_stack().await?;
        Ok((Client::new(&stack.config), stack.deployed.queue_url))
    }

    /// Returns the connection table.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the table's name, a Region or credentials.
    pub async fn table(&self) -> anyhow::Result<ConnectionTable> {
        if self.aws {
            let table = self.table.as_deref();
            let table = table.context("--aws needs the table: --table, or the variable CONNECTIONS_TABLE")?;
            return Ok(ConnectionTable::new(aws_sdk_dynamodb::Client::new(&self.config().await?), table));
        }
        Ok(local_stack().await?.table())
    }

    /// Returns the configuration of clients of the deployment.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without a Region or credentials.
    pub async fn config(&self) -> anyhow::Result<SdkConfig> {
        if self.aws {
            return Ok(self.loaded.get_or_try_init(aws::load).await?.clone());
        }
        Ok(local_stack().await?.config)
    }

    /// Returns the error of a message that is not on the outbound queue.
    #[must_use]
    pub fn send_failed(&self, error: SendError) -> anyhow::Error {
        aws::send_failed(error, self.queue_url.as_deref().unwrap_or("of the local stack"))
    }
}

/// Returns the stack on this machine.
///
/// # Errors
/// When no stack is up.
pub(super) async fn local_stack() -> anyhow::Result<Stack> {
    let running = state::running().await?;
    let running = running.context(
        "no stack is up on this machine: start one with `streamer up`, or use --aws and name the deployment",
    )?;
    Ok(running.stack)
}
