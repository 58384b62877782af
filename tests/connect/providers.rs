//! The settings on the page of identity providers, with a token and a key set of each provider's kind.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, sync::LazyLock};

use connect_handler::ConnectHandler;
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};
use streamer_cli::{paths, spec::Spec};
use streamer_tests::{
    doubles::TableDouble,
    event::{CONNECTION, connect},
    key_server::{KeyServer, Page},
    signer::{Signer, changed, set},
};

use crate::{
    setup::{configured, respond, seconds_from_now},
    text,
};

/// The provider's key, and another with the same `kid`.
static KEYS: LazyLock<[Signer; 2]> =
    LazyLock::new(|| ["k3", "k3"].map(|kid| Signer::new(Algorithm::RS256, kid).unwrap()));

/// A section of the page.
struct Provider {
    heading: String,
    environment: BTreeMap<String, String>,
    terraform: BTreeMap<String, String>,
    claims: Value,
    user: String,
    tenant: String,
    permissions: Vec<String>,
}

impl Provider {
    /// Parses a section with settings. `None` for other sections.
    fn parse(section: &str) -> Option<Self> {
        let block = |language: &str| {
            let (_, rest) = section.split_once(&format!("```{language}\n"))?;
            Some(rest.split_once("\n```")?.0)
        };
        let pairs = |text: &str, separator| {
            let lines = text.lines().map(|line| line.split_once(separator).expect("a setting"));
            lines.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
        };
        let environment = pairs(block("sh")?, '=');
        let terraform: BTreeMap<_, _> = pairs(block("hcl")?, '=');
        let terraform = terraform.into_iter().map(|(name, value)| {
            let value = match serde_json::from_str(&value).expect("a string or a list of strings") {
                Value::Array(items) => {
                    items.iter().map(|item| item.as_str().unwrap()).collect::<Vec<_>>().join(",")
                }
                value => value.as_str().expect("a string").to_owned(),
            };
            (name, value)
        });
        assert!(block("js")?.contains("const token = "), "{section}");
        let (_, row) = section.split_once("| user | tenant | permissions |\n|---|---|---|\n")?;
        let cells = row.lines().next()?.replace("\\|", "¦");
        let [user, tenant, permissions]: [String; 3] = cells
            .trim_matches('|')
            .split('|')
            .map(|cell| cell.trim().replace('¦', "|"))
            .collect::<Vec<_>>()
            .try_into()
            .ok()?;
        let plain = |cell: &str| cell.trim().trim_matches('`').to_owned();
        Some(Self {
            heading: section.lines().next()?.trim_start_matches("# ").to_owned(),
            environment,
            terraform: terraform.collect(),
            claims: serde_json::from_str(block("json")?).expect("claims"),
            user: plain(&user),
            tenant: plain(&tenant),
            permissions: permissions.split(',').map(plain).collect(),
        })
    }

    fn all() -> Vec<Self> {
        let page = fs::read_to_string(paths::workspace().join("docs/guide/identity-providers.md")).unwrap();
        let providers: Vec<_> = page.split("\n## ").filter_map(Self::parse).collect();
        assert_eq!(providers.len(), 8);
        providers
    }

    /// Returns the claims with an expiry and with changes.
    fn claims(&self, changes: &Value) -> Value {
        let times = json!({ "iat": seconds_from_now(-10), "exp": seconds_from_now(3600) });
        changed(changed(self.claims.clone(), &times), changes)
    }

