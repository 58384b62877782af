//! Passes on what client and emulator send after the handshake.

use std::io;

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;

/// Passes on bytes in both directions until both sides have closed, or either has reset its connection. A side that
/// does not read holds the other one back: at most 8 KiB wait here for each direction.
///
/// Bytes pass, not messages: a WebSocket library would answer pings itself, join fragments and refuse close codes.
/// No extension is negotiated, so the bytes are plain frames in both directions.
pub(super) async fn bridge(client: Upgraded, emulator: Upgraded) -> io::Result<()> {
    copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(emulator)).await.map(drop)
}
