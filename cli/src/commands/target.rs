//! Options that select the deployment a command works on.

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use clap::Args;
use streamer_connections::ConnectionTable;
use streamer_environment::aws;
use streamer_producer::Producer;

use crate::stack::{self, Stack, state};

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
}

impl Target {
    /// Returns whether the command works on AWS.
    pub(super) fn is_aws(&self) -> bool {
        self.aws
    }

    /// Returns a producer for the outbound queue.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL.
    pub async fn producer(&self) -> anyhow::Result<Producer> {
        let (client, queue_url) = self.outbound_queue().await?;
        Ok(Producer::new(&client, queue_url))
    }

    /// Returns a client for the outbound queue, and its URL.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL.
    pub async fn outbound_queue(&self) -> anyhow::Result<(Client, String)> {
        if self.aws {
            let queue_url = self.queue_url.clone();
            let queue_url =
                queue_url.context("--aws needs the queue: --queue-url, or the variable QUEUE_URL")?;
            return Ok((Client::new(&load_aws().await), queue_url));
        }
        let stack = local_stack().await?;
        Ok((Client::new(&stack.config), stack.deployed.queue_url))
    }

    /// Returns the connection table.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the table's name.
    pub async fn table(&self) -> anyhow::Result<ConnectionTable> {
        if self.aws {
            let table = self.table.as_deref();
            let table = table.context("--aws needs the table: --table, or the variable CONNECTIONS_TABLE")?;
            return Ok(ConnectionTable::new(aws_sdk_dynamodb::Client::new(&load_aws().await), table));
        }
        Ok(local_stack().await?.table())
    }

    /// Returns the configuration of clients of the deployment.
    ///
    /// # Errors
    /// When no stack is up and `--aws` is not set.
    pub async fn config(&self) -> anyhow::Result<SdkConfig> {
        if self.aws { Ok(load_aws().await) } else { Ok(local_stack().await?.config) }
    }
}

/// Loads the configuration for AWS. Says so if the variables of `streamer env` lead elsewhere.
pub(super) async fn load_aws() -> SdkConfig {
    if stack::has_own_endpoint() {
        eprintln!(
            "streamer: --aws means the stack on this machine here, since `streamer env` has set AWS_ENDPOINT_URL: \
             `eval \"$(streamer env --unset)\"` removes its variables"
        );
    }
    aws::load().await
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
