//! `streamer forget`: lists or erases the personal data of a user.

use std::time::SystemTime;

use clap::Args;
use serde_json::{Value, json};
use streamer_connections::{ConnectionTable, Scope};
use streamer_mailbox::{DynamoTable, Erased, Listing, Mailbox, MailboxError, Stream, TableError};
use streamer_message::{TenantId, UserId};

use super::{
    disconnect::closing::{Closing, Counts},
    mailbox::counted,
    target::Target,
};
use crate::{
    aws::{mailbox_failed, table_failed},
    screen::Screen,
    shutdown,
};

/// List or erase the personal data of a user
///
/// Lists how many connections, kept messages and devices of a user it would erase. With --yes, closes the user's
/// connections and removes their rows, and then erases the user's mailbox for good.
///
/// Messages on the outbound queue and dead letters are not erased. A message that is to be kept is stored when a worker
/// receives it, so stop the producers first, and run the command again when the queue is empty.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer forget --tenant acme --user anna            list what --yes would erase; erases nothing
  streamer forget --tenant acme --user anna --yes
  streamer forget --aws --table streamer_connections --mailbox-table streamer_mailbox --tenant acme --user anna --yes
  streamer redrive --tenant acme --json | jq 'select(.to.user.user == \"anna\").id'
  streamer redrive --tenant acme --id ID --drop --yes  drop a dead letter of the user

Clients with a valid token can reconnect. To keep a user out, stop issuing tokens and wait until the last one has
expired. A deployment without a mailbox has only rows of connections: streamer disconnect --close removes them.

Permissions on AWS:
  connection table   dynamodb:Query on the indexes; with --yes, dynamodb:DeleteItem
  mailbox table      dynamodb:GetItem, dynamodb:Query; with --yes, dynamodb:BatchWriteItem
  with --yes         execute-api:ManageConnections")]
pub struct Forget {
    /// Tenant of the user
    #[arg(long, value_name = "ID", value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// User whose data are erased
    #[arg(long, value_name = "ID", value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// Erase them for good; without this option, nothing is erased
    #[arg(long)]
    yes: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

/// The data that `--yes` would erase.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    connections: usize,
    /// `None` for a mailbox that cannot be parsed.
    kept: Option<Kept>,
}

/// The content of a mailbox.
#[derive(Debug, Default, PartialEq, Eq)]
struct Kept {
    messages: usize,
    bytes: usize,
    devices: usize,
}

impl Forget {
    /// Runs the command.
    ///
    /// # Errors
    /// When a table cannot be read, a connection could not be closed, clients keep connecting, or an item could not be
    /// removed. The command can be repeated.
    pub async fn run(self) -> anyhow::Result<()> {
        let stream = Stream { tenant: self.tenant.clone(), user: self.user.clone() };
        let scope = Scope::User(self.tenant, self.user);
        let (mailbox, table) = (self.target.mailbox().await?, self.target.table().await?);
        let screen = Screen::new();
        if !self.yes {
            let found = find(&mailbox, &table, &stream, &scope, SystemTime::now()).await?;
            match self.json {
                true => screen.verbatim(found.object().to_string()),
                false => found.lines(&stream.tenant).iter().for_each(|line| screen.line(line)),
            }
            return Ok(());
        }
        let mut closing = Closing::new(table, self.target.config().await?, scope);
        let erasing = async {
            closing.run().await?;
            mailbox.erase(&stream).await.map_err(|error| mailbox_failed(&error))
        };
        let result = tokio::select! {
            signal = shutdown::requested() => {
                Err(signal.interrupted("some of the data are left, run the command again"))
            }
            result = erasing => result,
        };
        let closed = closing.finish();
        match &result {
            Ok(erased) if self.json => screen.verbatim(erased_object(closed, *erased).to_string()),
            Ok(erased) => {
                erased_lines(closed, *erased, &stream.tenant).iter().for_each(|line| screen.line(line))
            }
            Err(_) if self.json || closed == Counts::default() => {}
            Err(_) => screen.line(format!("connections: {closed}")),
        }
        result.map(|_| ())
    }
}

