//! `streamer disconnect`: closes sockets and removes their rows.

use std::{
    collections::HashSet,
    io::IsTerminal as _,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use aws_config::SdkConfig;
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use streamer_connections::{CONNECT_GRACE, CloseError, CloseOutcome, ConnectionTable, Live, Scope};
use streamer_message::{ConnectionId, TenantId, UserId};
use tokio::time::sleep;

use super::target::Target;
use crate::screen::Screen;

/// Sockets that are closed at the same time.
const AT_ONCE: usize = 16;

/// How often the table is gone through: the indexes lag, and somebody may be connecting meanwhile.
const ROUNDS: usize = 6;

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(1500);

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

/// What became of all of them, by id: one that is found again, since the indexes lag, counts once.
#[derive(Default)]
struct Tally {
    closed: HashSet<ConnectionId>,
    were_gone: HashSet<ConnectionId>,
    /// In this round: those that are to be tried again.
    open: HashSet<ConnectionId>,
    told: usize,
}

impl Disconnect {
    /// Runs the command.
    ///
    /// # Errors
    /// When any connection could not be closed, its row not be removed, or there are ever new ones.
    pub async fn run(self) -> anyhow::Result<()> {
        let (table, aws) = (self.target.table().await?, self.target.config().await?);
        let who = match self.user {
            Some(user) => Scope::User(self.tenant, user),
            None => Scope::Tenant(self.tenant),
        };
        let (mut tally, bar) = (Tally::default(), bar());
        let ended = rounds(&table, &aws, &who, &mut tally, bar.as_ref()).await;
        bar.inspect(ProgressBar::finish_and_clear);
        let Tally { closed, were_gone, open, .. } = tally;
        let gone = were_gone.difference(&closed).count();
        let line = format!("{} closed, {gone} were gone already, {} failed", closed.len(), open.len());
        Screen::new().line(line);
        ended
    }
}

/// Goes through the table until nobody is found any more.
async fn rounds(
    table: &ConnectionTable,
    aws: &SdkConfig,
    who: &Scope,
    tally: &mut Tally,
    bar: Option<&ProgressBar>,
) -> anyhow::Result<()> {
    for round in 0..ROUNDS {
        if round > 0 {
            sleep(PAUSE).await;
        }
        tally.open.clear();
        let new = go_through(table, aws, who, tally, bar).await?;
        if new == 0 && tally.open.is_empty() && round > 0 {
            return Ok(());
        }
    }
    match tally.open.len() {
        0 => bail!("somebody keeps connecting: see to it that nobody gets in, and run it again"),
        open => bail!("{open} connections may still be open: run it again"),
    }
}

/// Returns how many connections were ended that were not before.
async fn go_through(
    table: &ConnectionTable,
    aws: &SdkConfig,
    who: &Scope,
    tally: &mut Tally,
    bar: Option<&ProgressBar>,
) -> anyhow::Result<usize> {
    let (mut cursor, mut new) = (None, 0);
    loop {
        // Those past their expiry, too: a socket may outlive its token.
        let page = table.live(who, cursor.as_ref(), SystemTime::UNIX_EPOCH).await?;
        let closing: Vec<_> = page.connections.iter().map(|live| close(table, aws, live)).collect();
        let mut closing = stream::iter(closing).buffer_unordered(AT_ONCE);
        while let Some((id, outcome)) = closing.next().await {
            match outcome {
                Ok(CloseOutcome::Closed) => new += usize::from(tally.closed.insert(id)),
                Ok(CloseOutcome::Gone) => {
                    new += usize::from(!tally.closed.contains(&id) && tally.were_gone.insert(id))
                }
                Ok(CloseOutcome::TooYoung) => _ = tally.open.insert(id),
                Err(error) => {
                    tally.told += 1;
                    tell(&format!("{id}: {error}"), tally.told, bar);
                    tally.open.insert(id);
                }
            }
            if let Some(bar) = bar {
                bar.set_position(tally.closed.len() as u64);
            }
        }
        cursor = page.next;
        if cursor.is_none() {
            return Ok(new);
        }
    }
}

fn tell(cause: &str, number: usize, bar: Option<&ProgressBar>) {
    match bar {
        _ if number > TOLD => {}
        Some(bar) => bar.suspend(|| eprintln!("{cause}")),
        None => eprintln!("{cause}"),
    }
}

/// Closes a connection and removes its row.
async fn close(
    table: &ConnectionTable,
    aws: &SdkConfig,
    live: &Live,
) -> (ConnectionId, Result<CloseOutcome, CloseError>) {
    let cutoff = SystemTime::now() - CONNECT_GRACE;
    let outcome = table.close(aws, &live.connection, cutoff).await;
    (live.connection.connection_id.clone(), outcome)
}

fn bar() -> Option<ProgressBar> {
    std::io::stderr().is_terminal().then(|| {
        let style = ProgressStyle::with_template(" {spinner} {pos} closed, {per_sec}");
        ProgressBar::no_length().with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    })
}
