//! `streamer status`: shows the state of a deployment.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    time::Duration,
};

use clap::Args;
use futures::FutureExt as _;
use tokio::time::sleep;

use super::target::{load_aws, local_stack};
use crate::{
    screen::{can_redraw, width},
    shutdown,
    spec::Spec,
    status::{self, Deployment, DeploymentStatus},
};

/// Show queues, dead letters, connections, functions and circuit breaker
///
/// Resource names come from the worker's configuration. Numbers that are not measured are left out: an emulator
/// measures neither ages nor invocations by queues and clients.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer status
  streamer status --watch
  streamer status --aws --name streamer
  streamer status --json | jq .dead_letters.waiting

Permissions on AWS:
  lambda:GetFunctionConfiguration, cloudwatch:GetMetricData, logs:FilterLogEvents
  both queues        sqs:GetQueueAttributes
  dead-letter queue  sqs:GetQueueUrl, sqs:ReceiveMessage, sqs:ChangeMessageVisibility
  connection table   dynamodb:Scan
  with your own key  kms:Decrypt

The command receives up to 1000 dead letters and releases them. It counts up to 20 MB of the connection table, which
costs 2500 read units; --watch does so once a minute.")]
pub struct Status {
    /// Show the state every 5 s until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Print one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Use AWS, with the environment's Region and credentials
    #[arg(long, help_heading = "Deployment")]
    aws: bool,
    /// Start of the functions' names on AWS: `name` in Terraform
    #[arg(long, help_heading = "Deployment", value_name = "NAME", default_value = "streamer")]
    name: String,
}

/// How often `--watch` reads the state.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

impl Status {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no deployment, or one of its services does not answer.
    pub async fn run(self) -> anyhow::Result<()> {
        let spec = Spec::read()?;
        let deployment = self.deployment(&spec).await?;
        let shutdown = shutdown::requested();
        tokio::pin!(shutdown);
        let mut previous = None;
        loop {
            // A signal does not interrupt a read, because the read releases the dead letters that it received.
            let before = shutdown.as_mut().now_or_never();
            let status = status::read(&deployment, &spec.mapping.function, previous).await?;
            self.print(&status)?;
            if let Some(signal) = before.or_else(|| shutdown.as_mut().now_or_never()) {
                return Err(signal.interrupted(""));
            }
            if !self.watch {
                return Ok(());
            }
            previous = Some(status);
            tokio::select! {
                signal = &mut shutdown => return Err(signal.interrupted("")),
                () = sleep(WATCH_INTERVAL) => {}
            }
        }
    }

    /// Prints the state. Fails if the reader has closed the pipe, which ends `--watch`.
    fn print(&self, status: &DeploymentStatus) -> anyhow::Result<()> {
        let mut out = stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{}", serde_json::to_string(status)?)?);
        }
        if self.watch && can_redraw(&out) {
            // Moves the cursor to the top left and clears the screen.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        for line in status.lines(width()) {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    async fn deployment(&self, spec: &Spec) -> anyhow::Result<Deployment> {
        if self.aws {
            let names = spec.functions.keys().map(|short| (short.clone(), format!("{}-{short}", self.name)));
            let functions: BTreeMap<_, _> = names.collect();
            return Ok(Deployment { name: self.name.clone(), functions, config: load_aws().await? });
        }
        let stack = local_stack().await?;
        let functions = stack.deployed.functions;
        Ok(Deployment { name: "the stack on this machine".to_owned(), functions, config: stack.config })
    }
}
