//! Closes connections and removes their rows.

use std::{
    collections::HashSet,
    fmt,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use aws_config::SdkConfig;
use futures::{StreamExt as _, stream};
use indicatif::ProgressBar;
use serde::Serialize;
use streamer_connections::{
    CONNECT_GRACE, CloseError, CloseOutcome, ConnectionTable, Live, Scope, TableError,
};
use streamer_message::ConnectionId;
use tokio::time::sleep;

use crate::{
    aws::{Call, table_failed},
    screen::{counter, print_error},
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

/// The results so far. Ids are sets, because a lagging index may list a connection in several passes.
#[derive(Debug, Default)]
struct Tally {
    closed: HashSet<ConnectionId>,
    gone: HashSet<ConnectionId>,
    /// Connections that the current pass could not close. The next pass retries them.
    open: HashSet<ConnectionId>,
    errors: usize,
}

/// Closes the connections of a tenant or user.
#[derive(Debug)]
pub(in crate::commands) struct Closing {
    table: ConnectionTable,
    aws: SdkConfig,
    scope: Scope,
    bar: Option<ProgressBar>,
    tally: Tally,
}

/// Numbers of connections by result.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(in crate::commands) struct Counts {
    /// Connections that were open and are closed.
    pub closed: usize,
    /// Connections that no longer existed, and whose rows are removed.
    pub gone: usize,
    /// Connections that may still be open or have a row.
    pub failed: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { closed, gone, failed } = self;
        write!(formatter, "{closed} closed, {gone} already gone, {failed} failed")
    }
}

impl Closing {
    /// Creates a run over the connections in `scope`, with a counter on a terminal.
    pub(in crate::commands) fn new(table: ConnectionTable, aws: SdkConfig, scope: Scope) -> Self {
        let bar = counter(" {spinner} {pos} closed, {per_sec}");
        Self { table, aws, scope, bar, tally: Tally::default() }
    }

    /// Removes the counter, and returns the results so far.
    pub(in crate::commands) fn finish(self) -> Counts {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
        let Tally { closed, gone, open, .. } = &self.tally;
        Counts { closed: closed.len(), gone: gone.difference(closed).count(), failed: open.len() }
    }

    /// Makes passes over the table until one finds no more connections. Dropping the future loses no result.
    ///
    /// # Errors
    /// When the table cannot be read, a connection could not be closed, its row could not be removed, or clients keep
    /// connecting.
    pub(in crate::commands) async fn run(&mut self) -> anyhow::Result<()> {
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
