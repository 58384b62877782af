//! `streamer connections`: lists live connections.

use std::time::SystemTime;

use clap::Args;
use humantime::{format_duration, format_rfc3339_seconds};
use serde_json::json;
use streamer_connections::{Live, Scope};
use streamer_message::{TenantId, UserId};

use super::target::Target;
use crate::screen::{Screen, sanitize};

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
            let page = table.live(&scope, cursor.as_ref(), now).await?;
            for live in &page.connections {
                if self.json {
                    screen.line(object(live));
                } else {
                    if count == 0 {
                        screen.line(row("CONNECTION", "TENANT", "USER", "SINCE", "ENDPOINT"));
                    }
                    screen.line(connection_row(live, now));
                }
                count += 1;
            }
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

fn connection_row(Live { tenant_id, connection }: &Live, now: SystemTime) -> String {
    let since = now.duration_since(connection.connected_at).unwrap_or_default();
    let since = format_duration(std::time::Duration::from_secs(since.as_secs())).to_string();
    let id = connection.connection_id.as_str();
    let (tenant, user) = (sanitize(tenant_id.as_str()), sanitize(connection.user_id.as_str()));
    row(id, &tenant, &user, &since, &connection.endpoint)
}

fn row(connection: &str, tenant: &str, user: &str, since: &str, endpoint: &str) -> String {
    format!("{connection:<18} {tenant:<16} {user:<24} {since:<14} {endpoint}")
}
