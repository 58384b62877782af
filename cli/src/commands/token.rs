//! `streamer token`: what a client shows at the door.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use streamer_message::{TenantId, UserId};

use crate::stack::{
    issuer::{ISSUER, Issuer},
    state,
};

/// Prints a JWT that the stack on this machine accepts, or one of an issuer whose key you have.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer token --user anna --tenant acme
  npx wscat -c \"$URL\" -H \"Authorization: Bearer $(streamer token --user anna --tenant acme)\"
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
  openssl pkey -in key.pem -pubout     the public key, for JWT_PUBLIC_KEY
  streamer token --key key.pem --issuer https://issuer.example.com --user anna --tenant acme")]
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
    /// The private key to sign with, an EC key (P-256) as a PEM; that of the stack on this machine by default.
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Whose key that is: the claim `iss`.
    #[arg(long, value_name = "URL", requires = "key", default_value = ISSUER)]
    issuer: String,
}

impl Token {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, or the key cannot be read.
    pub async fn run(self) -> anyhow::Result<()> {
        let issuer = match &self.key {
            Some(path) => {
                let pem = fs::read_to_string(path);
                Issuer::from_pem(&pem.with_context(|| format!("cannot read {}", path.display()))?)?
            }
            None => state::expect().await?.stack.issuer,
        };
        let (tenant, user) = (self.tenant.as_str(), self.user.as_str());
        println!("{}", issuer.token_of(&self.issuer, tenant, user, self.expires_in.into())?);
        Ok(())
    }
}
