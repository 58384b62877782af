//! `streamer doctor`: examines a deployment.

mod client;

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    path::PathBuf,
};

use aws_config::SdkConfig;
use clap::Args;
use serde_json::Value;
use streamer_message::{TenantId, UserId};

use self::client::TOKEN_LIFETIME;
use super::{
    target::{load_aws, local_stack},
    token::parse_claim,
};
use crate::{
    doctor::{
        Check, Report, Subject, Verdict,
        live::{self, Client, DEFAULT_USER},
        settings,
    },
    exit::{CHECK_FAILED, Exit},
    paint::Paint,
    screen::{print_error, width},
    spec::Spec,
};

/// Examine a deployment: settings, connections, delivery and API Gateway's answers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer doctor
  streamer doctor --json | jq '.checks[] | select(.verdict == \"failed\")'
  streamer doctor --aws --name streamer --key key.pem --issuer https://issuer.example.com --audience streamer
  streamer doctor --aws --name streamer --url wss://ws.example.com --token-file token.jwt --tenant acme --user anna

The exit code is 4 if a check failed.

Permissions on AWS; without one of them, a check is skipped, except for the worker's configuration:
  settings: lambda:GetFunctionConfiguration, lambda:GetFunctionConcurrency, lambda:ListEventSourceMappings,
    lambda:GetAccountSettings; sqs:GetQueueAttributes; dynamodb:DescribeTable, dynamodb:DescribeTimeToLive,
    dynamodb:DescribeContinuousBackups; apigateway:GET on /apis/ID, /apis/ID/routes and /apis/ID/stages/STAGE
  live: logs:FilterLogEvents; execute-api:ManageConnections on POST; on the table dynamodb:GetItem, dynamodb:PutItem,
    dynamodb:DeleteItem, and dynamodb:Query on its indexes; on the queues sqs:SendMessage, sqs:ReceiveMessage,
    sqs:DeleteMessage, sqs:ChangeMessageVisibility; on the mailbox table dynamodb:GetItem, dynamodb:Query,
    dynamodb:DeleteItem, dynamodb:BatchWriteItem
  with a KMS key of your own: kms:GenerateDataKey, kms:Decrypt")]
pub struct Doctor {
    /// Print the report as one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Print what the command would do, and only read the functions' configurations
    #[arg(long)]
    plan: bool,
    /// User of the token [default: the token's, or streamer-doctor with --key]
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    /// Tenant of the token [default: the token's; with --key DEFAULT_TENANT, the first of ALLOWED_TENANTS, or
    /// streamer-doctor]
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// Connect with the token in this file
    #[arg(long, value_name = "FILE", conflicts_with = "key")]
    token_file: Option<PathBuf>,
    /// Sign a token with this private key, a PEM file
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Issuer that the key belongs to: the claim `iss` [default: JWT_ISSUER of the function behind $connect]
    #[arg(long, value_name = "URL", requires = "key")]
    issuer: Option<String>,
    /// Audience: the claim `aud` [default: JWT_AUDIENCE of the function behind $connect]
    #[arg(long, value_name = "NAME", requires = "key")]
    audience: Option<String>,
    /// Add any other claim, or replace one that another flag sets; can be repeated
    #[arg(long, value_name = "NAME=JSON", requires = "key", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
    /// URL that clients connect to [default: that of the management endpoint]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Use AWS, with the environment's Region and credentials
    #[arg(long, help_heading = "Deployment")]
    aws: bool,
    /// Start of the functions' names on AWS: `name` in Terraform
    #[arg(long, help_heading = "Deployment", value_name = "NAME", default_value = "streamer")]
    name: String,
}

/// A deployment whose functions are not read yet.
struct Deployment {
    name: String,
    config: SdkConfig,
    /// The names of its functions, by short name.
    functions: BTreeMap<String, String>,
    /// The client, if the deployment is the stack on this machine.
    local: Option<Client>,
}

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no deployment, the client's token cannot be made, or a check failed.
    pub async fn run(self) -> anyhow::Result<()> {
        let Deployment { name, config, functions, local } =
            if self.aws { self.on_aws().await? } else { self.on_this_machine().await? };
        let mut report = Report { deployment: name.clone(), checks: Vec::new() };
        let mut done = |check: Check| {
            if !self.json {
                // A closed pipe does not end the checks, which remove their rows and messages.
                let lines = check.lines(Paint::stdout(), width());
                lines.iter().for_each(|line| _ = writeln!(stdout(), "{line}"));
            }
            report.checks.push(check);
        };
        let mut signal = None;
        match Subject::read(name, local.is_some(), config.clone(), &functions).await {
            Ok(subject) => {
                let client = local.map_or_else(|| self.client_on_aws(&subject), Ok)?;
                print_error(settings::PLAN, None);
                print_error(&live::plan(&subject, &client), None);
                if self.plan {
                    return Ok(());
                }
                settings::examine(&subject, &mut done).await;
                signal = live::examine(&subject, &client, &mut done).await;
            }
            Err(error) => settings::unread(&config, &error, &mut done).await,
        }
        match self.json {
            true => writeln!(stdout(), "{}", serde_json::to_string(&report)?)?,
            false => writeln!(stdout(), "\n{}", report.summary())?,
        }
        if let Some(signal) = signal {
            let cleanup = match report.is_clean() {
                true => "the cleanup removed everything that they made",
                false => "so is the cleanup, whose check lists the rest",
            };
            return Err(signal.interrupted(format!("the checks are incomplete, and {cleanup}")));
        }
        match report.count(Verdict::Failed) {
            0 => Ok(()),
            failed => Err(Exit { code: CHECK_FAILED, text: format!("{failed} checks failed") }.into()),
        }
    }

    async fn on_this_machine(&self) -> anyhow::Result<Deployment> {
        let stack = local_stack().await?;
        let user = self.user.clone().map_or_else(|| UserId::new(DEFAULT_USER), Ok)?;
        let tenant = self.tenant.clone().map_or_else(|| TenantId::new(DEFAULT_USER), Ok)?;
        let token = Some(stack.issuer.token(tenant.as_str(), user.as_str(), TOKEN_LIFETIME)?);
        let url = Some(self.url.clone().unwrap_or_else(|| stack.deployed.websocket_url.clone()));
        Ok(Deployment {
            name: "the stack on this machine".to_owned(),
            config: stack.config,
            functions: stack.deployed.functions,
            local: Some(Client { url, token, tenant, user }),
        })
    }

    async fn on_aws(&self) -> anyhow::Result<Deployment> {
        let names = Spec::read()?.functions.into_keys().map(|short| {
            let function = format!("{}-{short}", self.name);
            (short, function)
        });
        let functions = names.collect();
        Ok(Deployment { name: self.name.clone(), config: load_aws().await?, functions, local: None })
    }
}
