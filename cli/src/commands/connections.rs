//! `streamer connections`: lists live connections.

use std::time::{Duration, SystemTime};

use clap::Args;
use humantime::{format_duration, format_rfc3339_seconds};
use serde_json::json;
use streamer_connections::{Live, Scope};
use streamer_message::{TenantId, UserId};

use super::target::Target;
use crate::{
    aws::table_failed,
    layout::{Column, Table},
    screen::{Screen, sanitize, width},
};

const COLUMNS: [Column; 5] = [
    Column::left("CONNECTION", 17),
    Column::left("TENANT", 15),
    Column::left("USER", 23),
    Column::left("SINCE", 13),
    Column::left("ENDPOINT", 0),
];

/// List live connections
///
/// Lists every live connection, or those of a tenant or user. A row may outlive its socket until a post finds the
/// connection gone or the row expires. Without --tenant, the command reads the whole table.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer connections
  streamer connections --tenant acme --user anna
  streamer connections --tenant acme --json | jq -r .user | sort | uniq -c
  streamer connections --aws --table streamer_connections --tenant acme")]
pub struct Connections {
    #[command(flatten)]
    selection: Selection,
    /// Print one JSON object per line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Selection {
    /// List only connections of this tenant
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// List only connections of this user of the tenant
    #[arg(long, requires = "tenant", value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
}

impl Connections {
    /// Runs the command.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn run(self) -> anyhow::Result<()> {
        let Selection { tenant, user } = self.selection;
        let scope = match (tenant, user) {
            (Some(tenant), Some(user)) => Scope::User(tenant, user),
            (Some(tenant), None) => Scope::Tenant(tenant),
            (None, _) => Scope::All,
        };
        let (table, screen, now) = (self.target.table().await?, Screen::new(), SystemTime::now());
        let (mut cursor, mut count) = (None, 0);
        loop {
            let page =
                table.live(&scope, cursor.as_ref(), now).await.map_err(|error| table_failed(&error))?;
            if self.json {
                page.connections.iter().for_each(|live| screen.verbatim(object(live)));
            } else if !page.connections.is_empty() {
                let mut rows = Table::new(&COLUMNS);
                page.connections.iter().for_each(|live| rows.row(row(live, now)));
                let header = usize::from(count > 0);
                rows.lines(0, width()).iter().skip(header).for_each(|line| screen.verbatim(line));
            }
            count += page.connections.len();
            cursor = page.next;
            if cursor.is_none() {
                break;
            }
        }
        if !self.json {
            screen.line(if count == 1 { "1 connection".to_owned() } else { format!("{count} connections") });
        }
        Ok(())
    }
}

fn object(Live { tenant_id, connection }: &Live) -> String {
    json!({
        "connection": connection.connection_id,
        "tenant": tenant_id,
        "user": connection.user_id,
        "connected_at": format_rfc3339_seconds(connection.connected_at).to_string(),
        "expires_at": format_rfc3339_seconds(connection.expires_at).to_string(),
        "endpoint": connection.endpoint,
    })
    .to_string()
}

fn row(Live { tenant_id, connection }: &Live, now: SystemTime) -> [String; 5] {
    let since = now.duration_since(connection.connected_at).unwrap_or_default();
    let since = format_duration(Duration::from_secs(since.as_secs())).to_string();
    let id = connection.connection_id.to_string();
    [
        id,
        sanitize(tenant_id.as_str()),
        sanitize(connection.user_id.as_str()),
        since,
        sanitize(&connection.endpoint),
    ]
}
