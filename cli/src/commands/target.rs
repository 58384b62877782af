//! Options that select the deployment a command works on.

use anyhow::Context as _;
use aws_config::SdkConfig;
use aws_sdk_sqs::Client;
use clap::Args;
use streamer_connections::{ConnectionTable, TenantShards};
use streamer_mailbox::{DynamoTable, Mailbox, Settings};
use streamer_producer::Producer;
use tokio::sync::OnceCell;

use crate::{
    aws,
    exit::Exit,
    stack::{self, Stack, state},
};

/// The error of `--aws` without the URL of the receipts queue.
const NO_RECEIPTS_QUEUE: &str = "receipts are on a queue of their own: name it with --receipts-queue-url, or the variable RECEIPTS_QUEUE_URL; a \
     deployment has one with `receipts = true` in Terraform, as its output `receipts_queue_url`";

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
    /// Shards to read of a tenant on AWS, 1 to 256; at least the worker's TENANT_SHARDS
    #[arg(long, env = "TENANT_SHARDS", value_name = "NUMBER", value_parser = tenant_shards)]
    tenant_shards: Option<TenantShards>,
    /// Name of the mailbox table on AWS
    #[arg(long, env = "MAILBOX_TABLE", value_name = "NAME")]
    mailbox_table: Option<String>,
    /// URL of the receipts queue on AWS
    #[arg(long, env = "RECEIPTS_QUEUE_URL", value_name = "URL")]
    receipts_queue_url: Option<String>,
    #[arg(skip)]
    loaded: OnceCell<SdkConfig>,
}

impl Target {
    /// Returns whether the command works on AWS.
    pub(super) fn is_aws(&self) -> bool {
        self.aws
    }

    /// Returns the URL of the outbound queue on AWS. `None` for the stack on this machine.
    pub(super) fn aws_queue(&self) -> Option<&str> {
        self.queue_url.as_deref().filter(|_| self.aws)
    }

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

    /// Returns a client for the receipts queue, and its URL.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the queue's URL, a Region or credentials.
    pub(super) async fn receipts_queue(&self) -> anyhow::Result<(Client, String)> {
        if self.aws {
            let url =
                self.receipts_queue_url.clone().ok_or_else(|| Exit::invalid_argument(NO_RECEIPTS_QUEUE))?;
            return Ok((Client::new(&self.config().await?), url));
        }
        let stack = local_stack().await?;
        Ok((Client::new(&stack.config), stack.deployed.receipts_queue_url))
    }

    /// Returns the connection table.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the table's name, a Region or credentials.
    pub async fn table(&self) -> anyhow::Result<ConnectionTable> {
        if self.aws {
            let table = self.table.as_deref();
            let table = table.context("--aws needs the table: --table, or the variable CONNECTIONS_TABLE")?;
            let table = ConnectionTable::new(aws_sdk_dynamodb::Client::new(&self.config().await?), table);
            // The worker's number is unknown here, and all shards hold every row.
            return Ok(table.with_shards(self.tenant_shards.unwrap_or(TenantShards::MAX)));
        }
        Ok(local_stack().await?.table())
    }

    /// Returns the mailbox.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without the table's name, a Region or credentials.
    pub(super) async fn mailbox(&self) -> anyhow::Result<Mailbox<DynamoTable>> {
        if self.aws {
            let table = self.mailbox_table.as_deref().context(
                "--aws needs the mailbox table: --mailbox-table, or the variable MAILBOX_TABLE; a deployment has one \
                 with `mailbox = true` in Terraform",
            )?;
            let client = aws_sdk_dynamodb::Client::new(&self.config().await?);
            return Ok(Mailbox::new(DynamoTable::new(client, table), Settings::default()));
        }
        Ok(local_stack().await?.mailbox())
    }

    /// Returns the configuration of clients of the deployment.
    ///
    /// # Errors
    /// When no stack is up, or `--aws` is set without a Region or credentials.
    pub async fn config(&self) -> anyhow::Result<SdkConfig> {
        if self.aws {
            return Ok(self.loaded.get_or_try_init(load_aws).await?.clone());
        }
        Ok(local_stack().await?.config)
    }
}

fn tenant_shards(text: &str) -> Result<TenantShards, String> {
    let shards = text.parse().ok().and_then(TenantShards::new);
    shards.ok_or_else(|| "expected a whole number from 1 to 256".to_owned())
}

/// Loads the configuration for AWS. Says so if the variables of `streamer env` lead elsewhere.
///
/// # Errors
/// When there is no Region, or there are no credentials.
pub(super) async fn load_aws() -> anyhow::Result<SdkConfig> {
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
