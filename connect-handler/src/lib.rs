//! The Lambda behind `$connect`.
//!
//! [`token`] finds the token, [`verify`] checks it with one of the [`keys`], which [`jwks`] fetches and keeps, and
//! [`ConnectHandler::handle`] writes the connection's row and answers: 200; 401 for a missing or invalid token; 403
//! for a tenant that is not allowed, or a permission that is missing; 500 when the row could not be written or the
//! keys not be fetched. A refusal's body names the class of the fault, never the token. [`limit`] closes the oldest
//! connections of a user who has too many.
//!
//! Nothing is posted from here: until `$connect` has answered, the connection does not exist for API Gateway.

pub mod config;
pub mod fetch;
pub mod jwks;
pub mod keys;
pub mod limit;
pub mod token;
pub mod verify;

use std::{
    future::pending,
    time::{Duration, Instant, SystemTime},
};

use aws_lambda_events::{
    apigw::{
        ApiGatewayProxyResponse, ApiGatewayWebsocketProxyRequest, ApiGatewayWebsocketProxyRequestContext,
    },
    encodings::Body,
};
use http::{HeaderMap, HeaderValue, header};
use serde_json::json;
use streamer_connections::{Connection, ConnectionTable};
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_telemetry::{Telemetry, metric};

use crate::{
    config::Access,
    limit::ConnectionLimit,
    token::{Token, offers_subprotocol},
    verify::{Claims, Fault, Verifier},
};

/// API Gateway ends a connection after 2 hours; ten minutes more let a late `$disconnect` find its row.
///
/// Source: "Connection duration for WebSocket API" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
const LIFETIME: Duration = Duration::from_secs(2 * 60 * 60 + 10 * 60);

/// What `$connect` needs from one invocation to the next.
#[derive(Debug)]
pub struct ConnectHandler {
    table: ConnectionTable,
    verifier: Verifier,
    access: Access,
    limit: Option<ConnectionLimit>,
    telemetry: Telemetry,
}

/// Why a client is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// Its token.
    Token(Fault),
    /// Its tenant.
    Tenant,
    /// A permission that it lacks.
    Permission,
    /// Us: the event or the table.
    Internal,
}

impl Refusal {
    fn status(self) -> u16 {
        match self {
            Self::Token(Fault::KeysUnavailable) => 500,
            Self::Token(_) => 401,
            Self::Tenant | Self::Permission => 403,
            Self::Internal => 500,
        }
    }

    fn reason(self) -> &'static str {
        match self {
            Self::Token(fault) => fault.reason(),
            Self::Tenant => "tenant_not_allowed",
            Self::Permission => "permission_missing",
            Self::Internal => "internal",
        }
    }
}

impl ConnectHandler {
    /// A handler that writes to `table`, and keeps to `limit` if there is one.
    #[must_use]
    pub fn new(
        table: ConnectionTable,
        verifier: Verifier,
        access: Access,
        limit: Option<ConnectionLimit>,
        telemetry: Telemetry,
    ) -> Self {
        Self { table, verifier, access, limit, telemetry }
    }

    /// Lets a client in, or refuses it.
    pub async fn handle(&self, event: ApiGatewayWebsocketProxyRequest) -> ApiGatewayProxyResponse {
        let started = Instant::now();
        let mut metrics = self.telemetry.metrics();
        let context = &event.request_context;
        let id = context.connection_id.as_deref().unwrap_or_default();
        let connected = tokio::select! {
            biased;
            connected = self.connect(&event) => connected,
            () = self.verifier.keep_fresh(SystemTime::now()) => pending().await,
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
                accepted(&event.headers)
            }
            Err(refusal) => {
                metrics.count(metric::CONNECTIONS_REFUSED, 1);
                metrics.property("reason", refusal.reason());
                tracing::info!(connection_id = id, reason = refusal.reason(), "refused");
                refused(refusal)
            }
        };
        metrics.time(metric::CONNECT_LATENCY, started.elapsed());
        self.telemetry.emit(&metrics);
        response
    }

    async fn connect(&self, event: &ApiGatewayWebsocketProxyRequest) -> Result<Connection, Refusal> {
        let token = Token::find(event).map_err(Refusal::Token)?;
        let claims = self.verifier.verify(&token, SystemTime::now()).await.map_err(Refusal::Token)?;
        let (tenant_id, user_id) = principal(&claims).map_err(Refusal::Token)?;
        if !self.access.allows(&tenant_id) {
            return Err(Refusal::Tenant);
        }
        if !self.access.is_permitted(&claims.permissions) {
            return Err(Refusal::Permission);
        }
        let context = &event.request_context;
        let connection_id = ConnectionId::new(context.connection_id.clone().unwrap_or_default())
            .map_err(|error| internal(&error))?;
        let endpoint = self.endpoint(context)?;
        let connected_at = SystemTime::now();
        let connection = Connection {
            connection_id,
            user_id,
            tenant_id,
            endpoint,
            connected_at,
            expires_at: self.expires_at(connected_at, &claims),
            permissions: claims.permissions.into_iter().filter(|permission| !permission.is_empty()).collect(),
            source_ip: context.identity.source_ip.clone(),
            user_agent: context.identity.user_agent.clone(),
        };
        self.table.put(&connection).await.map_err(|error| internal(&error))?;
        if let Some(limit) = &self.limit {
            limit.enforce(&self.table, &connection, connected_at).await;
        }
        Ok(connection)
    }

    /// The management endpoint: the configured one, or the default one of the event's API. The event's
    /// `domainName` would be wrong behind a custom domain.
    fn endpoint(&self, context: &ApiGatewayWebsocketProxyRequestContext) -> Result<String, Refusal> {
        if let Some(endpoint) = &self.access.endpoint {
            return Ok(endpoint.clone());
        }
        let (Some(api), Some(region), Some(stage)) = (&context.apiid, &self.access.region, &context.stage)
        else {
            return Err(internal(&"the event names no API or stage, or AWS_REGION is not set"));
        };
        let suffix = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        Ok(format!("https://{api}.execute-api.{region}.{suffix}/{stage}"))
    }

    fn expires_at(&self, connected_at: SystemTime, claims: &Claims) -> SystemTime {
        let ends = connected_at + LIFETIME;
        match claims.expires_at() {
            Some(expiry) if self.access.expire_with_token => ends.min(expiry),
            _ => ends,
        }
    }
}

fn principal(claims: &Claims) -> Result<(TenantId, UserId), Fault> {
    let tenant = TenantId::new(claims.tenant_id.as_str()).map_err(|_| Fault::InvalidClaims)?;
    let user = UserId::new(claims.sub.as_str()).map_err(|_| Fault::InvalidClaims)?;
    Ok((tenant, user))
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "the client could not be let in");
    Refusal::Internal
}

fn accepted(offered: &HeaderMap) -> ApiGatewayProxyResponse {
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = 200;
    if offers_subprotocol(offered) {
        let answer = HeaderValue::from_static(token::SUBPROTOCOL);
        response.headers.insert(header::SEC_WEBSOCKET_PROTOCOL, answer);
    }
    response
}

fn refused(refusal: Refusal) -> ApiGatewayProxyResponse {
    let mut response = ApiGatewayProxyResponse::default();
    response.status_code = refusal.status().into();
    response.body = Some(Body::Text(json!({ "error": refusal.reason() }).to_string()));
    response
}
