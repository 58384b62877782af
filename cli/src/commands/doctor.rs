//! `streamer doctor`: examines a deployment.

use std::{
    collections::BTreeMap,
    io::{Write as _, stdout},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use clap::Args;
use serde_json::json;
use streamer_message::{TenantId, UserId};

use super::{
    listen::token,
    target::{load_aws, local_stack},
};
use crate::{
    doctor::{
        Check, Report, Subject, Verdict,
        live::{self, Client, DEFAULT_USER},
        settings,
    },
    exit::{CHECK_FAILED, Exit},
    paint::Paint,
    private_key::PrivateKey,
    screen::{print_error, width},
    spec::Spec,
    stack::issuer::ISSUER,
};

/// Lifetime of the token that the command signs.
const TOKEN_LIFETIME: Duration = Duration::from_secs(900);

/// Examine a deployment: settings, connections, delivery and API Gateway's answers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer doctor
  streamer doctor --json | jq '.checks[] | select(.verdict == \"failed\")'
  streamer doctor --aws --name streamer --key key.pem --issuer https://issuer.example.com --audience streamer
  streamer doctor --aws --name streamer --url wss://ws.example.com --token-file token.jwt --tenant acme --user anna

The exit code is 4 if a check failed.

Permissions on AWS; without one of them, a check is skipped:
  lambda:GetFunctionConfiguration, lambda:GetFunctionConcurrency, lambda:ListEventSourceMappings,
  logs:FilterLogEvents; execute-api:ManageConnections on POST; on the table dynamodb:GetItem, dynamodb:PutItem,
  dynamodb:DeleteItem, and dynamodb:Query on its indexes; on the queues sqs:SendMessage, sqs:GetQueueAttributes,
  sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility; on the mailbox table dynamodb:GetItem,
  dynamodb:Query, dynamodb:DeleteItem, dynamodb:BatchWriteItem")]
pub struct Doctor {
    /// Print the report as one JSON object on one line
    #[arg(long)]
    json: bool,
    /// Print what the command would do, and do nothing
    #[arg(long)]
    plan: bool,
    /// User whose token it is, or for whom to sign one
    #[arg(long, default_value = DEFAULT_USER, value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// Tenant whose token it is, or for whom to sign one [default: the first of ALLOWED_TENANTS, or streamer-doctor]
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

impl Doctor {
    /// Runs the command.
    ///
    /// # Errors
    /// When there is no deployment, the client's token cannot be made, or a check failed.
    pub async fn run(self) -> anyhow::Result<()> {
        for line in [settings::PLAN, live::PLAN] {
            self.note(line);
        }
        if self.plan {
            return Ok(());
        }
        let (subject, client) = if self.aws { self.on_aws().await? } else { self.on_this_machine().await? };
        let mut report = Report { deployment: subject.name.clone(), checks: Vec::new() };
        let signal = {
            let mut done = |check: Check| {
                if !self.json {
                    // A closed pipe does not end the checks, which remove what they made.
                    check
                        .lines(Paint::stdout(), width())
                        .iter()
                        .for_each(|line| _ = writeln!(stdout(), "{line}"));
                }
                report.checks.push(check);
            };
            settings::examine(&subject, &mut done).await;
            live::examine(&subject, &client, &mut done).await
        };
        match self.json {
            true => writeln!(stdout(), "{}", serde_json::to_string(&report)?)?,
            false => writeln!(stdout(), "\n{}", report.summary())?,
        }
        if let Some(signal) = signal {
            return Err(signal.interrupted("the checks are incomplete, and what they made is removed"));
        }
        match report.count(Verdict::Failed) {
            0 => Ok(()),
            failed => Err(Exit { code: CHECK_FAILED, text: format!("{failed} checks failed") }.into()),
        }
    }

    /// Prints a line for people, which is no part of the report.
    fn note(&self, line: &str) {
        print_error(line, None);
    }

    async fn on_this_machine(&self) -> anyhow::Result<(Subject, Client)> {
        let stack = local_stack().await?;
        let tenant = self.tenant.clone().map_or_else(|| TenantId::new("streamer-doctor"), Ok)?;
        let token = stack.issuer.token(tenant.as_str(), self.user.as_str(), TOKEN_LIFETIME)?;
        let url = self.url.clone().unwrap_or_else(|| stack.deployed.websocket_url.clone());
        let name = "the stack on this machine".to_owned();
        let subject = Subject::read(name, true, stack.config, &stack.deployed.functions).await?;
        Ok((subject, Client { url, token, tenant, user: self.user.clone() }))
    }

    async fn on_aws(&self) -> anyhow::Result<(Subject, Client)> {
        let spec = Spec::read()?;
        let names = spec.functions.keys().map(|short| (short.clone(), format!("{}-{short}", self.name)));
        let names: BTreeMap<_, _> = names.collect();
        let subject = Subject::read(self.name.clone(), false, load_aws().await?, &names).await?;
        let url = match (&self.url, subject.variable("WEBSOCKET_ENDPOINT")) {
            (Some(url), _) => url.clone(),
            (None, Some(endpoint)) => endpoint.replacen("http", "ws", 1),
            (None, None) => {
                anyhow::bail!("the worker has no WEBSOCKET_ENDPOINT: name the clients' URL with --url")
            }
        };
        let connect = |name: &str| subject.functions.get("connect")?.variable(name).map(str::to_owned);
        let first = |name: &str| Some(connect(name)?.split(',').next()?.trim().to_owned());
        let tenant = match &self.tenant {
            Some(tenant) => tenant.clone(),
            None => TenantId::new(first("ALLOWED_TENANTS").unwrap_or_else(|| "streamer-doctor".to_owned()))?,
        };
        let token = match &self.key {
            Some(key) => {
                let issuer = self.issuer.clone().or_else(|| first("JWT_ISSUER"));
                let audience = self.audience.clone().or_else(|| first("JWT_AUDIENCE"));
                let expiry =
                    (SystemTime::now() + TOKEN_LIFETIME).duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
                let mut claims = json!({
                    "iss": issuer.unwrap_or_else(|| ISSUER.to_owned()),
                    "sub": self.user.as_str(),
                    "tenant_id": tenant.as_str(),
                    "exp": expiry,
                });
                if let Some(audience) = audience {
                    claims["aud"] = json!(audience);
                }
                PrivateKey::read(key)?.sign(&claims)?
            }
            None => token::read(self.token_file.as_deref(), "doctor --aws")?,
        };
        let user = self.user.clone();
        Ok((subject, Client { url, token, tenant, user }))
    }
}
