//! `streamer token`: what a client shows at the door.

use clap::Args;
use streamer_message::{TenantId, UserId};

use crate::stack::state;

/// Prints a JWT that the stack on this machine accepts.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer token --user anna --tenant acme
  npx wscat -c \"$URL\" -H \"Authorization: Bearer $(streamer token --user anna --tenant acme)\"")]
pub struct Token {
    /// Whose it is: the claim `sub`.
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// The user's tenant: the claim `tenant_id`.
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// How long it is good for, such as 30s, 15m or 1h.
    #[arg(long, default_value = "1h", value_name = "TIME")]
    expires_in: humantime::Duration,
}

impl Token {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up.
    pub async fn run(self) -> anyhow::Result<()> {
        let running = state::expect().await?;
        let issuer = &running.stack.issuer;
        println!("{}", issuer.token(self.tenant.as_str(), self.user.as_str(), self.expires_in.into())?);
        Ok(())
    }
}
