//! The configuration of `connect-handler`, from its environment.

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use streamer_connections::{CONNECT_GRACE_SECONDS, CONNECTIONS_TABLE, connect_grace, table_name};
use streamer_environment::{Environment, EnvironmentError, Faulty, Variable, values};
use streamer_message::TenantId;
use streamer_telemetry::{LOG_LEVEL, STAGE, Settings};

use crate::{
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::Jwks,
    keys::PublicKey,
    verify::{Keys, Verifier},
};

const JWT_PUBLIC_KEY: Variable = Variable {
    name: "JWT_PUBLIC_KEY",
    expected: "the public key that verifies tokens, as PEM: RSA (2048 to 8192 bits), EC (P-256, P-384) or Ed25519; \
               alternatively JWT_JWKS_URL, or JWT_ISSUER for OpenID Connect discovery",
    example: "-----BEGIN PUBLIC KEY-----…",
};
const JWT_JWKS_URL: Variable = Variable {
    name: "JWT_JWKS_URL",
    expected: "the https URL of the issuer's JWK set, instead of JWT_PUBLIC_KEY",
    example: "https://auth.example.com/.well-known/jwks.json",
};
const JWT_ISSUER: Variable = Variable {
    name: "JWT_ISSUER",
    expected: "the `iss` that a token must have; any if unset. Without JWT_PUBLIC_KEY and JWT_JWKS_URL, the https URL \
               of the issuer, whose OpenID Connect configuration names the keys",
    example: "https://auth.example.com",
};
const REQUIRED_PERMISSION: Variable = Variable {
    name: "REQUIRED_PERMISSION",
    expected: "the permission that a token's `permissions` must contain; none if unset",
    example: "streamer:connect",
};
const MAX_CONNECTIONS_PER_USER: Variable = Variable {
    name: "MAX_CONNECTIONS_PER_USER",
    expected: "the maximum number of connections of a user, 1 to 1000; a further connection closes the oldest; no \
               limit if unset",
    example: "5",
};
const JWT_AUDIENCE: Variable = Variable {
    name: "JWT_AUDIENCE",
    expected: "the `aud` that a token must have; if unset, a token with an `aud` is refused",
    example: "streamer",
};
const ALLOWED_TENANTS: Variable = Variable {
    name: "ALLOWED_TENANTS",
    expected: "the tenants that may connect, separated by commas; all if unset",
    example: "acme,globex",
};
const EXPIRE_WITH_TOKEN: Variable = Variable {
    name: "EXPIRE_WITH_TOKEN",
    expected: "whether a connection's row expires with its token, if that is earlier: `true` or `false` (the default)",
    example: "true",
};
const WEBSOCKET_ENDPOINT: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT",
    expected: "the management endpoint, an https URL; the default endpoint of the event's API if unset",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const AWS_REGION: Variable =
    Variable { name: "AWS_REGION", expected: "the Region, which Lambda sets", example: "eu-central-1" };

/// Every environment variable that `connect-handler` reads.
pub const VARIABLES: [Variable; 14] = [
    JWT_PUBLIC_KEY,
    JWT_JWKS_URL,
    JWT_ISSUER,
    JWT_AUDIENCE,
    ALLOWED_TENANTS,
    REQUIRED_PERMISSION,
    MAX_CONNECTIONS_PER_USER,
    CONNECT_GRACE_SECONDS,
    EXPIRE_WITH_TOKEN,
    WEBSOCKET_ENDPOINT,
    AWS_REGION,
    CONNECTIONS_TABLE,
    LOG_LEVEL,
    STAGE,
];

/// The configuration of `connect-handler`.
#[derive(Debug)]
pub struct Config {
    /// The connection table's name.
    pub table: String,
    /// The verifier of tokens.
    pub verifier: Verifier,
    /// The rules for who may connect, and the contents of a connection's row.
    pub access: Access,
    /// The maximum number of connections of a user; no limit if `None`.
    pub max_connections_per_user: Option<NonZeroUsize>,
    /// How young a connection over that limit may be for a 410 to mean "not yet connected".
    pub connect_grace: Duration,
    /// The settings of logs and metrics.
    pub telemetry: Settings,
}

