//! Where a client puts its token.

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use http::{HeaderMap, header};

use crate::verify::Fault;

/// The subprotocol that carries a token: a browser's `new WebSocket(url, ["streamer.jwt", token])` can set no
/// other header, and a query string ends up in access logs.
pub const SUBPROTOCOL: &str = "streamer.jwt";

/// Bytes of a token, at most.
const MAXIMUM_BYTES: usize = 8 * 1024;

/// A JWT in compact form, not yet verified. It cannot be printed.
pub struct Token<'a>(&'a str);

impl<'a> Token<'a> {
    /// The token of an event, from the query's `Authorization`, else from the header `Authorization`
    /// (`Bearer ` before it or not), else from `Sec-WebSocket-Protocol: streamer.jwt, <token>`.
    ///
    /// # Errors
    /// [`Fault::Missing`], or [`Fault::TooLarge`] over 8 KiB.
    pub fn find(event: &'a ApiGatewayWebsocketProxyRequest) -> Result<Self, Fault> {
        let query = event.query_string_parameters.first("Authorization");
        let header = event.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = [query, header, in_subprotocols(&event.headers)]
            .into_iter()
            .flatten()
            .map(without_scheme)
            .find(|token| !token.is_empty())
            .ok_or(Fault::Missing)?;
        if token.len() > MAXIMUM_BYTES { Err(Fault::TooLarge) } else { Ok(Self(token)) }
    }

    /// The token's text: for the verifier, and for nobody else.
    pub(crate) fn expose(&self) -> &'a str {
        self.0
    }
}

/// Whether the client offers the subprotocol, and so waits for it in the answer (RFC 6455, section 4.1).
#[must_use]
pub fn offers_subprotocol(headers: &HeaderMap) -> bool {
    subprotocols(headers).any(|protocol| protocol == SUBPROTOCOL)
}

fn subprotocols(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(header::SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

fn in_subprotocols(headers: &HeaderMap) -> Option<&str> {
    subprotocols(headers).skip_while(|protocol| *protocol != SUBPROTOCOL).nth(1)
}

/// The scheme's name is case-insensitive (RFC 9110, section 11.1).
fn without_scheme(value: &str) -> &str {
    let value = value.trim();
    let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
    if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { value }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn event(query: Value, headers: Value) -> ApiGatewayWebsocketProxyRequest {
        let context = json!({"connectedAt": 0, "requestTimeEpoch": 0});
        serde_json::from_value(
            json!({"requestContext": context, "queryStringParameters": query, "headers": headers}),
        )
        .unwrap()
    }

    fn find(query: Value, headers: Value) -> Result<String, Fault> {
        Token::find(&event(query, headers)).map(|token| token.expose().to_owned())
    }

    #[test]
    fn the_query_comes_before_the_header_and_the_header_before_the_subprotocol() {
        let query = json!({"Authorization": "q"});
        let headers = json!({"Authorization": "h", "Sec-WebSocket-Protocol": "streamer.jwt, p"});
        assert_eq!(find(query, headers.clone()), Ok("q".into()));
        assert_eq!(find(json!(null), headers), Ok("h".into()));
        assert_eq!(find(json!({}), json!({"Sec-WebSocket-Protocol": "streamer.jwt, p"})), Ok("p".into()));
        assert_eq!(find(json!({}), json!({"Sec-WebSocket-Protocol": "chat,streamer.jwt,p"})), Ok("p".into()));
    }

    #[test]
    fn bearer_may_stand_before_it_in_any_case() {
        for value in ["Bearer t", "bearer  t", "BEARER t", " t "] {
            assert_eq!(find(json!({}), json!({"Authorization": value})), Ok("t".into()), "{value}");
            assert_eq!(find(json!({"Authorization": value}), json!({})), Ok("t".into()), "{value}");
        }
    }

    #[test]
    fn an_empty_place_is_no_place() {
        assert_eq!(find(json!({"Authorization": ""}), json!({"Authorization": "h"})), Ok("h".into()));
        for headers in
            [json!({}), json!({"Authorization": "Bearer "}), json!({"Sec-WebSocket-Protocol": "p"})]
        {
            assert_eq!(find(json!({}), headers), Err(Fault::Missing));
        }
    }

    #[test]
    fn a_token_over_8_kib_is_refused_unread() {
        assert!(find(json!({}), json!({"Authorization": "t".repeat(8192)})).is_ok());
        assert_eq!(find(json!({}), json!({"Authorization": "t".repeat(8193)})), Err(Fault::TooLarge));
    }
}
