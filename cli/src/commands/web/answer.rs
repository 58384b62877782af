//! From a request of the page to its response.

use std::{error::Error, net::SocketAddr};

use anyhow::Context as _;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{
        CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
        X_FRAME_OPTIONS,
    },
};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body, Bytes};
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    actions::{Action, InvalidBody},
    files,
    guard::{self, BODY_TIMEOUT, MAX_BODY, Refusal},
};
use crate::stack::Stack;

const JSON: &str = "application/json";

/// Keeps pages of other sites from reading or embedding a response.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// The page of a stack.
#[derive(Debug)]
pub(super) struct Site {
    /// The authority of its URL.
    authority: String,
    stack: Stack,
}

impl Site {
    pub(super) fn new(address: SocketAddr, stack: Stack) -> Self {
        Self { authority: guard::authority(address), stack }
    }

    /// Returns the page's URL.
    pub(super) fn url(&self) -> String {
        format!("http://{}/", self.authority)
    }

    /// Answers a request.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Full<Bytes>>
    where
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let answered = self.try_answer(request).await;
        let (status, content_type, content) = match answered {
            Ok((content_type, content)) => (StatusCode::OK, content_type, content),
            Err(Failure { status, text }) => {
                (status, JSON, Bytes::from(json!({ "error": text }).to_string()))
            }
        };
        let mut response = Response::new(Full::new(content));
        *response.status_mut() = status;
        self.set_headers(response.headers_mut(), content_type);
        response
    }

    async fn try_answer<B>(&self, request: Request<B>) -> Result<(&'static str, Bytes), Failure>
    where
        B: Body<Error: Into<Box<dyn Error + Send + Sync>>>,
    {
        let (head, body) = request.into_parts();
        guard::check(&head, &self.authority)?;
        let path = head.uri.path();
        if head.method == Method::GET {
            if path == "/stack" {
                return Ok((JSON, Bytes::from(self.facts().to_string())));
            }
            let file = files::find(path).ok_or(Refusal::NotFound)?;
            return Ok((file.content_type, Bytes::from_static(file.content.as_bytes())));
        }
        let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
        // A body that ends early fails like one that is too large: its sender is gone.
        let body = body.ok().and_then(Result::ok).ok_or(Refusal::Body)?;
        let action = Action::parse(path, &body.to_bytes()).ok_or(Refusal::NotFound)?;
        let action = action.map_err(|InvalidBody(text)| Failure { status: StatusCode::BAD_REQUEST, text })?;
        let result = action.run(&self.stack).await.map_err(|error| Failure {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            text: format!("{error:#}"),
        })?;
        Ok((JSON, Bytes::from(result.to_string())))
    }

    /// Returns the facts that the page needs.
    fn facts(&self) -> Value {
        json!({ "websocket_url": self.stack.deployed.websocket_url })
    }

    fn set_headers(&self, headers: &mut HeaderMap, content_type: &'static str) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(RESOURCE_POLICY, HeaderValue::from_static("same-origin"));
        // A URL of a stack is a valid header value. Without one, the page can't connect, but is as safe.
        let policy = HeaderValue::from_str(&policy(&self.stack.deployed.websocket_url));
        headers.insert(
            CONTENT_SECURITY_POLICY,
            policy.unwrap_or(HeaderValue::from_static("default-src 'self'")),
        );
    }
}

/// Returns the Content-Security-Policy: files and connections of the page's own server, and the stack's WebSocket.
fn policy(websocket_url: &str) -> String {
    let socket = origin(websocket_url).unwrap_or_default();
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self' {socket}; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
}

fn origin(url: &str) -> anyhow::Result<String> {
    let uri: Uri = url.parse().context("the stack's WebSocket URL is not a URL")?;
    let authority = uri.authority().context("the stack's WebSocket URL has no server")?;
    Ok(format!("ws://{authority}"))
}

