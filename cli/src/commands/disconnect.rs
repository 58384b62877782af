//! `streamer disconnect`: lists or closes connections of a tenant or user.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, SystemTime},
};

use anyhow::bail;
use aws_config::SdkConfig;
use clap::Args;
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use streamer_connections::{
    CONNECT_GRACE, CloseError, CloseOutcome, ConnectionTable, Live, Scope, TableError,
};
use streamer_message::{ConnectionId, TenantId, UserId};
use tokio::time::sleep;

use super::target::Target;
use crate::{
    aws::{Call, table_failed},
    layout::{Column, Table, fit},
    screen::{Screen, counter, print_error, sanitize, width},
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

/// Maximum number of users that are listed on a terminal.
const MAX_ROWS: usize = 50;

/// List or close the connections of a tenant or user
///
/// Lists how many connections of which users it would close. With --close, closes them and removes their rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer disconnect --tenant acme                   list what --close would close; closes nothing
  streamer disconnect --tenant acme --user anna --close
  streamer disconnect --aws --table streamer_connections --tenant acme --close

Clients with a valid token can reconnect. To keep a tenant out, remove it from ALLOWED_TENANTS first. To keep a user
out, stop issuing tokens and wait until the last one has expired.")]
pub struct Disconnect {
    /// Connections of this tenant
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// Only connections of this user
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
    /// Close them; without this option, nothing is closed
    #[arg(long)]
    close: bool,
    #[command(flatten)]
    target: Target,
}

impl Disconnect {
    /// Runs the command.
    ///
    /// # Errors
    /// When the table cannot be read, a connection could not be closed, its row could not be removed, or clients keep
    /// connecting.
    pub async fn run(self) -> anyhow::Result<()> {
        let scope = match self.user {
            Some(user) => Scope::User(self.tenant, user),
            None => Scope::Tenant(self.tenant),
        };
        let (table, aws) = (self.target.table().await?, self.target.config().await?);
        if !self.close {
            return list(&table, &scope).await;
        }
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
        let (closed, gone) = (closed.len(), gone.difference(closed).count());
        if result.is_ok() || closed + gone + open.len() > 0 {
            Screen::new().line(format!("{closed} closed, {gone} already gone, {} failed", open.len()));
        }
        result
    }
}

/// Prints how many connections each user has.
async fn list(table: &ConnectionTable, scope: &Scope) -> anyhow::Result<()> {
    let (mut cursor, mut users) = (None, BTreeMap::<String, HashSet<ConnectionId>>::new());
    loop {
        let page = table
            .live(scope, cursor.as_ref(), SystemTime::UNIX_EPOCH)
            .await
            .map_err(|error| table_failed(&error))?;
        for Live { connection, .. } in page.connections {
            users.entry(connection.user_id.to_string()).or_default().insert(connection.connection_id);
        }
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let counts: Vec<_> = users.into_iter().map(|(user, ids)| (user, ids.len())).collect();
    listing(&counts, width()).iter().for_each(|line| Screen::new().verbatim(line));
    Ok(())
}

/// Returns a table of users with their number of connections, and the sum. Without a width it has every user.
fn listing(users: &[(String, usize)], width: Option<usize>) -> Vec<String> {
    let sum = |users: &[(String, usize)]| users.iter().map(|(_, count)| count).sum::<usize>();
    if users.is_empty() {
        return vec!["no connections".to_owned()];
    }
    let (shown, more) = users.split_at(users.len().min(width.map_or(usize::MAX, |_| MAX_ROWS)));
    let mut table = Table::new(&[Column::right("CONNECTIONS", 11), Column::left("USER", 0)]);
    shown.iter().for_each(|(user, count)| table.row([count.to_string(), sanitize(user)]));
    let mut lines = table.lines(0, width);
    if !more.is_empty() {
        lines.push(format!("{:>11}  of {} more users", sum(more), more.len()));
    }
    let plural = |number: usize, noun| format!("{number} {noun}{}", if number == 1 { "" } else { "s" });
    let (connections, users) = (plural(sum(users), "connection"), plural(users.len(), "user"));
    let total = format!("{connections} of {users}; nothing was closed, use --close to close");
    lines.push(fit(&total, width));
    lines
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
            let page = self.table.live(&self.scope, cursor.as_ref(), SystemTime::UNIX_EPOCH).await;
            let page = page.map_err(|error| table_failed(&error))?;
            let closing: Vec<_> =
                page.connections.iter().map(|live| close(&self.table, &self.aws, live)).collect();
            let mut closing = stream::iter(closing).buffer_unordered(CONCURRENCY);
            while let Some((id, outcome)) = closing.next().await {
                let refusal = outcome.as_ref().err().and_then(refusal);
                let is_new = self.tally.record(id, outcome, self.bar.as_ref());
                new += usize::from(is_new);
                if let Some(refusal) = refusal {
                    return Err(refusal);
                }
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

/// Returns why no other connection could be closed, either.
fn refusal(error: &CloseError) -> Option<anyhow::Error> {
    match error {
        CloseError::Call { kind, cause } if !kind.is_transient() => {
            let call =
                Call { action: "execute-api:ManageConnections", resource: "the API of these connections" };
            Some(call.explain(*kind, cause))
        }
        CloseError::Row(error @ TableError::Call { kind, .. }) if !kind.is_transient() => {
            Some(table_failed(error))
        }
        _ => None,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listing_adds_up_beyond_its_rows() {
        let users: Vec<_> = (1..=60).map(|number| (format!("user-{number}"), number)).collect();
        let whole = listing(&users, None);
        assert_eq!((whole.len(), whole[60].as_str()), (62, "         60  user-60"));
        let (total, terminal) = (whole.last(), listing(&users, Some(60)));
        assert_eq!(total.map(|line| line.split(';').next()), Some(Some("1830 connections of 60 users")));
        // 51 + … + 60
        assert_eq!(terminal[51], "        555  of 10 more users");
        assert!(terminal.join("\n").lines().all(|line| line.len() <= 60), "{terminal:?}");
        assert_eq!(listing(&[], None), ["no connections"]);
        let one = listing(&[("anna".to_owned(), 1)], None);
        assert_eq!(one[2], "1 connection of 1 user; nothing was closed, use --close to close");
    }
}
