//! `streamer disconnect`: closes connections and removes their rows.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use aws_config::SdkConfig;
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use streamer_connections::{CONNECT_GRACE, CloseError, CloseOutcome, ConnectionTable, Live, Scope};
use streamer_message::{ConnectionId, TenantId, UserId};
use tokio::time::sleep;

use super::target::Target;
use crate::{
    screen::{Screen, counter, print_error},
    shutdown,
};

/// Connections that are closed concurrently.
const CONCURRENCY: usize = 16;

/// Maximum number of passes over the table. One pass is not enough, because the indexes lag and clients may connect
/// meanwhile.
const MAX_PASSES: usize = 6;

/// Delay between two passes, in which the indexes catch up.
const PASS_DELAY: Duration = Duration::from_millis(1500);

/// Maximum number of connections whose errors are printed.
const MAX_PRINTED_ERRORS: usize = 10;

/// Close the connections of a tenant or user
///
/// Closes the connections and removes their rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer disconnect --tenant acme --user anna
  streamer disconnect --aws --table streamer_connections --tenant acme

Clients with a valid token can reconnect. To keep a tenant out, remove it from ALLOWED_TENANTS first. To keep a user
out, stop issuing tokens and wait until the last one has expired.")]
pub struct Disconnect {
    /// Close the connections of this tenant
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// Close only the connections of this user
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    #[command(flatten)]
    target: Target,
}

impl Disconnect {
    /// Runs the command.
    ///
    /// # Errors
    /// When a connection could not be closed, its row could not be removed, or clients keep connecting.
    pub async fn run(self) -> anyhow::Result<()> {
        let scope = match self.user {
            Some(user) => Scope::User(self.tenant, user),
            None => Scope::Tenant(self.tenant),
        };
        let (table, aws) = (self.target.table().await?, self.target.config().await?);
        let bar = counter(" {spinner} {pos} closed, {per_sec}");
        let mut run = Run { table, aws, scope, bar, tally: Tally::default() };
        let result = tokio::select! {
            signal = shutdown::requested() => {
                Err(signal.interrupted("the other connections are open, run the command again"))
            }
            result = run.close_all() => result,
        };
        run.bar.iter().for_each(ProgressBar::finish_and_clear);
        let Tally { closed, gone, open, .. } = &run.tally;
        let gone = gone.difference(closed).count();
        Screen::new().line(format!("{} closed, {gone} already gone, {} failed", closed.len(), open.len()));
        result
    }
}

/// The results so far. Ids are sets, because a lagging index may list a connection in several passes.
#[derive(Default)]
struct Tally {
    closed: HashSet<ConnectionId>,
    gone: HashSet<ConnectionId>,
    /// Connections that the current pass could not close. The next pass retries them.
    open: HashSet<ConnectionId>,
    errors: usize,
}

/// A run of the command.
struct Run {
    table: ConnectionTable,
    aws: SdkConfig,
    scope: Scope,
    bar: Option<ProgressBar>,
    tally: Tally,
}

impl Run {
    /// Makes passes over the table until one finds no more connections.
    async fn close_all(&mut self) -> anyhow::Result<()> {
        for pass in 0..MAX_PASSES {
            if pass > 0 {
                sleep(PASS_DELAY).await;
            }
            self.tally.open.clear();
            let new = self.pass().await?;
            if new == 0 && self.tally.open.is_empty() && pass > 0 {
                return Ok(());
            }
        }
        match self.tally.open.len() {
            0 => bail!("clients keep connecting: keep them out first, then run the command again"),
            open => bail!("{open} connections may still be open: run the command again"),
        }
    }

    /// Closes every listed connection, and returns how many of them earlier passes had not closed.
    async fn pass(&mut self) -> anyhow::Result<usize> {
        let (mut cursor, mut new) = (None, 0);
        loop {
            // A socket may outlive its token, so this lists expired rows, too.
            let page = self.table.live(&self.scope, cursor.as_ref(), SystemTime::UNIX_EPOCH).await?;
            let closing: Vec<_> =
                page.connections.iter().map(|live| close(&self.table, &self.aws, live)).collect();
            let mut closing = stream::iter(closing).buffer_unordered(CONCURRENCY);
            while let Some((id, outcome)) = closing.next().await {
                let is_new = self.tally.record(id, outcome, self.bar.as_ref());
                new += usize::from(is_new);
            }
            cursor = page.next;
            if cursor.is_none() {
                return Ok(new);
            }
        }
    }
}

impl Tally {
    /// Records the outcome for a connection, and returns whether the connection is closed or gone for the first time.
    fn record(
        &mut self,
        id: ConnectionId,
        outcome: Result<CloseOutcome, CloseError>,
        bar: Option<&ProgressBar>,
    ) -> bool {
        let is_new = match outcome {
            Ok(CloseOutcome::Closed) => self.closed.insert(id),
            Ok(CloseOutcome::Gone) => !self.closed.contains(&id) && self.gone.insert(id),
            Ok(CloseOutcome::TooYoung) => {
                self.open.insert(id);
                false
            }
            Err(error) => {
                self.errors += 1;
                if self.errors <= MAX_PRINTED_ERRORS {
                    print_error(&format!("{id}: {error}"), bar);
                }
                self.open.insert(id);
                false
            }
        };
        if let Some(bar) = bar {
            bar.set_position(self.closed.len() as u64);
        }
        is_new
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
