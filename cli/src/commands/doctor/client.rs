//! The client that `streamer doctor` connects on AWS: its URL, its token, and the user and tenant of the token.

use std::{
    env,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value, json};
use streamer_message::{TenantId, UserId};

use super::{
    super::{listen::token, token::add_claims},
    Doctor,
};
use crate::{
    doctor::{
        Subject,
        live::{Client, DEFAULT_USER},
    },
    private_key::PrivateKey,
    stack::issuer::ISSUER,
};

/// Lifetime of the token that the command signs.
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(900);

/// The claims by which the connect function identifies a client: names, or JSON pointers (RFC 6901).
#[derive(Debug, PartialEq, Eq)]
struct Claims {
    user: String,
    tenant: String,
    audience: String,
}

impl Claims {
    /// Returns the claims that a function's variables name.
    fn of(variable: impl Fn(&str) -> Option<String>) -> Self {
        let or = |name: &str, default: &str| variable(name).unwrap_or_else(|| default.to_owned());
        Self {
            user: or("USER_CLAIM", "sub"),
            tenant: or("TENANT_CLAIM", "tenant_id"),
            audience: or("JWT_AUDIENCE_CLAIM", "aud"),
        }
    }
}

impl Doctor {
    /// Returns the client of a deployment on AWS.
    ///
    /// # Errors
    /// When the token or the key cannot be read.
    pub(super) fn client_on_aws(&self, subject: &Subject) -> anyhow::Result<Client> {
        let connect = |name: &str| subject.functions.get("connect")?.variable(name).map(str::to_owned);
        let first = |name: &str| Some(connect(name)?.split(',').next()?.trim().to_owned());
        let claims = Claims::of(connect);
        let given = self.given_token()?;
        let payload = given.as_deref().and_then(payload).unwrap_or_default();
        let user = self.user.clone().or_else(|| UserId::new(text_at(&payload, &claims.user)?).ok());
        let user = user.map_or_else(|| UserId::new(DEFAULT_USER), Ok)?;
        let tenant = self.tenant.clone().or_else(|| TenantId::new(text_at(&payload, &claims.tenant)?).ok());
        let tenant = match tenant {
            Some(tenant) => tenant,
            None => {
                let name = connect("DEFAULT_TENANT").or_else(|| first("ALLOWED_TENANTS"));
                TenantId::new(name.unwrap_or_else(|| DEFAULT_USER.to_owned()))?
            }
        };
        let token = match &self.key {
            Some(key) => {
                let issuer = self.issuer.clone().or_else(|| first("JWT_ISSUER"));
                let audience = self.audience.clone().or_else(|| first("JWT_AUDIENCE"));
                let expiry = (SystemTime::now() + TOKEN_LIFETIME).duration_since(SystemTime::UNIX_EPOCH)?;
                let mut signed = Map::new();
                signed.insert("iss".to_owned(), json!(issuer.as_deref().unwrap_or(ISSUER)));
                signed.insert("exp".to_owned(), json!(expiry.as_secs()));
                insert_at(&mut signed, &claims.user, user.as_str());
                insert_at(&mut signed, &claims.tenant, tenant.as_str());
                if let Some(audience) = audience {
                    insert_at(&mut signed, &claims.audience, &audience);
                }
                add_claims(&mut signed, &self.claim)?;
                Some(PrivateKey::read(key)?.sign(&Value::Object(signed))?)
            }
            None => given,
        };
        let endpoint = subject.variable("WEBSOCKET_ENDPOINT");
        let url = self.url.clone().or_else(|| Some(endpoint?.replacen("http", "ws", 1)));
        Ok(Client { url, token, tenant, user })
    }

    /// Reads the token of the file or the variable. Returns `None` without either, or with a key.
    fn given_token(&self) -> anyhow::Result<Option<String>> {
        let is_given = self.token_file.is_some() || env::var_os(token::VARIABLE).is_some();
        if self.key.is_some() || !is_given {
            return Ok(None);
        }
        token::read(self.token_file.as_deref(), "doctor --aws").map(Some)
    }
}

/// Returns a token's claims without verifying them.
fn payload(token: &str) -> Option<Value> {
    let encoded = token.split('.').nth(1)?.trim_end_matches('=');
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()
}

/// Returns the text of a claim.
fn text_at<'a>(claims: &'a Value, path: &str) -> Option<&'a str> {
    match path.starts_with('/') {
        true => claims.pointer(path)?.as_str(),
        false => claims.get(path)?.as_str(),
    }
}

/// Adds a claim, with the objects around it if the path is a JSON pointer.
fn insert_at(claims: &mut Map<String, Value>, path: &str, text: &str) {
    let Some(pointer) = path.strip_prefix('/') else {
        claims.insert(path.to_owned(), json!(text));
        return;
    };
    let mut parts = pointer.split('/').map(|part| part.replace("~1", "/").replace("~0", "~"));
    let (mut inner, mut name) = (claims, parts.next().unwrap_or_default());
    for next in parts {
        let value = inner.entry(name).or_insert_with(|| json!({}));
        // Another path that ends here has put a text in its place.
        if !value.is_object() {
            *value = json!({});
        }
        let Value::Object(object) = value else { return };
        (inner, name) = (object, next);
    }
    inner.insert(name, json!(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_build_nested_claims() {
        let mut claims = Map::new();
        insert_at(&mut claims, "sub", "anna");
        insert_at(&mut claims, "/org/tenant~1id", "acme");
        insert_at(&mut claims, "/org/audience", "streamer");
        let claims = Value::Object(claims);
        assert_eq!(claims, json!({ "sub": "anna", "org": { "tenant/id": "acme", "audience": "streamer" } }));
        assert_eq!(text_at(&claims, "/org/tenant~1id"), Some("acme"));
        assert_eq!(text_at(&claims, "sub"), Some("anna"));
    }

    #[test]
    fn claims_of_given_tokens_are_read() {
        let token = format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"uid":"anna"}"#));
        assert_eq!(payload(&token), Some(json!({ "uid": "anna" })));
        assert_eq!(payload("opaque"), None);
        let variable = |name: &str| (name == "USER_CLAIM").then(|| "uid".to_owned());
        let claims = Claims::of(variable);
        assert_eq!((claims.user.as_str(), claims.tenant.as_str()), ("uid", "tenant_id"));
    }
}
