//! `streamer send`: puts messages on the outbound queue.

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use streamer_producer::{Message, MessageBuilder, MessageError, Producer};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};

use super::target::Target;
use crate::screen::{Screen, counter, print_error};

/// Lines that are read before they are sent together.
const CHUNK_LINES: usize = 500;

/// Maximum number of lines whose errors are printed.
const MAX_PRINTED_ERRORS: usize = 10;

/// Send messages to connections, a user or a tenant
///
/// Puts one message on the outbound queue, or with --stdin one message for each line of standard input.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer send --connection L0SM9cOFvHcCIhw= --payload '{\"hello\":\"world\"}'
  streamer send --connection L0SM9cOFvHcCIhw= --request req_1 --progress 40
  streamer send --tenant acme --user anna --payload '\"your order is on its way\"'
  streamer send --tenant acme --payload '\"maintenance at noon\"' --expires-in 1h
  generate | streamer send --connections a=,b= --stdin --expires-in 5m
  streamer send --aws --queue-url https://sqs.… --connection … --payload '\"hello\"'")]
pub struct Send {
    #[command(flatten)]
    recipients: Recipients,
    /// Send only to this user of the tenant
    #[arg(long, value_name = "ID", requires = "tenant")]
    user: Option<String>,
    #[command(flatten)]
    content: Content,
    /// Request that the message belongs to
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// Id of the message [default: a new UUIDv7]
    #[arg(long, conflicts_with = "stdin")]
    id: Option<String>,
    /// Drop the message if it is not delivered within this time, such as 30s, 15m or 1h
    #[arg(long, value_name = "TIME")]
    expires_in: Option<humantime::Duration>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Recipients {
    /// Send to one connection
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Send to several connections, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    connections: Vec<String>,
    /// Send to every connection of a tenant, or with --user of one of its users
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Content {
    /// Send this JSON, which clients receive byte for byte
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// Send a progress message with this percentage, 0 to 100
    #[arg(long, value_name = "PERCENT")]
    progress: Option<u8>,
    /// Read payloads from standard input, one per line
    #[arg(long)]
    stdin: bool,
}

impl Send {
    /// Runs the command.
    ///
    /// # Errors
    /// When a message is invalid or was not sent.
    pub async fn run(self) -> anyhow::Result<()> {
        let message = match (&self.content.payload, self.content.progress) {
            (Some(payload), _) => Some(self.builder().json(payload.as_str())),
            (None, Some(percent)) => Some(self.builder().progress(percent, None)),
            (None, None) => None,
        };
        match message.transpose()? {
            Some(message) => {
                let id = message.id().clone();
                let sent = self.target.producer().await?.send(message).await;
                sent.map_err(|error| self.target.send_failed(error))?;
                Screen::new().line(format!("sent {id}"));
                Ok(())
            }
            None => StdinSender::new(&self, self.target.producer().await?).send().await,
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
        builder
    }
}

/// Sends the lines of standard input.
struct StdinSender<'a> {
    command: &'a Send,
    producer: Producer,
    lines: Lines<BufReader<Stdin>>,
    /// Number of the last line read, from 1.
    line: usize,
    sent: usize,
    failed: usize,
    bar: Option<ProgressBar>,
}

impl<'a> StdinSender<'a> {
    fn new(command: &'a Send, producer: Producer) -> Self {
        let bar = counter(" {spinner} {pos} messages, {per_sec}");
        let lines = BufReader::new(stdin()).lines();
        Self { command, producer, lines, line: 0, sent: 0, failed: 0, bar }
    }

    async fn send(mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let chunk = self.read_chunk().await?;
            if chunk.is_empty() {
                break;
            }
            self.send_chunk(chunk).await;
        }
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
        let (seconds, Self { sent, failed, .. }) = (started.elapsed().as_secs_f64(), self);
        let rate = sent as f64 / seconds.max(0.001);
        Screen::new().line(format!("{sent} sent in {seconds:.1} s ({rate:.0} per second), {failed} failed"));
        if failed > 0 {
            bail!("{failed} of {} lines were not sent", sent + failed);
        }
        Ok(())
    }

    /// Reads the next messages with their line numbers. Returns none at the end of the input.
    async fn read_chunk(&mut self) -> anyhow::Result<Vec<(usize, Result<Message, MessageError>)>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK_LINES {
            let line = self.lines.next_line().await.context("cannot read standard input as UTF-8")?;
            let Some(line) = line else { break };
            self.line += 1;
            if !line.trim().is_empty() {
                chunk.push((self.line, self.command.builder().json(line)));
            }
        }
        Ok(chunk)
    }

    async fn send_chunk(&mut self, chunk: Vec<(usize, Result<Message, MessageError>)>) {
        let total = chunk.len();
        let mut failed = Vec::new();
        let mut lines = HashMap::new();
        let mut messages = Vec::new();
        for (line, message) in chunk {
            match message {
                Ok(message) => {
                    lines.insert(message.id().clone(), line);
                    messages.push(message);
                }
                Err(error) => failed.push((line, format!("{:#}", anyhow::Error::from(error)))),
            }
        }
        if let Err(error) = self.producer.send_all(messages).await {
            let unsent = error.unsent.into_iter();
            let text = |error| format!("{:#}", self.command.target.send_failed(error));
            failed.extend(unsent.map(|unsent| (lines[&unsent.id], text(unsent.error))));
        }
        failed.sort_unstable();
        for (line, error) in failed.iter().take(MAX_PRINTED_ERRORS.saturating_sub(self.failed)) {
            print_error(&format!("line {line}: {error}"), self.bar.as_ref());
        }
        self.sent += total - failed.len();
        self.failed += failed.len();
        self.bar.iter().for_each(|bar| bar.set_position(self.sent as u64));
    }
}
