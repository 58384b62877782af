//! `streamer token`: signs a token with which a client connects.

use std::{
    io::{Write as _, stdout},
    path::PathBuf,
    time::SystemTime,
};

use anyhow::{Context as _, ensure};
use clap::Args;
use serde_json::{Map, Value, json};
use streamer_message::{TenantId, UserId};

use crate::{
    private_key::PrivateKey,
    stack::{issuer::ISSUER, state},
};

/// Print a JWT
///
/// Prints a token that the stack on this machine accepts, or with --key a token of your own issuer.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  streamer token --user anna --tenant acme
  streamer token --user anna --tenant acme --claim 'permissions=[\"listen\"]' --claim plan='\"gold\"'
  streamer token --user anna --tenant acme --claim exp=1      an expired token

With your own key, for a deployment with an audience:
  openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out key.pem
  openssl pkey -in key.pem -pubout     prints the public key, for JWT_PUBLIC_KEY
  streamer token --key key.pem --issuer https://issuer.example.com --audience streamer --user anna --tenant acme

The algorithm is the key's: ES256 for P-256, ES384 for P-384, RS256 for RSA, EdDSA for Ed25519.")]
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
    /// Audience: the claim `aud`, a list if the flag is repeated [default: no audience]
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    audience: Vec<String>,
    /// Add any other claim, or replace one that another flag sets; can be repeated
    #[arg(long, value_name = "NAME=JSON", value_parser = parse_claim)]
    claim: Vec<(String, Value)>,
    /// Sign with this private key, a PEM file: EC (P-256, P-384), RSA or Ed25519 [default: the local stack's key]
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// Issuer that the key belongs to: the claim `iss`
    #[arg(long, value_name = "URL", requires = "key", default_value = ISSUER)]
    issuer: String,
}

/// Parses the value of `--claim`.
///
/// # Errors
/// When the text is not NAME=JSON.
pub(super) fn parse_claim(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=JSON, such as plan='\"gold\"'")?;
    if name.is_empty() {
        return Err("the claim has no name: expected NAME=JSON".to_owned());
    }
    let json = serde_json::from_str(value).map_err(|_| {
        format!("the value is not JSON; a text needs quotes: --claim {name}='{}'", json!(value))
    })?;
    Ok((name.to_owned(), json))
}

impl Token {
    /// Runs the command.
    ///
    /// # Errors
    /// When no stack is up, the key cannot be read, or a claim is given twice.
    pub async fn run(self) -> anyhow::Result<()> {
        let claims = self.claims(SystemTime::now())?;
        let token = match &self.key {
            Some(path) => PrivateKey::read(path)?.sign(&claims)?,
            None => state::require_running().await?.stack.issuer.sign(&claims)?,
        };
        Ok(writeln!(stdout(), "{token}")?)
    }

    fn claims(&self, now: SystemTime) -> anyhow::Result<Value> {
        let expiry = now.checked_add(self.expires_in.into()).context("--expires-in is too long")?;
        let expiry = expiry.duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let (issuer, user, tenant) = (&self.issuer, self.user.as_str(), self.tenant.as_str());
        let mut claims = Map::new();
        claims.insert("iss".to_owned(), json!(issuer));
        claims.insert("sub".to_owned(), json!(user));
        claims.insert("tenant_id".to_owned(), json!(tenant));
        claims.insert("exp".to_owned(), json!(expiry));
        match self.audience.as_slice() {
            [] => {}
            [audience] => _ = claims.insert("aud".to_owned(), json!(audience)),
            audiences => _ = claims.insert("aud".to_owned(), json!(audiences)),
        }
        add_claims(&mut claims, &self.claim)?;
        Ok(Value::Object(claims))
    }
}

/// Adds the claims of `--claim`, or replaces claims by them.
///
/// # Errors
/// When a claim is given twice.
pub(super) fn add_claims(claims: &mut Map<String, Value>, added: &[(String, Value)]) -> anyhow::Result<()> {
    for (index, (name, value)) in added.iter().enumerate() {
        let is_new = added[..index].iter().all(|(earlier, _)| earlier != name);
        ensure!(is_new, "--claim gives `{name}` twice: give it once");
        claims.insert(name.clone(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        token: Token,
    }

    fn claims(flags: &[&str]) -> anyhow::Result<Value> {
        let arguments = ["token", "--user", "anna", "--tenant", "acme"].iter().chain(flags);
        let Command { token } = Command::try_parse_from(arguments)?;
        token.claims(SystemTime::UNIX_EPOCH + Duration::from_secs(1_000))
    }

    #[test]
    fn flags_set_the_standard_claims() {
        let issuer = "https://issuer.example.com";
        let expected = json!({"iss": issuer, "sub": "anna", "tenant_id": "acme", "exp": 1_060});
        assert_eq!(claims(&["--key", "k", "--issuer", issuer, "--expires-in", "1m"]).unwrap(), expected);
        assert_eq!(claims(&[]).unwrap()["iss"], ISSUER);
    }

    #[test]
    fn repeated_audience_becomes_a_list() {
        assert!(claims(&[]).unwrap().get("aud").is_none());
        assert_eq!(claims(&["--audience", "a"]).unwrap()["aud"], "a");
        assert_eq!(claims(&["--audience", "a", "--audience", "b"]).unwrap()["aud"], json!(["a", "b"]));
    }

    #[test]
    fn claims_add_to_and_replace_others() {
        let set = claims(&["--claim", "permissions=[\"a\"]", "--claim", "exp=1.5", "--claim", "a=\"b=c\""])
            .unwrap();
        assert_eq!(
            (&set["permissions"], &set["exp"], &set["a"]),
            (&json!(["a"]), &json!(1.5), &json!("b=c"))
        );
        let twice = claims(&["--claim", "a=1", "--claim", "a=2"]).unwrap_err().to_string();
        assert_eq!(twice, "--claim gives `a` twice: give it once");
    }

    #[test]
    fn claim_errors_show_the_fix() {
        let error = |claim: &str| claims(&["--claim", claim]).unwrap_err().to_string();
        assert!(error("plan=gold").contains("a text needs quotes: --claim plan='\"gold\"'"));
        assert!(error("plan").contains("expected NAME=JSON"));
        assert!(error("=1").contains("the claim has no name"));
        assert!(claims(&["--audience", ""]).is_err());
    }
}
