//! The configuration of `connect-handler`, from its environment.

mod identity;

use std::{collections::BTreeSet, num::NonZeroUsize, time::Duration};

use streamer_connections::{
    CONNECT_GRACE_SECONDS, CONNECTIONS_TABLE, TENANT_SHARDS, TenantShards, connect_grace, table_name,
    tenant_shards,
};
use streamer_environment::{Environment, EnvironmentError, Variable, values};
use streamer_message::TenantId;
use streamer_telemetry::{LOG_LEVEL, STAGE, Settings};

use self::identity::{
    DEFAULT_TENANT, IDENTITY_SOURCE, JWT_AUDIENCE, JWT_AUDIENCE_CLAIM, JWT_ISSUER, JWT_JWKS_URL,
    JWT_PUBLIC_KEY, PERMISSIONS_CLAIM, TENANT_CLAIM, USER_CLAIM,
};
use crate::identity::Identity;

const REQUIRED_PERMISSION: Variable = Variable {
    name: "REQUIRED_PERMISSION",
    expected: "the permission that a client must have; none if unset",
    example: "streamer:connect",
};
const MAX_CONNECTIONS_PER_USER: Variable = Variable {
    name: "MAX_CONNECTIONS_PER_USER",
    expected: "the maximum number of connections of a user, 1 to 1000; a further connection closes the oldest; no \
               limit if unset",
    example: "5",
};
const ALLOWED_TENANTS: Variable = Variable {
    name: "ALLOWED_TENANTS",
    expected: "the tenants that may connect, separated by commas; all if unset",
    example: "acme,globex",
};
const SUBPROTOCOLS: Variable = Variable {
    name: "SUBPROTOCOLS",
    expected: "further subprotocols to answer when a client offers them, separated by commas; none if unset",
    example: "graphql-transport-ws",
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
pub const VARIABLES: [Variable; 22] = [
    IDENTITY_SOURCE,
    JWT_PUBLIC_KEY,
    JWT_JWKS_URL,
    JWT_ISSUER,
    JWT_AUDIENCE,
    JWT_AUDIENCE_CLAIM,
    USER_CLAIM,
    TENANT_CLAIM,
    DEFAULT_TENANT,
    PERMISSIONS_CLAIM,
    ALLOWED_TENANTS,
    REQUIRED_PERMISSION,
    SUBPROTOCOLS,
    MAX_CONNECTIONS_PER_USER,
    CONNECT_GRACE_SECONDS,
    EXPIRE_WITH_TOKEN,
    WEBSOCKET_ENDPOINT,
    AWS_REGION,
    CONNECTIONS_TABLE,
    TENANT_SHARDS,
    LOG_LEVEL,
    STAGE,
];

/// The configuration of `connect-handler`.
#[derive(Debug)]
pub struct Config {
    /// The connection table's name.
    pub table: String,
    /// The number of shards with which rows are written.
    pub tenant_shards: TenantShards,
    /// The source of clients' identities.
    pub identity: Identity,
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
    /// Subprotocols that are answered besides Streamer's own.
    pub subprotocols: Vec<String>,
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
        let tenant_shards = tenant_shards(&mut environment);
        let expire_with_token = environment.or(&EXPIRE_WITH_TOKEN, values::flag, || false);
        let identity = identity::read(&mut environment);
        if matches!((&identity, &expire_with_token), (Ok(Identity::Authorizer(_)), Ok(true))) {
            environment.fault(&EXPIRE_WITH_TOKEN, "set together with IDENTITY_SOURCE=authorizer");
        }
        let allowed_tenants = environment.optional_not_empty(&ALLOWED_TENANTS, tenants);
        let required_permission = environment.optional_not_empty(&REQUIRED_PERMISSION, values::text);
        let maximum = environment.optional_not_empty(&MAX_CONNECTIONS_PER_USER, maximum);
        let connect_grace = connect_grace(&mut environment);
        let subprotocols = environment.or(&SUBPROTOCOLS, subprotocols, Vec::new);
        let endpoint = environment.optional(&WEBSOCKET_ENDPOINT, values::http_url);
        let region = environment.optional(&AWS_REGION, values::text);
        let telemetry = Settings::read(&mut environment);
        environment.finish(|| {
            Ok(Self {
                table: table?,
                tenant_shards: tenant_shards?,
                identity: identity?,
                access: Access {
                    allowed_tenants: allowed_tenants?,
                    required_permission: required_permission?,
                    expire_with_token: expire_with_token?,
                    subprotocols: subprotocols?,
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

fn maximum(text: &str) -> Option<NonZeroUsize> {
    text.parse().ok().filter(|maximum: &NonZeroUsize| maximum.get() <= 1000)
}

fn tenants(text: &str) -> Option<Vec<TenantId>> {
    values::list(text)?.into_iter().map(|tenant| TenantId::new(tenant).ok()).collect()
}

/// Parses subprotocols, each a token (RFC 6455, section 4.1; RFC 9110, section 5.6.2).
fn subprotocols(text: &str) -> Option<Vec<String>> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    values::list(text).filter(|all| all.iter().all(|subprotocol| subprotocol.bytes().all(is_token)))
}
