//! Which deployment a command works on.

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use clap::Args;
use streamer_connections::ConnectionTable;
use streamer_environment::aws;
use streamer_producer::Producer;

use crate::stack::{Stack, state};

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
    /// The connection table on AWS.
    #[arg(long, env = "CONNECTIONS_TABLE", value_name = "NAME")]
    table: Option<String>,
}

impl Target {
    /// A producer for the outbound queue.
    ///
    /// # Errors
    /// When no deployment is meant, or the one that is meant is not there.
    pub async fn producer(&self) -> anyhow::Result<Producer> {
        let (client, queue_url) = self.outbound().await?;
        Ok(Producer::new(&client, queue_url))
    }

    /// The outbound queue, and a client for it.
    ///
    /// # Errors
    /// When no deployment is meant, or the one that is meant is not there.
    pub async fn outbound(&self) -> anyhow::Result<(Client, String)> {
        if self.aws {
            let queue_url = self.queue_url.clone();
            let queue_url =
                queue_url.context("--aws needs the queue: --queue-url, or the variable QUEUE_URL")?;
            return Ok((Client::new(&aws::load().await), queue_url));
        }
        let stack = local().await?;
        Ok((Client::new(&stack.config), stack.deployed.queue_url))
    }

    /// The connection table.
    ///
    /// # Errors
    /// When no deployment is meant, or the one that is meant is not there.
    pub async fn table(&self) -> anyhow::Result<ConnectionTable> {
        if self.aws {
            let table = self.table.as_deref();
            let table = table.context("--aws needs the table: --table, or the variable CONNECTIONS_TABLE")?;
            return Ok(ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws::load().await), table));
        }
        Ok(local().await?.table())
    }

    /// The configuration of clients of the deployment.
    ///
    /// # Errors
    /// When no deployment is meant, or the one that is meant is not there.
    pub async fn config(&self) -> anyhow::Result<SdkConfig> {
        if self.aws { Ok(aws::load().await) } else { Ok(local().await?.config) }
    }
}

/// The stack on this machine.
///
/// # Errors
/// When none is up.
pub(super) async fn local() -> anyhow::Result<Stack> {
    let running = state::running().await?;
    let running = running.context(
        "no stack is up on this machine: start one with `streamer up`, or say --aws and where the deployment is",
    )?;
    Ok(running.stack)
}
