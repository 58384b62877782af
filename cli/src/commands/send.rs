//! `streamer send`: a message, or a line a message.

use std::{
    collections::HashMap,
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use streamer_producer::{Message, MessageBuilder, MessageError, Producer};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin, stdin};

use super::target::Target;
use crate::screen::Screen;

/// Lines that are read before they are sent.
const CHUNK: usize = 500;

/// Faulty lines that are told one by one.
const TOLD: usize = 10;

/// Puts messages for connections, a user or a tenant on the outbound queue.
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
    /// The user of the tenant.
    #[arg(long, value_name = "ID", requires = "tenant")]
    user: Option<String>,
    #[command(flatten)]
    content: Content,
    /// The request that the message belongs to.
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    /// The message's id; a UUIDv7 by default.
    #[arg(long, conflicts_with = "stdin")]
    id: Option<String>,
    /// How long the message is worth delivering, such as 30s, 15m or 1h.
    #[arg(long, value_name = "TIME")]
    expires_in: Option<humantime::Duration>,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Recipients {
    /// One connection.
    #[arg(long, value_name = "ID")]
    connection: Option<String>,
    /// Connections, with commas between them.
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    connections: Vec<String>,
    /// All connections of a tenant; with --user those of one of its users.
    #[arg(long, value_name = "ID")]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Content {
    /// The payload, any JSON: what the clients receive, byte for byte.
    #[arg(long, value_name = "JSON")]
    payload: Option<String>,
    /// A progress message with this percentage, 0 to 100.
    #[arg(long, value_name = "PERCENT")]
    progress: Option<u8>,
    /// Reads payloads from standard input, one on each line.
    #[arg(long)]
    stdin: bool,
}

impl Send {
    /// Runs the command.
    ///
    /// # Errors
    /// When anything was not sent.
    pub async fn run(self) -> anyhow::Result<()> {
        let message = match (&self.content.payload, self.content.progress) {
            (Some(payload), _) => Some(self.builder().json(payload.as_str())),
            (None, Some(percent)) => Some(self.builder().progress(percent, None)),
            (None, None) => None,
        };
        match message.transpose()? {
            Some(message) => {
                let id = message.id().clone();
                self.target.producer().await?.send(message).await?;
                Screen::new().line(format!("sent {id}"));
                Ok(())
            }
            None => Lot::new(&self, self.target.producer().await?).send().await,
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

/// The lines of standard input, on their way.
struct Lot<'a> {
    command: &'a Send,
    producer: Producer,
    lines: Lines<BufReader<Stdin>>,
    /// The number of the last line that was read, from 1.
    line: usize,
    sent: usize,
    failed: usize,
    bar: Option<ProgressBar>,
}

impl<'a> Lot<'a> {
    fn new(command: &'a Send, producer: Producer) -> Self {
        let style = ProgressStyle::with_template(" {spinner} {pos} messages, {per_sec}");
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            bar.enable_steady_tick(Duration::from_millis(100));
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        let lines = BufReader::new(stdin()).lines();
        Self { command, producer, lines, line: 0, sent: 0, failed: 0, bar }
    }

    async fn send(mut self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let chunk = self.read().await?;
            if chunk.is_empty() {
                break;
            }
            self.send_chunk(chunk).await;
        }
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
        let (took, Self { sent, failed, .. }) = (started.elapsed(), self);
        let rate = sent as f64 / took.as_secs_f64().max(0.001);
        Screen::new()
            .line(format!("{sent} sent in {:.1} s ({rate:.0} a second), {failed} not", took.as_secs_f64()));
        if failed > 0 {
            bail!("{failed} of {} lines were not sent", sent + failed);
        }
        Ok(())
    }

    /// The next messages, with their lines; none at the end of the input.
    async fn read(&mut self) -> anyhow::Result<Vec<(usize, Result<Message, MessageError>)>> {
        let mut chunk = Vec::new();
        while chunk.len() < CHUNK {
            let line = self.lines.next_line().await.context("standard input cannot be read as UTF-8")?;
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
            failed.extend(unsent.map(|unsent| (lines[&unsent.id], unsent.error.to_string())));
        }
        failed.sort_unstable();
        for (line, error) in failed.iter().take(TOLD.saturating_sub(self.failed)) {
            self.tell(&format!("line {line}: {error}"));
        }
        self.sent += total - failed.len();
        self.failed += failed.len();
        self.bar.iter().for_each(|bar| bar.set_position(self.sent as u64));
    }

    fn tell(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| eprintln!("{text}")),
            None => eprintln!("{text}"),
        }
    }
}
