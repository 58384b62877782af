//! `streamer send`: puts messages on the outbound queue.

mod errors;
mod input;
mod lines;
mod outcome;
mod sender;
mod summary;
mod unsent;
mod wait;

use std::{fs::File, io::stdin, path::PathBuf, time::Instant};

use anyhow::{Context as _, anyhow};
use clap::Args;
use futures::StreamExt as _;
use indicatif::ProgressBar;
use streamer_message::{Keep, OutboundMessage};
use streamer_producer::{
    ConnectionId, Message, MessageBuilder, MessageId, Percent, RequestId, TenantId, UserId,
};

use self::{
    errors::{Place, describe, explain},
    lines::Lines,
    sender::Sender,
    summary::End,
    unsent::UnsentFile,
    wait::Outcomes,
};
use super::target::Target;
use crate::{
    exit::Exit,
    screen::{Screen, counter},
    shutdown::signals,
};

/// Send messages to connections, a user or a tenant
///
/// Puts one message on the outbound queue, or with --stdin one message for each line of standard input, as soon as the
/// line is there. Prints `queued` when the queue has the message; with --wait, also the outcome.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer send --connection L0SM9cOFvHcCIhw= --payload '{\"hello\":\"world\"}'
  streamer send --connection L0SM9cOFvHcCIhw= --payload '\"hello\"' --wait
  streamer send --connection L0SM9cOFvHcCIhw= --request req_1 --progress 40
  streamer send --tenant acme --user anna --payload '\"your order is on its way\"'
  streamer send --tenant acme --user anna --payload '{\"report\":7}' --keep 7d
  streamer send --tenant acme --payload '\"maintenance at noon\"' --expires-in 1h
  generate | streamer send --connections a=,b= --stdin --expires-in 5m --failed unsent.jsonl
  streamer send --retry unsent.jsonl
  cat notes.txt | jq -R . | streamer send --tenant acme --stdin      each line of text as a string
  streamer send --tenant acme --user anna --payload '{\"report\":7}' --receipt && streamer receipts --follow
  streamer send --aws --queue-url https://sqs.… --connection … --payload '\"hello\"'

--wait takes the message's receipts from the receipts queue. Another consumer of that queue may take them before. On AWS
it needs sqs:ReceiveMessage, sqs:DeleteMessage and sqs:ChangeMessageVisibility on the receipts queue.

Exit codes: 0 queued, or with --wait delivered to every recipient or kept; 1 not queued; 2 invalid arguments;
3 not delivered (--wait); 130 after Ctrl-C and 143 after SIGTERM, which send the lines that were read.")]
pub struct Send {
    #[command(flatten)]
    recipients: Recipients,
    /// Send only to this user of the tenant
    #[arg(long, value_name = "ID", requires = "tenant", value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    #[command(flatten)]
    content: Content,
    /// Request that the message belongs to
    #[arg(long, value_name = "ID", conflicts_with = "retry", value_parser = |text: &str| RequestId::new(text))]
    request: Option<RequestId>,
    /// Id of the message [default: a new UUIDv7]
    #[arg(long, conflicts_with_all = ["stdin", "retry"], value_parser = |text: &str| MessageId::new(text))]
    id: Option<MessageId>,
    /// Drop the message if it is not delivered within this time, such as 30s, 15m or 1h
    #[arg(long, value_name = "TIME", conflicts_with = "retry")]
    expires_in: Option<humantime::Duration>,
    /// Keep the message for the user while away, for 60s to 30d; clients read it with streamer.sync
    #[arg(
        long,
        value_name = "TIME",
        requires = "user",
        conflicts_with_all = ["progress", "retry"],
        value_parser = keep
    )]
    keep: Option<Keep>,
    /// Write the messages that were not sent to this file, for --retry
    #[arg(long, value_name = "FILE", conflicts_with_all = ["payload", "progress"])]
    failed: Option<PathBuf>,
    /// Ask for a receipt, which `streamer receipts` prints
    #[arg(long, conflicts_with = "retry")]
    receipt: bool,
    /// Ask for a receipt, wait for it and print the outcome [default TIME: 10s]
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "10s")]
    wait: Option<humantime::Duration>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Recipients {
    /// Send to one connection
    #[arg(long, value_name = "ID", value_parser = connection_id)]
    connection: Option<ConnectionId>,
    /// Send to several connections, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', value_parser = connection_id)]
    connections: Vec<ConnectionId>,
    /// Send to every connection of a tenant, or with --user of one of its users
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Content {
    /// Send this JSON, which clients receive byte for byte
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Send a progress message with this percentage, 0 to 100
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    progress: Option<Percent>,
    /// Read payloads from standard input, one per line
    #[arg(long)]
    stdin: bool,
    /// Send the messages in this file, which --failed wrote, with the ids and recipients that they have
    #[arg(long, value_name = "FILE", group = "Recipients")]
    retry: Option<PathBuf>,
}

fn connection_id(text: &str) -> Result<ConnectionId, String> {
    ConnectionId::new(text).map_err(|error| format!("{error}: `streamer connections` lists them"))
}

fn keep(text: &str) -> Result<Keep, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    Keep::new(time).map_err(|error| error.to_string())
}

fn percent(text: &str) -> Result<Percent, &'static str> {
    let percent = text.parse().ok().and_then(|number: u8| Percent::try_from(number).ok());
    percent.ok_or("write a whole number from 0 to 100, without %")
}