/// Counts the data of a user.
async fn find(
    mailbox: &Mailbox<DynamoTable>,
    table: &ConnectionTable,
    stream: &Stream,
    scope: &Scope,
    now: SystemTime,
) -> anyhow::Result<Found> {
    let (mut cursor, mut connections) = (None, 0);
    loop {
        // A row is personal data even if it has expired.
        let page = table.live(scope, cursor.as_ref(), SystemTime::UNIX_EPOCH).await;
        let page = page.map_err(|error| table_failed(&error))?;
        connections += page.connections.len();
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    let kept = match mailbox.list(stream, now).await {
        Ok(listing) => Some(listing.as_ref().map_or_else(Kept::default, Kept::of)),
        Err(MailboxError::Table(TableError::Item(_))) => None,
        Err(error) => return Err(mailbox_failed(&error)),
    };
    Ok(Found { connections, kept })
}

impl Kept {
    fn of(listing: &Listing) -> Self {
        Self {
            messages: listing.messages.len(),
            bytes: listing.messages.iter().map(|message| message.body.len()).sum(),
            devices: listing.devices.len(),
        }
    }
}

impl Found {
    fn object(&self) -> Value {
        let kept = |count: fn(&Kept) -> usize| self.kept.as_ref().map(count);
        json!({
            "connections": self.connections,
            "messages": kept(|kept| kept.messages),
            "bytes": kept(|kept| kept.bytes),
            "devices": kept(|kept| kept.devices),
            "erased": false,
        })
    }

    fn lines(&self, tenant: &TenantId) -> Vec<String> {
        let connections = counted(self.connections, "connection");
        let found = match &self.kept {
            Some(Kept { messages, bytes, devices }) => {
                let (messages, devices) = (counted(*messages, "message"), counted(*devices, "device"));
                format!("{connections}, {messages} of {bytes} bytes, {devices}")
            }
            None => format!("{connections}, and a mailbox that cannot be parsed"),
        };
        vec![format!("{found}; nothing was erased, use --yes to erase"), not_covered(tenant)]
    }
}

fn erased_object(closed: Counts, erased: Erased) -> Value {
    json!({ "connections": closed, "items": erased.items, "erased": true })
}

fn erased_lines(closed: Counts, erased: Erased, tenant: &TenantId) -> Vec<String> {
    let items = counted(erased.items, "item");
    vec![format!("connections: {closed}"), format!("mailbox: {items} erased"), not_covered(tenant)]
}

/// Says what the command leaves.
fn not_covered(tenant: &TenantId) -> String {
    format!(
        "not covered: messages on the queue (run this command again when `streamer status` shows none), and dead \
         letters (`streamer redrive --tenant {tenant} --drop` lists those of the tenant, and with --id ID --yes drops one)"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn dry_run_names_every_number() {
        let tenant = TenantId::new("acme").unwrap();
        let found = Found { connections: 1, kept: Some(Kept { messages: 3, bytes: 40, devices: 2 }) };
        let [line, rest] = <[String; 2]>::try_from(found.lines(&tenant)).unwrap();
        assert_eq!(
            line,
            "1 connection, 3 messages of 40 bytes, 2 devices; nothing was erased, use --yes to erase"
        );
        assert!(rest.contains("`streamer redrive --tenant acme --drop`"), "{rest}");
        let object = json!({ "connections": 1, "messages": 3, "bytes": 40, "devices": 2, "erased": false });
        assert_eq!(found.object(), object);
    }

    /// A mailbox that cannot be parsed can still be erased, so the dry run does not fail.
    #[test]
    fn invalid_mailbox_is_not_counted() {
        let found = Found { connections: 0, kept: None };
        let lines = found.lines(&TenantId::new("acme").unwrap());
        assert!(
            lines[0].starts_with("0 connections, and a mailbox that cannot be parsed; nothing"),
            "{lines:?}"
        );
        assert_eq!(found.object()["messages"], Value::Null);
    }

    #[test]
    fn results_have_their_counts() {
        let closed = Counts { closed: 2, gone: 1, failed: 0 };
        let lines = erased_lines(closed, Erased { items: 5 }, &TenantId::new("acme").unwrap());
        assert_eq!(
            lines[..2],
            ["connections: 2 closed, 1 already gone, 0 failed", "mailbox: 5 items erased"]
        );
        let object = erased_object(closed, Erased { items: 5 });
        assert_eq!(object["connections"], json!({ "closed": 2, "gone": 1, "failed": 0 }));
        assert_eq!((&object["items"], &object["erased"]), (&json!(5), &json!(true)));
    }
}
