//! HTTP/2 for posts, by hyper. All posts share one connection.

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use tokio::time::timeout;

use crate::{
    post::{BODY_TIMEOUT, MAX_BODY_BYTES, PostRequest, PostResponse},
    sign::{self, X_AMZ_DATE, X_AMZ_SECURITY_TOKEN},
    skew,
};

/// A shared connection. Cheap to clone.
pub type Http2 = SendRequest<Full<Bytes>>;

/// Sends a post, and returns the response.
///
/// # Errors
/// The error that prevented a complete response head.
pub async fn send(connection: &mut Http2, post: &PostRequest<'_>) -> hyper::Result<PostResponse> {
    connection.ready().await?;
    let response = connection.send_request(request(post)).await?;
    let status = response.status().as_u16();
    let date = response.headers().get(DATE).filter(|_| status == 403);
    let date = date.and_then(|date| skew::read_date(date.as_bytes()));
    let body = response.into_body();
    let body = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    // The status counts even if the body is incomplete, too long or too slow.
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    Ok(PostResponse { status, message: String::from_utf8_lossy(&body).into_owned(), date })
}

/// Builds the HTTP request. HTTP/2 takes the host from the URI (RFC 9113, section 8.3.1).
fn request(post: &PostRequest<'_>) -> Request<Full<Bytes>> {
    let PostRequest { origin, path, signature, payload, .. } = post;
    let mut request = Request::new(Full::new(Bytes::clone(payload)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("{origin}{path}").try_into().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(payload.len()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sign::CONTENT_TYPE));
    headers.insert(X_AMZ_DATE, signature.date.clone());
    headers.extend(signature.token.clone().map(|token| (X_AMZ_SECURITY_TOKEN, token)));
    headers.extend(HeaderValue::from_bytes(&signature.authorization).ok().map(|mut authorization| {
        authorization.set_sensitive(true);
        (AUTHORIZATION, authorization)
    }));
    request
}
