//! `streamer status`: a deployment at a glance.

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _, stdout},
    time::Duration,
};

use clap::Args;
use futures::FutureExt as _;
use streamer_environment::aws;
use tokio::time::sleep;

use super::target::local;
use crate::{
    interrupt::interrupted,
    overview::{Deployment, Overview},
    stack::facts::Facts,
};

/// Shows how a deployment is: its queues, dead letters, connections, functions and circuit.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer status
  streamer status --watch
  streamer status --aws --name streamer
  streamer status --json | jq .dead_letters.waiting

What is looked at, the worker's own configuration tells. Numbers that nobody measures are not shown: an emulator measures
neither ages nor what queues and clients invoke. On AWS it needs lambda:GetFunctionConfiguration,
cloudwatch:GetMetricData and logs:FilterLogEvents, sqs:GetQueueAttributes on both queues, sqs:GetQueueUrl,
sqs:ReceiveMessage and sqs:ChangeMessageVisibility on the dead-letter queue, of which it looks at up to 1000 letters and
lets go of them, and dynamodb:Scan on the connection table, of which it counts up to 20 MB (2500 read units; --watch does
so once a minute). Where queues and table have a key of yours, it also needs kms:Decrypt.")]
pub struct Status {
    /// Shows it again every 5 s, until Ctrl-C.
    #[arg(long)]
    watch: bool,
    /// Prints an object on one line.
    #[arg(long)]
    json: bool,
    /// Looks at AWS, with the region and the credentials of the environment.
    #[arg(long, help_heading = "Deployment")]
    aws: bool,
    /// What the functions' names on AWS begin with: `name` in Terraform.
    #[arg(long, help_heading = "Deployment", value_name = "NAME", default_value = "streamer")]
    name: String,
}

/// How often `--watch` looks.
const EVERY: Duration = Duration::from_secs(5);

impl Status {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no deployment, or one of its services does not answer.
    pub async fn run(self) -> anyhow::Result<()> {
        let facts = Facts::read()?;
        let deployment = self.deployment(&facts).await?;
        let interrupted = interrupted();
        tokio::pin!(interrupted);
        let mut overview = None;
        loop {
            // A look is brief, and ends with letting go of what it took: it is not broken off.
            let ended = interrupted.as_mut().now_or_never().is_some();
            let seen = Overview::of(&deployment, &facts.mapping.function, overview).await?;
            self.show(&seen)?;
            if ended || !self.watch {
                return Ok(());
            }
            overview = Some(seen);
            tokio::select! {
                () = &mut interrupted => return Ok(()),
                () = sleep(EVERY) => {}
            }
        }
    }

    /// Whoever reads it may have seen enough, which ends a watch.
    fn show(&self, overview: &Overview) -> anyhow::Result<()> {
        let mut out = stdout().lock();
        if self.json {
            return Ok(writeln!(out, "{}", serde_json::to_string(overview)?)?);
        }
        if self.watch && out.is_terminal() {
            // From the upper left corner of an empty screen.
            write!(out, "\x1b[H\x1b[2J")?;
        }
        for line in overview.lines() {
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    async fn deployment(&self, facts: &Facts) -> anyhow::Result<Deployment> {
        if self.aws {
            let names = facts.functions.keys().map(|short| (short.clone(), format!("{}-{short}", self.name)));
            let functions: BTreeMap<_, _> = names.collect();
            return Ok(Deployment { name: self.name.clone(), functions, config: aws::load().await });
        }
        let stack = local().await?;
        let functions = stack.deployed.functions;
        Ok(Deployment { name: "the stack on this machine".to_owned(), functions, config: stack.config })
    }
}