    /// Returns the settings with changes. The first of two variables counts.
    fn with<'a>(&'a self, changes: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let settings = self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        changes.iter().copied().chain(settings).collect()
    }

    fn setting(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }

    /// Returns the claim that holds the audience.
    fn audience_claim(&self) -> &str {
        self.setting("JWT_AUDIENCE_CLAIM").unwrap_or("aud")
    }

    /// Returns a key set of the provider's kind: keys of kinds that verify nothing, and keys that share a `kid`.
    fn key_set(&self) -> Page {
        let [signer, other] = &*KEYS;
        let other = |kid: &str| changed(other.jwk().unwrap(), &json!({ "kid": kid }));
        let is_entra = self.claims["ver"] == "2.0";
        let details = match is_entra {
            true => json!({ "x5t": signer.kid, "x5c": ["MIIC"], "issuer": self.setting("JWT_ISSUER") }),
            false => {
                json!({ "alg": "RS256", "x5t": "thumbprint", "x5t#S256": "thumbprint", "x5c": ["MIIC"] })
            }
        };
        Page::Body(set(&[
            json!({ "kty": "AKP", "alg": "ML-DSA-65", "kid": "post-quantum", "pub": "AAAA" }),
            json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "secret" }),
            changed(other(&signer.kid), &json!({ "use": "enc", "alg": "RSA-OAEP" })),
            changed(other(&signer.kid), &json!({ "alg": "RSA-OAEP", "use": null })),
            other("previous"),
            changed(other("without-use"), &json!({ "use": null })),
            changed(signer.jwk().unwrap(), &details),
            changed(other("next"), &json!({ "alg": "RS256" })),
        ]))
    }
}

/// A handler whose table can be inspected.
struct Rig {
    handler: ConnectHandler,
    table: TableDouble,
}

impl Rig {
    fn new(variables: Vec<(&str, &str)>) -> Self {
        let table = TableDouble::default();
        Self { handler: configured(variables, &table), table }
    }

    /// Connects, and asserts the row's user, tenant and permissions.
    async fn accepts(&self, token: &str, provider: &Provider) {
        let response = self.handler.handle(connect(Some(token))).await;
        assert_eq!(response.status_code, 200, "{}: {response:?}", provider.heading);
        let row = self.table.rows().remove(CONNECTION).unwrap();
        let mut permissions = row["permissions"].as_ss().unwrap().clone();
        permissions.sort_unstable();
        let found = (text(&row, "user_id"), text(&row, "tenant_id"), permissions);
        let expected = (provider.user.clone(), provider.tenant.clone(), provider.permissions.clone());
        assert_eq!(found, expected, "{}", provider.heading);
    }
}

#[tokio::test]
async fn tokens_of_eight_providers_connect() {
    for provider in Provider::all() {
        let server = KeyServer::start().await.unwrap();
        server.serve("/keys", provider.key_set());
        let rig = Rig::new(provider.with(&[("JWT_JWKS_URL", &server.url("/keys"))]));
        rig.accepts(&KEYS[0].sign(&provider.claims(&json!({}))).unwrap(), &provider).await;
    }
}

/// The issuer's configuration names the key set: discovery as on the page, at another address.
#[tokio::test]
async fn keys_of_eight_providers_are_discovered() {
    for mut provider in Provider::all() {
        let server = KeyServer::start().await.unwrap();
        let at_server = |issuer: &str| {
            let path = issuer.splitn(4, '/').nth(3).unwrap();
            server.url(&format!("/{path}"))
        };
        let configured = at_server(provider.setting("JWT_ISSUER").unwrap());
        provider.environment.insert("JWT_ISSUER".to_owned(), configured.clone());
        provider.claims["iss"] = at_server(provider.claims["iss"].as_str().unwrap()).into();
        let base = configured.replace("{tenantid}", "common");
        let path = format!("/{}/.well-known/openid-configuration", base.splitn(4, '/').nth(3).unwrap());
        let configuration = json!({ "issuer": configured, "jwks_uri": server.url("/keys") });
        server.serve(&path.replace("//", "/"), Page::Body(configuration.to_string()));
        server.serve("/keys", provider.key_set());
        let rig = Rig::new(provider.with(&[]));
        rig.accepts(&KEYS[0].sign(&provider.claims(&json!({}))).unwrap(), &provider).await;
    }
}

