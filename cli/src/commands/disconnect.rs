//! `streamer disconnect`: lists or closes connections of a tenant or user.

pub(super) mod closing;

use std::{
    collections::{BTreeMap, HashSet},
    time::SystemTime,
};

use clap::Args;
use streamer_connections::{ConnectionTable, Live, Scope};
use streamer_message::{ConnectionId, TenantId, UserId};

use self::closing::{Closing, Counts};
use super::target::Target;
use crate::{
    aws::table_failed,
    layout::{Column, Table, fit},
    screen::{Screen, sanitize, width},
    shutdown,
};

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
        let mut closing = Closing::new(table, aws, scope);
        let result = tokio::select! {
            signal = shutdown::requested() => {
                Err(signal.interrupted("the other connections are open, run the command again"))
            }
            result = closing.run() => result,
        };
        let counts = closing.finish();
        if result.is_ok() || counts != Counts::default() {
            Screen::new().line(counts.to_string());
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
