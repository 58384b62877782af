//! `streamer connections`: who is live.

use std::time::SystemTime;

use clap::Args;
use humantime::{format_duration, format_rfc3339_seconds};
use serde_json::json;
use streamer_connections::{Live, Scope};
use streamer_message::{TenantId, UserId};

use super::target::Target;
use crate::screen::{Screen, shown};

/// Lists the live connections of a user, of a tenant, or of all.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer connections
  streamer connections --tenant acme --user anna
  streamer connections --tenant acme --json | jq -r .user | sort | uniq -c
  streamer connections --aws --table streamer_connections --tenant acme

A row may outlive its socket: a post that finds none, or the row's expiry, removes it. Without --tenant the whole
table is read.")]
pub struct Connections {
    #[command(flatten)]
    whose: Whose,
    /// Prints an object on each line.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
struct Whose {
    /// Those of a tenant.
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: Option<TenantId>,
    /// Those of one of its users.
    #[arg(long, requires = "tenant", value_parser = |text: &str| UserId::new(text))]
    user: Option<UserId>,
}

impl Connections {
    /// Runs the command.
    ///
    /// # Errors
    /// When the table cannot be read.
    pub async fn run(self) -> anyhow::Result<()> {
        let Whose { tenant, user } = self.whose;
        let who = match (tenant, user) {
            (Some(tenant), Some(user)) => Scope::User(tenant, user),
            (Some(tenant), None) => Scope::Tenant(tenant),
            (None, _) => Scope::All,
        };
        let (table, screen, now) = (self.target.table().await?, Screen::new(), SystemTime::now());
        let (mut cursor, mut count) = (None, 0);
        loop {
            let page = table.live(&who, cursor.as_ref(), now).await?;
            for live in &page.connections {
                if self.json {
                    screen.line(object(live));
                } else {
                    if count == 0 {
                        screen.line(row("CONNECTION", "TENANT", "USER", "SINCE", "ENDPOINT"));
                    }
                    screen.line(of(live, now));
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

fn of(Live { tenant_id, connection }: &Live, now: SystemTime) -> String {
    let since = now.duration_since(connection.connected_at).unwrap_or_default();
    let since = format_duration(std::time::Duration::from_secs(since.as_secs())).to_string();
    let id = connection.connection_id.as_str();
    row(id, &shown(tenant_id.as_str()), &shown(connection.user_id.as_str()), &since, &connection.endpoint)
}

fn row(connection: &str, tenant: &str, user: &str, since: &str, endpoint: &str) -> String {
    format!("{connection:<18} {tenant:<16} {user:<24} {since:<14} {endpoint}")
}
