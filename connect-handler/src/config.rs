//! What `connect-handler` is told by its environment.

use streamer_connections::table_name;
use streamer_environment::{Environment, EnvironmentError, Variable, values};
use streamer_message::TenantId;
use streamer_telemetry::Settings;

use crate::verify::{PublicKey, Verifier};

const JWT_PUBLIC_KEY: Variable = Variable {
    name: "JWT_PUBLIC_KEY",
    expected: "the public key that tokens are verified with, as PEM: RSA, EC (P-256, P-384) or Ed25519",
    example: "-----BEGIN PUBLIC KEY-----…",
};
const JWT_ISSUER: Variable = Variable {
    name: "JWT_ISSUER",
    expected: "the `iss` that a token must have; any, when not set",
    example: "https://auth.example.com",
};
const JWT_AUDIENCE: Variable = Variable {
    name: "JWT_AUDIENCE",
    expected: "the `aud` that a token must have; any, when not set",
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
pub const VARIABLES: [Variable; 10] = [
    JWT_PUBLIC_KEY,
    JWT_ISSUER,
    JWT_AUDIENCE,
    ALLOWED_TENANTS,
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
    /// Logs and metrics.
    pub telemetry: Settings,
}

/// Who may connect, and what is written of it.
#[derive(Debug, Default)]
pub struct Access {
    /// The tenants that may connect; all, when `None`.
    pub allowed_tenants: Option<Vec<TenantId>>,
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
}

impl Config {
    /// Reads [`VARIABLES`].
    ///
    /// # Errors
    /// [`EnvironmentError`] names every one that is faulty.
    pub fn read(mut environment: Environment) -> Result<Self, EnvironmentError> {
        let table = table_name(&mut environment);
        let key = environment.required(&JWT_PUBLIC_KEY, PublicKey::from_pem);
        let issuer = environment.optional(&JWT_ISSUER, values::text);
        let audience = environment.optional(&JWT_AUDIENCE, values::text);
        let allowed_tenants = environment.optional(&ALLOWED_TENANTS, tenants);
        let expire_with_token = environment.or(&EXPIRE_WITH_TOKEN, values::flag, || false);
        let endpoint = environment.optional(&WEBSOCKET_ENDPOINT, values::http_url);
        let region = environment.optional(&AWS_REGION, values::text);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Some(Self {
                table: table?,
                verifier: Verifier::new(key?, issuer?.as_deref(), audience?.as_deref()),
                access: Access {
                    allowed_tenants: allowed_tenants?,
                    expire_with_token: expire_with_token?,
                    endpoint: endpoint?,
                    region: region?,
                },
                telemetry: telemetry?,
            })
        })
    }
}

fn tenants(text: &str) -> Option<Vec<TenantId>> {
    values::list(text)?.into_iter().map(|tenant| TenantId::new(tenant).ok()).collect()
}
