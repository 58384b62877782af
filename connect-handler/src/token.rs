//! Finds the token in a `$connect` event.

use streamer_connections::subprotocol::{self, SUBPROTOCOL, offered};
use streamer_events::WebSocketEvent;

use crate::fault::Fault;

/// Maximum bytes of a token.
const MAX_BYTES: usize = 8 * 1024;

/// A JWT in compact form, not yet verified. It implements neither `Debug` nor `Display`, so that no log contains it.
pub struct Token<'a>(&'a str);

impl<'a> Token<'a> {
    /// Finds the token of an event: in the query parameter `Authorization`, else in the header `Authorization`, both
    /// with or without the prefix `Bearer `, else in `Sec-WebSocket-Protocol: streamer.jwt, <token>`. A value
    /// without the three parts of a JWT, such as a script's `undefined`, does not hide a later one that has.
    ///
    /// # Errors
    /// [`Fault::Missing`] without a token, or [`Fault::TooLarge`] over 8 KiB.
    pub fn find(event: &'a WebSocketEvent) -> Result<Self, Fault> {
        let candidates = || {
            let values = event.query("Authorization").chain(event.header("Authorization"));
            let values = values.chain(in_subprotocols(event)).map(without_scheme);
            values.filter(|token| !token.is_empty())
        };
        let token = candidates().find(|token| is_jwt(token)).or_else(|| candidates().next());
        let token = token.ok_or(Fault::Missing)?;
        if token.len() > MAX_BYTES { Err(Fault::TooLarge) } else { Ok(Self(token)) }
    }

    /// Returns the token's text, for the verifier only.
    pub(crate) fn expose(&self) -> &'a str {
        self.0
    }
}

fn in_subprotocols(event: &WebSocketEvent) -> Option<&str> {
    offered(event.header(subprotocol::HEADER)).skip_while(|protocol| *protocol != SUBPROTOCOL).nth(1)
}

/// Returns whether a text has the three parts of a JWT (RFC 7515, section 3.1). The signature may be empty.
fn is_jwt(text: &str) -> bool {
    let mut parts = text.split('.');
    let mut is_filled = || parts.next().is_some_and(|part| !part.is_empty());
    is_filled() && is_filled() && parts.next().is_some() && parts.next().is_none()
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

    fn event(query: Value, headers: Value) -> WebSocketEvent {
        let event = json!({"queryStringParameters": query, "headers": headers});
        serde_json::from_str(&event.to_string()).unwrap()
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

    /// A script that has no token yet writes `undefined` or `null`, and a proxy may have added `Basic`.
    #[test]
    fn value_without_three_parts_hides_nothing() {
        for useless in
            ["undefined", "null", "Bearer undefined", "Basic YW5uYTpwdw==", "[object Object]", "a.b", "."]
        {
            let headers = json!({"Authorization": "Bearer h.e.a"});
            assert_eq!(find(json!({"Authorization": useless}), headers), Ok("h.e.a".into()), "{useless}");
            let headers = json!({"Authorization": useless, "Sec-WebSocket-Protocol": "streamer.jwt, p.r.o"});
            assert_eq!(find(json!({}), headers), Ok("p.r.o".into()), "{useless}");
        }
        assert_eq!(find(json!({"Authorization": "undefined"}), json!({})), Ok("undefined".into()));
        let unsigned = json!({"Authorization": "a.b."});
        assert_eq!(find(unsigned, json!({"Authorization": "h.e.a"})), Ok("a.b.".into()));
    }

    #[test]
    fn token_over_8_kib_is_refused() {
        assert!(find(json!({}), json!({"Authorization": "t".repeat(8192)})).is_ok());
        assert_eq!(find(json!({}), json!({"Authorization": "t".repeat(8193)})), Err(Fault::TooLarge));
    }
}
