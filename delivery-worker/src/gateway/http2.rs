//! HTTP/2 for posts, by hyper: all of them share one connection.

use bytes::Bytes;
use http::{
    HeaderValue, Request,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, DATE},
};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http2::SendRequest;
use tokio::time::timeout;

use super::{
    Answered, BODY_BYTES, BODY_TIME, Post,
    sign::{self, X_AMZ_DATE, X_AMZ_SECURITY_TOKEN},
    skew,
};

/// A shared connection. Cheap to clone.
pub type Http2 = SendRequest<Full<Bytes>>;

/// Posts, and returns the answer.
///
/// # Errors
/// Whatever kept the answer's head from arriving whole.
pub async fn send(connection: &mut Http2, post: &Post<'_>) -> hyper::Result<Answered> {
    connection.ready().await?;
    let response = connection.send_request(request(post)).await?;
    let status = response.status().as_u16();
    let date = response.headers().get(DATE).filter(|_| status == 403);
    let date = date.and_then(|date| skew::read_date(date.as_bytes()));
    let body = response.into_body();
    let body = timeout(BODY_TIME, Limited::new(body, BODY_BYTES).collect()).await;
    // Cut, too long or too slow: the status is known all the same.
    let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
    Ok(Answered { status, message: String::from_utf8_lossy(&body).into_owned(), date })
}

/// HTTP/2 takes the host from the URI (RFC 9113, section 8.3.1).
fn request(post: &Post<'_>) -> Request<Full<Bytes>> {
    let Post { origin, path, signed, payload, .. } = post;
    let mut request = Request::new(Full::new(Bytes::clone(payload)));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = format!("{origin}{path}").try_into().unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(CONTENT_LENGTH, HeaderValue::from(payload.len()));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(sign::CONTENT_TYPE));
    headers.insert(X_AMZ_DATE, signed.date.clone());
    headers.extend(signed.token.clone().map(|token| (X_AMZ_SECURITY_TOKEN, token)));
    headers.extend(HeaderValue::from_bytes(&signed.authorization).ok().map(|mut authorization| {
        authorization.set_sensitive(true);
        (AUTHORIZATION, authorization)
    }));
    request
}
