//! `streamer token`: signs a token with which a client connects.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use clap::Args;
use streamer_message::{TenantId, UserId};

use crate::stack::{
    issuer::{ISSUER, Issuer},
    state,
};

/// Print a JWT
///
/// Prints a token that the stack on this machine accepts, or with --key a token of your own issuer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer token --user anna --tenant acme
  npx wscat -c \"$URL\" -H \"Authorization: Bearer $(streamer token --user anna --tenant acme)\"

With your own key:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
  openssl pkey -in key.pem -pubout     prints the public key, for JWT_PUBLIC_KEY
  streamer token --key key.pem --issuer https://issuer.example.com --user anna --tenant acme")]
pub struct Token {
    /// User: the claim `sub`
    #[arg(long, value_parser = |text: &str| UserId::new(text))]
    user: UserId,
    /// Tenant of the user: the claim `tenant_id`
    #[arg(long, value_parser = |text: &str| TenantId::new(text))]
    tenant: TenantId,
    /// Lifetime of the token, such as 30s, 15m or 1h
    #[arg(long, default_value = "1h", value_name = "TIME")]
    expires_in: humantime::Duration,
    /// Sign with this private key, an EC key (P-256) in PEM format [default: the local stack's key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Issuer that the key belongs to: the claim `iss`
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
            None => state::require_running().await?.stack.issuer,
        };
        let (tenant, user) = (self.tenant.as_str(), self.user.as_str());
        println!("{}", issuer.token_from(&self.issuer, tenant, user, self.expires_in.into())?);
        Ok(())
    }
}