/// The rules for who may connect, and the contents of a connection's row.
#[derive(Debug, Default)]
pub struct Access {
    /// The tenants that may connect; all if `None`.
    pub allowed_tenants: Option<Vec<TenantId>>,
    /// The permission that a token must have; none if `None`.
    pub required_permission: Option<String>,
    /// Whether a row expires with its token, if that is earlier.
    pub expire_with_token: bool,
    /// The configured management endpoint.
    pub endpoint: Option<String>,
    /// The Region, which is part of the default endpoint.
    pub region: Option<String>,
}

impl Access {
    /// Returns whether a tenant may connect.
    #[must_use]
    pub fn allows(&self, tenant: &TenantId) -> bool {
        self.allowed_tenants.as_ref().is_none_or(|allowed| allowed.contains(tenant))
    }

    /// Returns whether `permissions` contain the required one.
    #[must_use]
    pub fn is_permitted(&self, permissions: &BTreeSet<String>) -> bool {
        self.required_permission.as_ref().is_none_or(|required| permissions.contains(required))
    }
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every variable that is missing or malformed.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let table = table_name(&mut environment);
        let key = environment.optional(&JWT_PUBLIC_KEY, PublicKey::from_pem);
        let url = environment.optional(&JWT_JWKS_URL, KeyUrl::new);
        let issuer = environment.optional_not_empty(&JWT_ISSUER, values::text);
        let keys = keys(&mut environment, key, url, issuer.clone());
        let audience = environment.optional_not_empty(&JWT_AUDIENCE, values::text);
        let allowed_tenants = environment.optional_not_empty(&ALLOWED_TENANTS, tenants);
        let required_permission = environment.optional_not_empty(&REQUIRED_PERMISSION, values::text);
        let maximum = environment.optional_not_empty(&MAX_CONNECTIONS_PER_USER, maximum);
        let connect_grace = connect_grace(&mut environment);
        let expire_with_token = environment.or(&EXPIRE_WITH_TOKEN, values::flag, || false);
        let endpoint = environment.optional(&WEBSOCKET_ENDPOINT, values::http_url);
        let region = environment.optional(&AWS_REGION, values::text);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Ok(Self {
                table: table?,
                verifier: Verifier::new(keys?, issuer?.as_deref(), audience?.as_deref()),
                access: Access {
                    allowed_tenants: allowed_tenants?,
                    required_permission: required_permission?,
                    expire_with_token: expire_with_token?,
                    endpoint: endpoint?,
                    region: region?,
                },
                max_connections_per_user: maximum?,
                connect_grace: connect_grace?,
                telemetry: telemetry?,
            })
        })
    }
}

/// Returns the configured key, else the JWK set at the configured URL, else the JWK set of the issuer.
fn keys(
    environment: &mut Environment,
    key: Result<Option<PublicKey>, Faulty>,
    url: Result<Option<KeyUrl>, Faulty>,
    issuer: Result<Option<String>, Faulty>,
) -> Result<Keys, Faulty> {
    let set = |source| Keys::Set(Jwks::new(HttpFetch::new(source)));
    match (key?, url?, issuer?) {
        (Some(_), Some(_), _) => Err(environment.fault(&JWT_JWKS_URL, "set together with JWT_PUBLIC_KEY")),
        (Some(key), None, _) => Ok(Keys::One(key)),
        (None, Some(url), _) => Ok(set(Source::Url(url))),
        (None, None, Some(issuer)) => match KeyUrl::new(&issuer).filter(|_| !issuer.contains(['?', '#'])) {
            Some(issuer) => Ok(set(Source::Issuer(issuer))),
            None => Err(environment.fault(&JWT_ISSUER, "not an https URL")),
        },
        (None, None, None) => Err(environment.fault(&JWT_PUBLIC_KEY, "missing")),
    }
}

fn maximum(text: &str) -> Option<NonZeroUsize> {
    text.parse().ok().filter(|maximum: &NonZeroUsize| maximum.get() <= 1000)
}

fn tenants(text: &str) -> Option<Vec<TenantId>> {
    values::list(text)?.into_iter().map(|tenant| TenantId::new(tenant).ok()).collect()
}
