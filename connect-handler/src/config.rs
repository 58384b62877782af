//! What `connect-handler` is told by its environment.

use std::num::NonZeroUsize;

use streamer_connections::table_name;
use streamer_environment::{Environment, EnvironmentError, Variable, values};
use streamer_message::TenantId;
use streamer_telemetry::Settings;

use crate::{
    fetch::{HttpFetch, KeyUrl, Source},
    jwks::Jwks,
    keys::PublicKey,
    verify::{Keys, Verifier},
};

const JWT_PUBLIC_KEY: Variable = Variable {
    name: "JWT_PUBLIC_KEY",
    expected: "the public key that tokens are verified with, as PEM: RSA (2048 to 8192 bits), EC (P-256, P-384) or \
               Ed25519; or else JWT_JWKS_URL, or JWT_ISSUER for OpenID Connect discovery",
    example: "-----BEGIN PUBLIC KEY-----…",
};
const JWT_JWKS_URL: Variable = Variable {
    name: "JWT_JWKS_URL",
    expected: "where the issuer's JWK set is, an https URL, in place of JWT_PUBLIC_KEY",
    example: "https://auth.example.com/.well-known/jwks.json",
};
const JWT_ISSUER: Variable = Variable {
    name: "JWT_ISSUER",
    expected: "the `iss` that a token must have; any, when not set. Without JWT_PUBLIC_KEY and JWT_JWKS_URL it is an \
               https URL, and the keys are those of its OpenID Connect configuration",
    example: "https://auth.example.com",
};
const REQUIRED_PERMISSION: Variable = Variable {
    name: "REQUIRED_PERMISSION",
    expected: "one of the token's `permissions` that is needed to connect; none, when not set",
    example: "streamer:connect",
};
const MAX_CONNECTIONS_PER_USER: Variable = Variable {
    name: "MAX_CONNECTIONS_PER_USER",
    expected: "how many connections a user may have, 1 to 1000: the oldest is closed for the newest; any number, when \
               not set",
    example: "5",
};
const JWT_AUDIENCE: Variable = Variable {
    name: "JWT_AUDIENCE",
    expected: "the `aud` that a token must have; when not set, a token that has one is refused",
    example: "streamer",
};
const ALLOWED_TENANTS: Variable = Variable {
    name: "ALLOWED_TENANTS",
    expected: "the tenants that may connect, with commas between them; all, when not set",
    example: "acme,globex",
};
const EXPIRE_WITH_TOKEN: Variable = Variable {
    name: "EXPIRE_WITH_TOKEN",
    expected: "whether a connection's row expires with its token, if that is earlier: `true` or `false`, the default",
    example: "true",
};
const WEBSOCKET_ENDPOINT: Variable = Variable {
    name: "WEBSOCKET_ENDPOINT",
    expected: "the management endpoint, an https URL; the event's default endpoint, when not set",
    example: "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production",
};
const AWS_REGION: Variable =
    Variable { name: "AWS_REGION", expected: "the Region; Lambda sets it", example: "eu-central-1" };

/// Everything that `connect-handler` reads from its environment.
pub const VARIABLES: [Variable; 13] = [
    JWT_PUBLIC_KEY,
    JWT_JWKS_URL,
    JWT_ISSUER,
    JWT_AUDIENCE,
    ALLOWED_TENANTS,
    REQUIRED_PERMISSION,
    MAX_CONNECTIONS_PER_USER,
    EXPIRE_WITH_TOKEN,
    WEBSOCKET_ENDPOINT,
    AWS_REGION,
    streamer_connections::CONNECTIONS_TABLE,
    streamer_telemetry::VARIABLES[0],
    streamer_telemetry::VARIABLES[1],
];

/// The configuration of `connect-handler`.
#[derive(Debug)]
pub struct Config {
    /// The connection table's name.
    pub table: String,
    /// What verifies tokens.
    pub verifier: Verifier,
    /// Who may connect, and what is written of it.
    pub access: Access,
    /// How many connections a user may have; any number, when `None`.
    pub max_connections_per_user: Option<NonZeroUsize>,
    /// Logs and metrics.
    pub telemetry: Settings,
}

/// Who may connect, and what is written of it.
#[derive(Debug, Default)]
pub struct Access {
    /// The tenants that may connect; all, when `None`.
    pub allowed_tenants: Option<Vec<TenantId>>,
    /// The permission that is needed; none, when `None`.
    pub required_permission: Option<String>,
    /// Whether a row expires with its token, if that is earlier.
    pub expire_with_token: bool,
    /// The management endpoint, where it is configured.
    pub endpoint: Option<String>,
    /// The Region, for the default endpoint.
    pub region: Option<String>,
}

impl Access {
    /// Whether a tenant may connect.
    #[must_use]
    pub fn allows(&self, tenant: &TenantId) -> bool {
        self.allowed_tenants.as_ref().is_none_or(|allowed| allowed.contains(tenant))
    }

    /// Whether these permissions suffice.
    #[must_use]
    pub fn is_permitted(&self, permissions: &[String]) -> bool {
        self.required_permission.as_ref().is_none_or(|required| permissions.contains(required))
    }
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every one that is faulty.
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
        let expire_with_token = environment.or(&EXPIRE_WITH_TOKEN, values::flag, || false);
        let endpoint = environment.optional(&WEBSOCKET_ENDPOINT, values::http_url);
        let region = environment.optional(&AWS_REGION, values::text);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Some(Self {
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
                telemetry: telemetry?,
            })
        })
    }
}

/// What tokens are verified with: a key, or else a set at a URL, or else that of an issuer. An outer `None` means that
/// a fault was noted.
fn keys(
    environment: &mut Environment,
    key: Option<Option<PublicKey>>,
    url: Option<Option<KeyUrl>>,
    issuer: Option<Option<String>>,
) -> Option<Keys> {
    let set = |source| Keys::Set(Jwks::new(HttpFetch::new(source)));
    match (key?, url?, issuer?) {
        (Some(_), Some(_), _) => environment.fault(&JWT_JWKS_URL, "set beside JWT_PUBLIC_KEY"),
        (Some(key), None, _) => return Some(Keys::One(key)),
        (None, Some(url), _) => return Some(set(Source::Url(url))),
        (None, None, Some(issuer)) => match KeyUrl::new(&issuer).filter(|_| !issuer.contains(['?', '#'])) {
            Some(issuer) => return Some(set(Source::Issuer(issuer))),
            None => environment.fault(&JWT_ISSUER, "no https URL"),
        },
        (None, None, None) => environment.fault(&JWT_PUBLIC_KEY, "missing"),
    }
    None
}

fn maximum(text: &str) -> Option<NonZeroUsize> {
    text.parse().ok().filter(|maximum: &NonZeroUsize| maximum.get() <= 1000)
}

fn tenants(text: &str) -> Option<Vec<TenantId>> {
    values::list(text)?.into_iter().map(|tenant| TenantId::new(tenant).ok()).collect()
}
