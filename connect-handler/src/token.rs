//! Finds the token in a `$connect` event.

use aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use http::{HeaderMap, header};
use streamer_connections::subprotocol::{SUBPROTOCOL, offered};

use crate::fault::Fault;

/// Maximum bytes of a token.
const MAX_BYTES: usize = 8 * 1024;

/// A JWT in compact form, not yet verified. It implements neither `Debug` nor `Display`, so that no log contains it.
pub struct Token<'a>(&'a str);

impl<'a> Token<'a> {
    /// Finds the token of an event: in the query parameter `Authorization`, else in the header `Authorization`, both
    /// with or without the prefix `Bearer `, else in `Sec-WebSocket-Protocol: streamer.jwt, <token>`.
    ///
    /// # Errors
    /// [`Fault::Missing`] without a token, or [`Fault::TooLarge`] over 8 KiB.
    pub fn find(event: &'a ApiGatewayWebsocketProxyRequest) -> Result<Self, Fault> {
        let query = event.query_string_parameters.first("Authorization");
        let header = event.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let token = [query, header, in_subprotocols(&event.headers)]
            .into_iter()
            .flatten()
            .map(without_scheme)
            .find(|token| !token.is_empty())
            .ok_or(Fault::Missing)?;
        if token.len() > MAX_BYTES { Err(Fault::TooLarge) } else { Ok(Self(token)) }
    }

    /// Returns the token's text, for the verifier only.
    pub(crate) fn expose(&self) -> &'a str {
        self.0
    }
}

fn in_subprotocols(headers: &HeaderMap) -> Option<&str> {
    offered(headers).skip_while(|protocol| *protocol != SUBPROTOCOL).nth(1)
}

/// Removes the scheme `Bearer`, whose name is case-insensitive (RFC 9110, section 11.1).
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
    fn query_precedes_header_precedes_subprotocol() {
        let query = json!({"Authorization": "q"});
        let headers = json!({"Authorization": "h", "Sec-WebSocket-Protocol": "streamer.jwt, p"});
        assert_eq!(find(query, headers.clone()), Ok("q".into()));
        assert_eq!(find(json!(null), headers), Ok("h".into()));
        assert_eq!(find(json!({}), json!({"Sec-WebSocket-Protocol": "streamer.jwt, p"})), Ok("p".into()));
        assert_eq!(find(json!({}), json!({"Sec-WebSocket-Protocol": "chat,streamer.jwt,p"})), Ok("p".into()));
    }

    #[test]
    fn bearer_prefix_is_optional_and_case_insensitive() {
        for value in ["Bearer t", "bearer  t", "BEARER t", " t "] {
            assert_eq!(find(json!({}), json!({"Authorization": value})), Ok("t".into()), "{value}");
            assert_eq!(find(json!({"Authorization": value}), json!({})), Ok("t".into()), "{value}");
        }
    }

    #[test]
    fn empty_values_are_ignored() {
        assert_eq!(find(json!({"Authorization": ""}), json!({"Authorization": "h"})), Ok("h".into()));
        for headers in
            [json!({}), json!({"Authorization": "Bearer "}), json!({"Sec-WebSocket-Protocol": "p"})]
        {
            assert_eq!(find(json!({}), headers), Err(Fault::Missing));
        }
    }

    #[test]
    fn token_over_8_kib_is_refused() {
        assert!(find(json!({}), json!({"Authorization": "t".repeat(8192)})).is_ok());
        assert_eq!(find(json!({}), json!({"Authorization": "t".repeat(8193)})), Err(Fault::TooLarge));
    }
}