#[tokio::test]
async fn foreign_tokens_of_eight_providers_are_refused() {
    for provider in Provider::all() {
        let server = KeyServer::start().await.unwrap();
        server.serve("/keys", provider.key_set());
        let url = ("JWT_JWKS_URL", &*server.url("/keys"));
        let rig = Rig::new(provider.with(&[url]));
        let [signer, other] = &*KEYS;
        let claims = |changes| provider.claims(&changes);
        let audience = provider.audience_claim();
        for (signer, claims, reason) in [
            (signer, claims(json!({ audience: "another" })), "wrong_audience"),
            (signer, claims(json!({ audience: null })), "wrong_audience"),
            (signer, claims(json!({ "iss": "https://evil.example.com" })), "wrong_issuer"),
            (signer, claims(json!({ "iss": null })), "wrong_issuer"),
            (signer, claims(json!({ "exp": seconds_from_now(-60) })), "token_expired"),
            (other, claims(json!({})), "bad_signature"),
        ] {
            let response = respond(&rig.handler, &signer.sign(&claims).unwrap()).await;
            assert_eq!(response, (401, reason.to_owned()), "{}", provider.heading);
        }
        let only = Rig::new(provider.with(&[url, ("ALLOWED_TENANTS", "globex")]));
        let token = signer.sign(&claims(json!({}))).unwrap();
        let response = respond(&only.handler, &token).await;
        assert_eq!(response, (403, "tenant_not_allowed".to_owned()), "{}", provider.heading);
        if let Some(tenant) = provider.setting("TENANT_CLAIM") {
            let claim = tenant.strip_prefix('/').and_then(|path| path.split('/').next()).unwrap_or(tenant);
            let token = signer.sign(&claims(json!({ claim: null }))).unwrap();
            // Without `tid`, no issuer of Entra matches.
            let reason = if claim == "tid" { "wrong_issuer" } else { "invalid_claims" };
            let response = respond(&rig.handler, &token).await;
            assert_eq!(response, (401, reason.to_owned()), "{}", provider.heading);
        }
        assert!(rig.table.rows().is_empty() && only.table.rows().is_empty(), "{}", provider.heading);
    }
}

/// A token of another app client of the same pool, and a token of the other use.
#[tokio::test]
async fn cognito_tokens_of_another_use_are_refused() {
    for provider in Provider::all().iter().filter(|provider| provider.heading.starts_with("Amazon Cognito")) {
        let server = KeyServer::start().await.unwrap();
        server.serve("/keys", provider.key_set());
        let rig = Rig::new(provider.with(&[("JWT_JWKS_URL", &server.url("/keys"))]));
        let is_access = provider.audience_claim() == "client_id";
        let mut cases = vec![json!({ "token_use": "refresh" }), json!({ "token_use": ["access"] })];
        if is_access {
            cases.extend([json!({ "token_use": "id" }), json!({ "token_use": null })]);
        }
        for changes in cases {
            let token = KEYS[0].sign(&provider.claims(&changes)).unwrap();
            let response = respond(&rig.handler, &token).await;
            assert_eq!(response, (401, "invalid_claims".to_owned()), "{}: {changes}", provider.heading);
        }
    }
}

/// The table at the head of the page names the claims that the sections configure.
#[test]
fn overview_names_configured_claims() {
    let page = fs::read_to_string(paths::workspace().join("docs/guide/identity-providers.md")).unwrap();
    let rows: Vec<_> = page.lines().filter(|line| line.starts_with("| [")).collect();
    let providers = Provider::all();
    assert_eq!(rows.len(), providers.len());
    for (row, provider) in rows.iter().zip(providers) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [user, tenant, permissions] = ["USER_CLAIM", "TENANT_CLAIM", "PERMISSIONS_CLAIM"]
            .map(|name| provider.setting(name).map(ToOwned::to_owned));
        let tenant = tenant.unwrap_or_else(|| "DEFAULT_TENANT".to_owned());
        let expected = [
            user.unwrap_or_else(|| "sub".to_owned()),
            tenant,
            permissions.unwrap_or_else(|| "permissions".to_owned()),
        ];
        assert_eq!(cells[3..6], expected.map(|claim| format!("`{claim}`")), "{}", provider.heading);
    }
}

#[test]
fn terraform_settings_equal_environment() {
    let environment = &Spec::read().unwrap().functions["connect"].environment;
    for provider in Provider::all() {
        let named = provider.environment.into_iter().map(|(name, value)| (environment[&name].clone(), value));
        assert_eq!(named.collect::<BTreeMap<_, _>>(), provider.terraform, "{}", provider.heading);
    }
}
