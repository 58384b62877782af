//! Passes handshakes on to the emulator, and answers them as API Gateway does.

use std::io;

use anyhow::Context as _;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        CONNECTION, CONTENT_TYPE, HOST, HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL,
        TRANSFER_ENCODING, UPGRADE,
    },
};
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::{
    body::{Bytes, Incoming},
    client::conn::http1,
    upgrade,
};
use hyper_util::rt::TokioIo;
use streamer_connections::subprotocol;
use tokio::net::TcpStream;

use super::{
    bridge::bridge,
    faults::{ConnectionFaults, Faults, Refusal},
    limits::Limits,
};

/// The header in which API Gateway names an error.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A stage of a WebSocket API on an emulator.
#[derive(Debug)]
pub(super) struct Upstream {
    /// The value of the header `Host`.
    authority: String,
    host: String,
    port: u16,
    path: String,
    /// The subprotocols that `connect-handler` answers besides `streamer.jwt`.
    subprotocols: Vec<String>,
}

impl Upstream {
    /// Parses a stage's URL, `ws://…/{stage}`.
    pub(super) fn parse(url: &str, subprotocols: Vec<String>) -> anyhow::Result<Self> {
        let uri: Uri = url.parse().with_context(|| format!("{url} is not a URL"))?;
        let authority = uri.authority().filter(|_| uri.scheme_str() == Some("ws"));
        let authority = authority.with_context(|| format!("{url} is not a ws URL"))?;
        Ok(Self {
            authority: authority.to_string(),
            // An IPv6 address has brackets in a URL.
            host: authority.host().trim_matches(['[', ']']).to_owned(),
            port: authority.port_u16().unwrap_or(80),
            path: uri.path().to_owned(),
            subprotocols,
        })
    }

    /// Returns the stage's name.
    pub(super) fn stage(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }

    /// Returns whether `path` is the stage's path. API Gateway accepts a slash after it.
    fn serves(&self, path: &str) -> bool {
        let stage = path.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path));
        stage == Some(self.stage())
    }

    async fn connect(&self) -> anyhow::Result<TcpStream> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Returns the handshake as the emulator gets it: at its path, with its host, by which it selects a service, and
    /// without extensions. It would negotiate compression, which API Gateway does not have.
    fn request<T>(&self, handshake: &Request<T>) -> anyhow::Result<Request<Empty<Bytes>>> {
        let query = handshake.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut request = Request::get(format!("{}{query}", self.path)).body(Empty::new())?;
        *request.headers_mut() = handshake.headers().clone();
        request.headers_mut().insert(HOST, HeaderValue::from_str(&self.authority)?);
        request.headers_mut().remove(SEC_WEBSOCKET_EXTENSIONS);
        Ok(request)
    }

    /// Sets the subprotocol that `connect-handler` answers and the emulator drops.
    fn answer_subprotocol(&self, handshake: &HeaderMap, response: &mut HeaderMap) {
        response.remove(SEC_WEBSOCKET_PROTOCOL);
        let offered = handshake.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
        let offered = offered.filter_map(|value| value.to_str().ok());
        let answer = subprotocol::answer(offered, &self.subprotocols);
        if let Some(answer) = answer.and_then(|answer| HeaderValue::from_str(answer).ok()) {
            response.insert(SEC_WEBSOCKET_PROTOCOL, answer);
        }
    }
}

/// The settings of a front door, which all its connections share.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) upstream: Upstream,
    pub(super) limits: Limits,
    pub(super) faults: Faults,
}

/// Answers a request. A handshake is passed on, and an accepted one opens a bridge to the emulator.
///
/// API Gateway answers 403 to a wrong stage. Its answer to a request that opens no WebSocket is not documented; here
/// it is 403, too.
///
/// # Errors
/// When a test wants the connection to end without an answer.
pub(super) async fn answer(door: &Door, request: Request<Incoming>) -> io::Result<Response<Full<Bytes>>> {
    let mut faults = door.faults.of_connection();
    faults.unstalled().await;
    match door.faults.refusal() {
        Some(Refusal::Closed) => return Err(io::ErrorKind::ConnectionAborted.into()),
        Some(Refusal::Status(status)) => {
            let message = status.canonical_reason().unwrap_or_default();
            return Ok(refusal(status, "InjectedFault", format!(r#"{{"message":"{message}"}}"#)));
        }
        None => {}
    }
    if !door.upstream.serves(request.uri().path()) || !opens_websocket(&request) {
        return Ok(refusal(StatusCode::FORBIDDEN, "ForbiddenException", r#"{"message":"Forbidden"}"#));
    }
    Ok(pass(door, request, faults).await.unwrap_or_else(|_| {
        let message = r#"{"message":"The emulator does not answer"}"#;
        refusal(StatusCode::BAD_GATEWAY, "BadGatewayException", message)
    }))
}

async fn pass(
    door: &Door,
    mut request: Request<Incoming>,
    faults: ConnectionFaults,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let (upstream, limits) = (&door.upstream, door.limits);
    let (mut sender, connection) = http1::handshake(TokioIo::new(upstream.connect().await?)).await?;
    // When the client leaves, hyper drops this future, and with `sender` the connection to the emulator.
    tokio::spawn(connection.with_upgrades());
    let mut response = sender.send_request(upstream.request(&request)?).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (mut head, body) = response.into_parts();
        // The whole body is sent at once, with its length.
        head.headers.remove(TRANSFER_ENCODING);
        return Ok(Response::from_parts(head, Full::new(body.collect().await?.to_bytes())));
    }
    let upgrades = (upgrade::on(&mut request), upgrade::on(&mut response));
    tokio::spawn(async move {
        if let Ok((client, emulator)) = tokio::try_join!(upgrades.0, upgrades.1) {
            // Both sides see a broken connection as such, so the error needs no other report.
            _ = bridge(TokioIo::new(client), TokioIo::new(emulator), limits, faults).await;
        }
    });
    let mut accepted = Response::new(Full::default());
    *accepted.status_mut() = response.status();
    *accepted.headers_mut() = response.headers().clone();
    upstream.answer_subprotocol(request.headers(), accepted.headers_mut());
    Ok(accepted)
}

/// Returns whether the client asks for a WebSocket (RFC 6455, section 4.2.1). The emulator checks the rest.
fn opens_websocket<T>(request: &Request<T>) -> bool {
    let has = |name, token: &str| {
        let values = request.headers().get_all(name).into_iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
    };
    request.method() == Method::GET && has(CONNECTION, "upgrade") && has(UPGRADE, "websocket")
}

fn refusal(status: StatusCode, error_type: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ERROR_TYPE, HeaderValue::from_static(error_type));
    response
}