impl Send {
    /// Runs the command.
    ///
    /// # Errors
    /// When a message is invalid, was not sent, or with `--wait` was not delivered.
    pub async fn run(self) -> anyhow::Result<()> {
        match (&self.content.payload, self.content.progress) {
            (Some(payload), _) => {
                let message = self.builder().json(payload.as_str()).map_err(|error| {
                    let text = describe(&error, payload, Place::Argument);
                    Exit::invalid_argument(format!("invalid --payload: {text}"))
                })?;
                self.send_one(message).await
            }
            (None, Some(percent)) => self.send_one(self.builder().progress(percent, None)?).await,
            (None, None) => self.send_lines().await,
        }
    }

    fn builder(&self) -> MessageBuilder {
        let Recipients { connection, connections, tenant } = &self.recipients;
        let mut builder = match (tenant, &self.user) {
            (Some(tenant), Some(user)) => Message::user(tenant, user),
            (Some(tenant), None) => Message::tenant(tenant),
            (None, _) => Message::connections(connection.iter().chain(connections)),
        };
        if let Some(id) = &self.id {
            builder = builder.id(id);
        }
        if let Some(request) = &self.request {
            builder = builder.request(request);
        }
        if let Some(time) = self.expires_in {
            builder = builder.expires_in(time.into());
        }
        if let Some(keep) = self.keep {
            builder = builder.keep(keep.duration());
        }
        if self.receipt || self.wait.is_some() {
            builder = builder.receipt();
        }
        builder
    }

    /// Describes the recipients.
    fn audience(&self) -> String {
        let Recipients { connection, connections, tenant } = &self.recipients;
        let connections: Vec<_> = connection.iter().chain(connections).collect();
        match (tenant, &self.user, &connections[..]) {
            (Some(tenant), Some(user), _) => format!("user {user} of tenant {tenant}"),
            (Some(tenant), None, _) => format!("tenant {tenant}"),
            (None, _, [connection]) => connection.to_string(),
            (None, _, []) => "the message".to_owned(),
            (None, _, several) => format!("{} connections", several.len()),
        }
    }

    async fn send_one(&self, message: Message) -> anyhow::Result<()> {
        let (producer, outcomes) = (self.target.producer().await?, self.outcomes().await?);
        let (screen, id) = (Screen::new(), message.id().clone());
        let sent = producer.send(message).await;
        sent.map_err(|error| anyhow!("message {id}: {}", explain(&error, self.target.aws_queue())))?;
        let outcomes = outcomes.map(|outcomes| signals().map(|signals| (outcomes, signals))).transpose()?;
        screen.line(format!("queued {id}"));
        match outcomes {
            Some((outcomes, signals)) => outcomes.print([id], &self.audience(), signals).await,
            None => Ok(()),
        }
    }

    async fn send_lines(&self) -> anyhow::Result<()> {
        let (producer, outcomes) = (self.target.producer().await?, self.outcomes().await?);
        let chunks = match &self.content.retry {
            Some(path) => {
                let unreadable = || format!("cannot read {}", path.display());
                input::chunks(File::open(path).with_context(unreadable)?)?.left_stream()
            }
            None => input::chunks(stdin())?.right_stream(),
        };
        let mut signals = signals()?;
        let unsent = self.failed.as_deref().map(UnsentFile::open).transpose()?;
        let (bar, started) = (counter(" {spinner} {pos} messages, {per_sec}"), Instant::now());
        let sender = Sender::new(bar.clone(), unsent);
        let sender = if outcomes.is_some() { sender.keeping_ids() } else { sender };
        let parse = |line: &str| match self.content.retry {
            Some(_) => self.unsent(line),
            None => self.builder().json(line).map_err(|error| describe(&error, line, Place::Line)),
        };
        let send = async |message| producer.send(message).await;
        let (summary, unsent) = sender.run(Lines::new(chunks), parse, send, &mut signals).await;
        bar.iter().for_each(ProgressBar::finish_and_clear);
        Screen::new().line(summary.totals(started.elapsed()));
        let error = summary.error(unsent.as_ref().map(UnsentFile::path), self.target.aws_queue());
        unsent.into_iter().for_each(UnsentFile::close);
        if let End::Interrupted(signal) = summary.end {
            return Err(Exit { code: signal.exit_code(), text: error.unwrap_or_default() }.into());
        }
        let outcomes = match (outcomes, summary.queued.ids) {
            (Some(outcomes), Some(ids)) if !ids.is_empty() => {
                outcomes.print(ids, &self.audience(), signals).await
            }
            _ => Ok(()),
        };
        match error {
            Some(error) => Err(anyhow!(error)),
            None => outcomes,
        }
    }

    /// Decodes a message of the file that `--failed` wrote.
    fn unsent(&self, line: &str) -> Result<Message, String> {
        let message = Message::decode(line).map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        let asks = || OutboundMessage::decode(line).is_ok_and(|message| message.receipt.is_some());
        if self.wait.is_some() && !asks() {
            return Err("the message asks for no receipt to wait for: send it without --wait".to_owned());
        }
        Ok(message)
    }

    /// Returns the wait for outcomes, with `--wait`.
    async fn outcomes(&self) -> anyhow::Result<Option<Outcomes>> {
        match self.wait {
            Some(limit) => Ok(Some(Outcomes::of(&self.target, limit.into()).await?)),
            None => Ok(None),
        }
    }
}
