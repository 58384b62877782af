//! `streamer disconnect`: closes sockets and removes their rows.

use std::{io::IsTerminal as _, time::SystemTime};

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use aws_sdk_apigatewaymanagement::{Client, config::Builder};
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use streamer_connections::{ConnectionTable, Live, Who};
use streamer_environment::aws::cause;
use streamer_message::{TenantId, UserId};

use super::target::Target;
use crate::screen::Screen;

/// Sockets that are closed at the same time.
const AT_ONCE: usize = 16;

/// How often the table is gone through: the indexes lag, and somebody may connect meanwhile.
const ROUNDS: usize = 3;

/// Faults that are told one by one.
const TOLD: usize = 10;

/// Closes the connections of a tenant, or of one of its users, and removes their rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer disconnect --tenant acme --user anna
  streamer disconnect --aws --table streamer_connections --tenant acme

Who has a good token can connect again. To keep a tenant out, take it out of ALLOWED_TENANTS first; to keep a user
out, stop issuing tokens, and wait until the last one has expired.")]
pub struct Disconnect {
    /// Whose connections.
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// Only those of this user.
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    #[command(flatten)]
    target: Target,
}

/// What became of a connection.
enum Ended {
    Closed,
    WasGone,
    Failed(String),
}

#[derive(Default)]
struct Tally {
    closed: usize,
    were_gone: usize,
    failed: usize,
}

impl Disconnect {
    /// Runs the command.
    ///
    /// # Errors
    /// When any connection could not be closed, or its row not be removed.
    pub async fn run(self) -> anyhow::Result<()> {
        let (table, aws) = (self.target.table().await?, self.target.config().await?);
        let who = match self.user {
            Some(user) => Who::User(self.tenant, user),
            None => Who::Tenant(self.tenant),
        };
        let (mut tally, bar) = (Tally::default(), bar());
        for _ in 0..ROUNDS {
            let before = tally.closed + tally.were_gone;
            tally.failed = 0;
            round(&table, &aws, &who, &mut tally, bar.as_ref()).await?;
            if tally.closed + tally.were_gone == before {
                break;
            }
        }
        bar.inspect(ProgressBar::finish_and_clear);
        let Tally { closed, were_gone, failed } = tally;
        Screen::new().line(format!("{closed} closed, {were_gone} were gone already, {failed} failed"));
        if failed > 0 {
            bail!("{failed} connections may still be open: run it again");
        }
        Ok(())
    }
}

async fn round(
    table: &ConnectionTable,
    aws: &SdkConfig,
    who: &Who,
    tally: &mut Tally,
    bar: Option<&ProgressBar>,
) -> anyhow::Result<()> {
    let mut cursor = None;
    loop {
        let page = table.live(who, cursor.as_ref(), SystemTime::now()).await.context("the table")?;
        let ending = page.connections.iter().map(|live| end(table, aws, live));
        let mut ending = stream::iter(ending.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
        while let Some(ended) = ending.next().await {
            match ended {
                Ended::Closed => tally.closed += 1,
                Ended::WasGone => tally.were_gone += 1,
                Ended::Failed(cause) => {
                    tally.failed += 1;
                    if tally.failed <= TOLD {
                        match bar {
                            Some(bar) => bar.suspend(|| eprintln!("{cause}")),
                            None => eprintln!("{cause}"),
                        }
                    }
                }
            }
            if let Some(bar) = bar {
                bar.set_position((tally.closed + tally.were_gone) as u64);
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

/// Closes a socket, and removes its row when that is certain.
async fn end(table: &ConnectionTable, aws: &SdkConfig, live: &Live) -> Ended {
    let id = &live.connection.connection_id;
    let client = Client::from_conf(Builder::from(aws).endpoint_url(&live.connection.endpoint).build());
    let ended = match client.delete_connection().connection_id(id.as_str()).send().await {
        Ok(_) => Ended::Closed,
        Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 410) => {
            Ended::WasGone
        }
        Err(error) => return Ended::Failed(format!("{id}: {}", cause(&error))),
    };
    match table.delete(id).await {
        Ok(_) => ended,
        Err(error) => Ended::Failed(format!("{id} is closed, and its row is still there: {error}")),
    }
}

fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(" {spinner} {pos} closed, {per_sec}");
        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    })
}
