//! Refuses requests that the page itself did not send.
//!
//! Any web site that the user visits can send requests to a port of this machine, and with DNS rebinding even under a
//! name of its own. Responses hold tokens. Each request is checked to come from the page: `Host` defeats rebinding,
//! `Origin` and `Sec-Fetch-Site` other sites, and the content type needs a preflight, which this server refuses.

use std::{net::SocketAddr, time::Duration};

use http::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_TYPE, HOST, HeaderName, ORIGIN},
    request::Parts,
};

/// Largest body of a request, in bytes.
pub(super) const MAX_BODY: usize = 16 * 1024;

/// Time in which the body of a request has to arrive.
pub(super) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The port of `http` URLs that name none.
const DEFAULT_PORT: u16 = 80;

/// The browser's relation between the site that sends a request and the page's site, as Fetch Metadata names it.
static FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The reason why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The header `Host` names another server.
    Host,
    /// The header `Origin` names another site.
    Origin,
    /// The header `Sec-Fetch-Site` names another site.
    Site,
    ContentType,
    NotFound,
    Method,
    /// The body has more than [`MAX_BODY`] bytes, or did not arrive within [`BODY_TIMEOUT`].
    Body,
}

impl Refusal {
    /// Returns the status of the response.
    pub(super) fn status(self) -> StatusCode {
        match self {
            Self::Host => StatusCode::MISDIRECTED_REQUEST,
            Self::Origin | Self::Site => StatusCode::FORBIDDEN,
            Self::ContentType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body => StatusCode::PAYLOAD_TOO_LARGE,
        }
    }

    /// Returns a sentence that says what to do.
    pub(super) fn text(self) -> &'static str {
        match self {
            Self::Host => {
                "the header Host names another server: open the page under the URL that `streamer web` prints"
            }
            Self::Origin => {
                "the header Origin names another site: only the page itself may send this request"
            }
            Self::Site => "the request comes from another site: enter the page's URL in the address bar",
            Self::ContentType => {
                "the body's type is not JSON: send the header `Content-Type: application/json`"
            }
            Self::NotFound => "there is no such file or action: open `/`",
            Self::Method => "the method is not supported: use GET for files and POST for actions",
            Self::Body => "the body has more than 16 KiB, or did not arrive within 10 s: send a shorter one",
        }
    }
}

/// Returns the authority of the page's URL, as browsers write it in `Host` and `Origin`: without the default port.
pub(super) fn authority(address: SocketAddr) -> String {
    match address.port() {
        DEFAULT_PORT => address.ip().to_string(),
        _ => address.to_string(),
    }
}

/// Checks that a request comes from the page at `authority`.
///
/// # Errors
/// The [`Refusal`] to answer with.
pub(super) fn check(request: &Parts, authority: &str) -> Result<(), Refusal> {
    let Parts { method, headers, .. } = request;
    if only(headers, &HOST) != Some(authority) {
        return Err(Refusal::Host);
    }
    if headers.contains_key(ORIGIN) && only(headers, &ORIGIN) != Some(&format!("http://{authority}")) {
        return Err(Refusal::Origin);
    }
    if headers.contains_key(&FETCH_SITE)
        && !matches!(only(headers, &FETCH_SITE), Some("same-origin" | "none"))
    {
        return Err(Refusal::Site);
    }
    match *method {
        Method::GET => Ok(()),
        Method::POST if is_json(headers) => Ok(()),
        Method::POST => Err(Refusal::ContentType),
        _ => Err(Refusal::Method),
    }
}

/// Returns the value of a header that a request has once.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).into_iter();
    values.next().filter(|_| values.next().is_none())?.to_str().ok()
}

fn is_json(headers: &HeaderMap) -> bool {
    let essence = only(headers, &CONTENT_TYPE).and_then(|value| value.split(';').next());
    essence.is_some_and(|essence| essence.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use http::Request;

    use super::*;

    fn checked(method: &str, headers: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut request = Request::builder().method(method).uri("/token");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        check(&request.body(()).unwrap().into_parts().0, "127.0.0.1:8080")
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:8080");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn own_requests_pass() {
        let origin = ("origin", "http://127.0.0.1:8080");
        assert_eq!(checked("GET", &[HOST]), Ok(()));
        assert_eq!(checked("POST", &[HOST, origin, JSON]), Ok(()));
        assert_eq!(checked("POST", &[HOST, ("content-type", "Application/JSON; charset=utf-8")]), Ok(()));
    }

    /// As after DNS rebinding.
    #[test]
    fn foreign_host_is_refused() {
        for host in [
            "evil.example:8080",
            "127.0.0.1",
            "127.0.0.1:8081",
            "localhost:8080",
            "127.0.0.1:8080.evil.example",
        ] {
            assert_eq!(checked("GET", &[("host", host)]), Err(Refusal::Host), "{host}");
        }
        assert_eq!(checked("GET", &[]), Err(Refusal::Host));
        assert_eq!(checked("GET", &[HOST, ("host", "evil.example")]), Err(Refusal::Host));
    }

    #[test]
    fn foreign_origin_is_refused() {
        for origin in ["https://evil.example", "null", "", "https://127.0.0.1:8080", "http://127.0.0.1:9090"]
        {
            for method in ["GET", "POST"] {
                assert_eq!(
                    checked(method, &[HOST, JSON, ("origin", origin)]),
                    Err(Refusal::Origin),
                    "{origin}"
                );
            }
        }
    }

    #[test]
    fn foreign_fetch_site_is_refused() {
        for site in ["cross-site", "same-site", "", "same-origin, none"] {
            for method in ["GET", "POST"] {
                let headers = [HOST, JSON, ("sec-fetch-site", site)];
                assert_eq!(checked(method, &headers), Err(Refusal::Site), "{site}");
            }
        }
        for site in ["same-origin", "none"] {
            assert_eq!(checked("GET", &[HOST, ("sec-fetch-site", site)]), Ok(()), "{site}");
        }
        let twice = [HOST, ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")];
        assert_eq!(checked("GET", &twice), Err(Refusal::Site));
    }

    /// Browsers leave the default port out.
    #[test]
    fn authority_omits_port_80() {
        assert_eq!(authority("127.0.0.1:80".parse().unwrap()), "127.0.0.1");
        assert_eq!(authority("127.0.0.1:8080".parse().unwrap()), "127.0.0.1:8080");
    }

    /// A form of another site can have these types without a preflight.
    #[test]
    fn form_content_types_are_refused() {
        for content_type in
            ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=a", ""]
        {
            let headers = [HOST, ("content-type", content_type)];
            assert_eq!(checked("POST", &headers), Err(Refusal::ContentType), "{content_type}");
        }
        assert_eq!(checked("POST", &[HOST]), Err(Refusal::ContentType));
    }

    /// A preflight of another site is not answered, either.
    #[test]
    fn other_methods_are_refused() {
        for method in ["OPTIONS", "PUT", "DELETE", "HEAD"] {
            assert_eq!(checked(method, &[HOST, JSON]), Err(Refusal::Method), "{method}");
        }
    }
}
