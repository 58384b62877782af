//! The Lambda function behind `$connect`.
//!
//! - [`identity`]: a token, or the context of an authorizer. [`token`] finds the token in the event.
//! - [`verify`] verifies it with one of the [`keys`], which [`jwks`] caches and [`fetch`] fetches, and [`claims`] checks
//!   it by the [`rules`], for an [`issuer`] and the claims that each [`claim_path`] names. [`fault`] lists the reasons
//!   for a refusal.
//! - [`limit`] closes the oldest connections of a user who has too many.
//! - [`ConnectHandler::handle`] writes the connection's row and answers.
//!
//! | status | reason |
//! |---|---|
//! | 200 | the client may connect |
//! | 401 | the token is missing or invalid |
//! | 403 | the tenant is not allowed, or a permission is missing |
//! | 500 | the row could not be written, the keys could not be fetched, or the authorizer is missing |
//!
//! A refusal's body names the reason, never the token. The handler posts nothing: the connection does not exist for API
//! Gateway until `$connect` has been answered.

pub mod claim_path;
pub mod claims;
pub mod config;
pub mod fault;
pub mod fetch;
pub mod identity;
pub mod issuer;
pub mod jwks;
pub mod keys;
pub mod limit;
pub mod rules;
pub mod token;
pub mod verify;

use std::{
    collections::BTreeSet,
    future::pending,
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::{apigw::ApiGatewayProxyResponse, encodings::Body};
use http::{HeaderValue, header};
use serde_json::json;
use streamer_connections::{Connection, ConnectionTable, subprotocol};
use streamer_events::WebSocketEvent;
use streamer_message::ConnectionId;
use streamer_telemetry::{Telemetry, metric};

use crate::{
    config::Access,
    fault::{ClaimFault, Fault},
    identity::Identity,
    limit::ConnectionLimit,
};

/// Lifetime of a row: API Gateway ends a connection after 2 h, and a late `$disconnect` still finds its row within a
/// further 10 min.
///
/// Source: "Connection duration for WebSocket API" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60 + 10 * 60);

const INVOKE: &str = "invoke the function by the route $connect of a WebSocket API";
const SET: &str = "set WEBSOCKET_ENDPOINT";

/// The handler of `$connect`. It is created once per execution environment.
#[derive(Debug)]
pub struct ConnectHandler {
    table: ConnectionTable,
    identity: Identity,
    access: Access,
    limit: Option<ConnectionLimit>,
    telemetry: Telemetry,
}

/// The reason why a client may not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// The token or the authorizer's context is missing, invalid or cannot be verified.
    Identity(Fault),
    /// The tenant is not allowed.
    Tenant,
    /// The client lacks the required permission.
    Permission,
    /// The event is incomplete, or the table failed.
    Internal,
}

impl Refusal {
    fn status(&self) -> u16 {
        match self {
            Self::Identity(Fault::KeysUnavailable | Fault::NoAuthorizer) => 500,
            Self::Identity(_) => 401,
            Self::Tenant | Self::Permission => 403,
            Self::Internal => 500,
        }
    }

    /// Returns whether a change of keys, issuer or settings can cause the refusal for all clients.
    fn is_mismatch(&self) -> bool {
        match self {
            Self::Identity(fault) => fault.is_mismatch(),
            Self::Tenant | Self::Permission => true,
            Self::Internal => false,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Identity(fault) => fault.reason(),
            Self::Tenant => "tenant_not_allowed",
            Self::Permission => "permission_missing",
            Self::Internal => "internal",
        }
    }

    /// Returns the claim that causes the refusal, and its problem.
    fn claim(&self) -> (Option<String>, Option<String>) {
        let of_all = |problem: &str| (None, Some(problem.to_owned()));
        match self {
            Self::Identity(Fault::NoClaims) => of_all("the claims are not a JSON object"),
            Self::Identity(Fault::NoAuthorizer) => {
                of_all("$connect has no authorizer: attach one, or unset IDENTITY_SOURCE")
            }
            Self::Identity(Fault::ManyKeys) => of_all("more keys fit than the 16 that were tried"),
            Self::Identity(fault) => {
                fault.claim().map(|fault| (fault.claim, fault.problem.to_string())).unzip()
            }
            _ => (None, None),
        }
    }
}

impl ConnectHandler {
    /// Creates a handler that writes to `table` and enforces `limit`, if any.
    #[must_use]
    pub fn new(
        table: ConnectionTable,
        identity: impl Into<Identity>,
        access: Access,
        limit: Option<ConnectionLimit>,
        telemetry: Telemetry,
    ) -> Self {
        Self { table, identity: identity.into(), access, limit, telemetry }
    }

