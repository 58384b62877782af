//! The WebSocket subprotocol of clients that pass their token in the handshake's `Sec-WebSocket-Protocol`.

use http::{HeaderMap, HeaderValue, header::SEC_WEBSOCKET_PROTOCOL};

/// The subprotocol that precedes a token: `new WebSocket(url, ["streamer.jwt", token])`. Browsers cannot set any other
/// header, and query strings end up in access logs.
pub const SUBPROTOCOL: &str = "streamer.jwt";

/// Returns the subprotocols that a handshake offers, in order.
pub fn offered(handshake: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = handshake.get_all(SEC_WEBSOCKET_PROTOCOL).into_iter();
    values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim)
}

/// Returns the `Sec-WebSocket-Protocol` of the answer to an accepted handshake: [`SUBPROTOCOL`] if it is offered. A
/// browser fails a connection whose answer names none of the subprotocols that it offered (RFC 6455, section 4.1).
#[must_use]
pub fn answer(handshake: &HeaderMap) -> Option<HeaderValue> {
    let is_offered = offered(handshake).any(|subprotocol| subprotocol == SUBPROTOCOL);
    is_offered.then(|| HeaderValue::from_static(SUBPROTOCOL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_only_the_known_subprotocol() {
        for (lines, answered) in [
            (vec![], false),
            (vec!["chat"], false),
            (vec!["streamer.jwt.v2, token"], false),
            (vec!["STREAMER.JWT, token"], false),
            (vec!["streamer.jwt, token"], true),
            (vec!["chat,streamer.jwt,token"], true),
            (vec!["chat", "streamer.jwt, token"], true),
        ] {
            let mut handshake = HeaderMap::new();
            for line in &lines {
                handshake.append(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(line));
            }
            assert_eq!(
                answer(&handshake),
                answered.then(|| HeaderValue::from_static(SUBPROTOCOL)),
                "{lines:?}"
            );
        }
    }
}
