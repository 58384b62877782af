//! The checks in the order in which they run.

/// The name of each check, and the observation on a deployment that works. `docs/reference/cli.md` has the same table.
pub const CHECKS: [(&str, &str); 32] = [
    ("endpoint.address", "the host in the worker's WEBSOCKET_ENDPOINT resolves and accepts connections"),
    ("endpoint.alpn", "TLS with HTTP/2 or HTTP/1.1"),
    ("connect.token", "$connect accepts a valid token"),
    ("connect.row", "a consistent read finds the row, with the token's user and tenant"),
    ("connect.index_by_user", "the index by_user shows the row of a new connection"),
    ("connect.index_by_tenant", "the index by_tenant shows the row of a new connection"),
    ("connect.endpoint", "the row has the management endpoint of the worker, or an alias of it"),
    ("connect.no_token", "a client without a token is refused"),
    ("connect.damaged_token", "a client with a damaged token is refused"),
    ("endpoint.post", "a signed post gets 200; for a connection that does not exist, 410 or 400"),
    ("endpoint.framing", "the end of an answer is known: content-length, chunked or no body"),
    ("endpoint.keep_alive", "a connection takes more than one post"),
    ("endpoint.http2", "an endpoint that speaks HTTP/2 answers posts over it"),
    ("delivery.first", "a message through the outbound queue reaches the client"),
    ("delivery.queue", "all of 50 messages arrive"),
    ("delivery.parts", "time by part: SendMessage, queue and worker, post"),
    ("delivery.user", "a message for the user reaches the client"),
    ("delivery.tenant", "a message for the tenant reaches the client"),
    ("post.31_kib", "the payload arrives whole, and the connection stays open"),
    ("post.33_kib", "the payload arrives whole, and the connection stays open"),
    ("post.128_kib", "the payload arrives whole, and the connection stays open"),
    ("post.over_128_kib", "a payload of 128 KiB and one byte is refused with 413"),
    ("post.malformed_id", "a post to a malformed connection id gets 400 (BadRequestException)"),
    ("mailbox.sync", "a client that sends streamer.sync gets a page"),
    ("mailbox.kept", "a message that was kept while the client was away is on its next page"),
    ("mailbox.ack", "a client's acknowledgment becomes a receipt"),
    ("connect.disconnect", "$disconnect removes the row of a closed connection"),
    ("post.gone", "a post to a closed connection gets 410 (GoneException)"),
    ("permissions.dead_letter", "a message that cannot be delivered becomes a dead letter with its reason"),
    ("permissions.receipt", "a message whose producer asks for a receipt gets one"),
    ("permissions.gone_row", "the worker removes the row of a connection that API Gateway does not know"),
    ("cleanup.complete", "no row, message, receipt or kept message of the checks is left"),
];

/// Returns the observation on a deployment that works for a check.
pub(super) fn expected(name: &str) -> &'static str {
    CHECKS.iter().find(|(known, _)| *known == name).map_or("", |(_, expected)| expected)
}