    /// Accepts or refuses a client.
    pub async fn handle(&self, event: WebSocketEvent) -> ApiGatewayProxyResponse {
        let started = Instant::now();
        let mut metrics = self.telemetry.metrics();
        let id = event.connection_id.as_deref().unwrap_or_default();
        let connected = tokio::select! {
            biased;
            connected = self.connect(&event) => connected,
            () = self.identity.keep_fresh(SystemTime::now()) => pending().await,
        };
        let response = match connected {
            Ok(connection) => {
                metrics.count(metric::CONNECTIONS_OPENED, 1);
                tracing::info!(
                    connection_id = id,
                    user_id = %connection.user_id,
                    tenant_id = %connection.tenant_id,
                    "connected"
                );
                self.accepted(&event)
            }
            Err(refusal) => {
                metrics.count(metric::CONNECTIONS_REFUSED, 1);
                metrics.count(metric::CONNECTIONS_FAILED, usize::from(refusal.status() >= 500));
                metrics.count(metric::CONNECTIONS_MISMATCHED, usize::from(refusal.is_mismatch()));
                metrics.property("reason", refusal.reason());
                let (claim, problem) = refusal.claim();
                tracing::info!(connection_id = id, reason = refusal.reason(), claim, problem, "refused");
                refused(&refusal)
            }
        };
        metrics.time(metric::CONNECT_LATENCY, started.elapsed());
        self.telemetry.emit(&metrics);
        response
    }

    async fn connect(&self, event: &WebSocketEvent) -> Result<Connection, Refusal> {
        let claims = self.identity.verify(event, SystemTime::now()).await.map_err(Refusal::Identity)?;
        if !self.access.allows(&claims.tenant_id) {
            return Err(Refusal::Tenant);
        }
        let expires_at = claims.expires_at();
        let permissions = permitted(&self.access, claims.permissions)?;
        let id = event.connection_id.as_deref().ok_or_else(|| lacks("connectionId", INVOKE))?;
        let connection_id = ConnectionId::new(id).map_err(|error| internal(&error))?;
        let endpoint = self.endpoint(event)?;
        let connected_at = SystemTime::now();
        let connection = Connection {
            connection_id,
            user_id: claims.user_id,
            tenant_id: claims.tenant_id,
            endpoint,
            connected_at,
            expires_at: self.expires_at(connected_at, expires_at),
            permissions,
            source_ip: event.source_ip.clone(),
            user_agent: event.user_agent.clone(),
        };
        self.table.put(&connection).await.map_err(|error| internal(&error))?;
        if let Some(limit) = &self.limit {
            limit.enforce(&self.table, &connection, connected_at).await;
        }
        Ok(connection)
    }

    /// Returns the configured management endpoint, or the default one of the event's API. The event's `domainName`
    /// would be wrong behind a custom domain.
    fn endpoint(&self, event: &WebSocketEvent) -> Result<String, Refusal> {
        if let Some(endpoint) = &self.access.endpoint {
            return Ok(endpoint.clone());
        }
        let api = event.api_id.as_ref().ok_or_else(|| lacks("apiId", SET))?;
        let stage = event.stage.as_ref().ok_or_else(|| lacks("stage", SET))?;
        let no_region = || internal(&format_args!("AWS_REGION is not set: {SET}"));
        let region = self.access.region.as_ref().ok_or_else(no_region)?;
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(format!("https://{api}.execute-api.{region}.{suffix}/{stage}"))
    }

    fn accepted(&self, event: &WebSocketEvent) -> ApiGatewayProxyResponse {
        let mut response = ApiGatewayProxyResponse::default();
        response.status_code = 200;
        let offered = event.header(subprotocol::HEADER);
        let answer = subprotocol::answer(offered, &self.access.subprotocols);
        if let Some(subprotocol) = answer.and_then(|answer| HeaderValue::from_str(answer).ok()) {
            response.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, subprotocol);
        }
        response
    }

    fn expires_at(&self, connected_at: SystemTime, token_expires_at: Option<SystemTime>) -> SystemTime {
        let latest = connected_at + LIFETIME;
        match token_expires_at {
            Some(expiry) if self.access.expire_with_token => latest.min(expiry),
            _ => latest,
        }
    }
}

/// Refuses an event that lacks a field of its `requestContext`.
fn lacks(field: &str, remedy: &str) -> Refusal {
    internal(&format_args!("the event has no requestContext.{field}: {remedy}"))
}

/// Returns the permissions of a token that has the required one.
fn permitted(
    access: &Access,
    permissions: Result<BTreeSet<String>, ClaimFault>,
) -> Result<BTreeSet<String>, Refusal> {
    if access.required_permission.is_none() {
        return Ok(permissions.unwrap_or_default());
    }
    let permissions = permissions.map_err(|fault| Refusal::Identity(Fault::InvalidClaims(fault)))?;
    if access.is_permitted(&permissions) { Ok(permissions) } else { Err(Refusal::Permission) }
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "failed to accept the client");
    Refusal::Internal
}

fn refused(refusal: &Refusal) -> ApiGatewayProxyResponse {
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = refusal.status().into();
    response.body = Some(Body::Text(json!({ "error": refusal.reason() }).to_string()));
    response
}
