//! The WebSocket subprotocol of clients that pass their token in the handshake's `Sec-WebSocket-Protocol`.

/// The header of a handshake that offers subprotocols, and of its answer that names the accepted one.
pub const HEADER: &str = "Sec-WebSocket-Protocol";

/// The subprotocol that precedes a token: `new WebSocket(url, ["streamer.jwt", token])`. Browsers cannot set any other
/// header, and query strings end up in access logs.
pub const SUBPROTOCOL: &str = "streamer.jwt";

/// Returns the subprotocols that the values of a handshake's [`HEADER`] offer, in order.
pub fn offered<'a>(values: impl Iterator<Item = &'a str>) -> impl Iterator<Item = &'a str> {
    values.flat_map(|value| value.split(',')).map(str::trim)
}

/// Returns the [`HEADER`] of the answer to an accepted handshake with these values: the first offered subprotocol that
/// is [`SUBPROTOCOL`] or one of `others`. A browser fails a connection whose answer names none of the subprotocols that
/// it offered (RFC 6455, section 4.1).
pub fn answer<'a>(values: impl Iterator<Item = &'a str>, others: &[String]) -> Option<&'a str> {
    offered(values).find(|offered| *offered == SUBPROTOCOL || others.iter().any(|other| other == offered))
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
            assert_eq!(answer(lines.iter().copied(), &[]), answered.then_some(SUBPROTOCOL), "{lines:?}");
        }
    }

    #[test]
    fn configured_subprotocols_are_answered_in_client_order() {
        let others = ["mqtt".to_owned(), "graphql-transport-ws".to_owned()];
        for (line, expected) in [
            ("graphql-transport-ws", Some("graphql-transport-ws")),
            ("graphql-ws, graphql-transport-ws, mqtt", Some("graphql-transport-ws")),
            ("streamer.jwt, token, mqtt", Some(SUBPROTOCOL)),
            ("graphql-ws", None),
        ] {
            assert_eq!(answer([line].into_iter(), &others), expected, "{line}");
        }
    }
}