/// A request that has no result.
struct Failure {
    status: StatusCode,
    text: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status(), text: refusal.text().to_owned() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::stack::{deploy::Deployed, issuer::Issuer};

    async fn site() -> Site {
        let mut deployed = Deployed::default();
        "ws://127.0.0.1:4567/local".clone_into(&mut deployed.websocket_url);
        let stack = Stack::attach(deployed, Issuer::generate().unwrap()).await;
        Site::new("127.0.0.1:8080".parse().unwrap(), stack)
    }

    fn get(path: &str) -> Request<Full<Bytes>> {
        Request::get(path).header("host", "127.0.0.1:8080").body(Full::default()).unwrap()
    }

    fn post(path: &str, body: &str) -> Request<Full<Bytes>> {
        let request = Request::post(path).header("host", "127.0.0.1:8080").header("content-type", JSON);
        request.body(Full::new(Bytes::from(body.to_owned()))).unwrap()
    }

    async fn text(response: Response<Full<Bytes>>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn page_has_strict_headers() {
        let response = site().await.answer(get("/")).await;
        assert_eq!(response.status(), StatusCode::OK);
        let header = |name: &str| response.headers()[name].to_str().unwrap();
        assert_eq!(header("content-type"), "text/html; charset=utf-8");
        assert_eq!((header("cache-control"), header("x-content-type-options")), ("no-store", "nosniff"));
        let policy = header("content-security-policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(policy.contains("connect-src 'self' ws://127.0.0.1:4567; "), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
    }

    #[tokio::test]
    async fn page_answers_on_port_80() {
        let stack = site().await.stack;
        let site = Site::new("127.0.0.1:80".parse().unwrap(), stack);
        assert_eq!(site.url(), "http://127.0.0.1/");
        let request = Request::get("/").header("host", "127.0.0.1").body(Full::<Bytes>::default()).unwrap();
        assert_eq!(site.answer(request).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn unknown_paths_are_not_found() {
        let site = site().await;
        for request in [
            get("/token"),
            get("/../Cargo.toml"),
            get("/streamer-client/"),
            post("/", "{}"),
            post("/stack", "{}"),
        ] {
            assert_eq!(site.answer(request).await.status(), StatusCode::NOT_FOUND);
        }
    }

    #[tokio::test]
    async fn refused_requests_get_no_token() {
        let site = site().await;
        let body = r#"{"tenant":"acme","user":"anna"}"#;
        let accepted = site.answer(post("/token", body)).await;
        assert_eq!(accepted.status(), StatusCode::OK);
        assert!(text(accepted).await.contains("eyJ"));
        for (name, value, status) in [
            ("host", "evil.example:8080", StatusCode::MISDIRECTED_REQUEST),
            ("origin", "https://evil.example", StatusCode::FORBIDDEN),
            ("sec-fetch-site", "cross-site", StatusCode::FORBIDDEN),
            ("content-type", "text/plain", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ] {
            let mut request = post("/token", body);
            request.headers_mut().insert(name, HeaderValue::from_static(value));
            let response = site.answer(request).await;
            assert_eq!(response.status(), status, "{name}");
            let text = text(response).await;
            assert!(text.contains("error") && !text.contains("eyJ"), "{text}");
        }
    }

    #[tokio::test]
    async fn large_bodies_are_refused() {
        let site = site().await;
        let body = |bytes: usize| format!(r#"{{"tenant":"acme","user":"anna","x":"{}"}}"#, "x".repeat(bytes));
        assert_eq!(site.answer(post("/token", &body(MAX_BODY - 64))).await.status(), StatusCode::OK);
        assert_eq!(
            site.answer(post("/token", &body(MAX_BODY))).await.status(),
            StatusCode::PAYLOAD_TOO_LARGE
        );
    }

    #[tokio::test]
    async fn invalid_bodies_get_400() {
        let response = site().await.answer(post("/token", r#"{"tenant":"secret text"}"#)).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST);
        assert!(!text(response).await.contains("secret text"));
    }
}
