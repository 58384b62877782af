//! The limits that API Gateway sets for a connection.
//!
//! AWS documents the sizes, the times and the codes 1009 and 1003. The rest is an assumption: that a connection which
//! was idle or has lived for too long is closed with 1001; that a size is that of the payload; that a binary frame is
//! refused as such, whatever its size; and that a frame is refused at its header, before its payload has arrived.

use std::time::Duration;

use super::frames::{BINARY, CONTINUATION, Header};

/// Largest payload of a client's frame in bytes.
pub const FRAME_BYTES: u64 = 32 * 1024;

/// Largest payload of a client's message in bytes, all its frames together.
pub const MESSAGE_BYTES: u64 = 128 * 1024;

/// The times after which the front door closes a connection. The default is API Gateway's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Time without a message in either direction: 10 min. AWS does not say whether pings and pongs count. Here they
    /// do not, so that a client which depends on them fails on this machine first.
    pub idle: Duration,
    /// Time from the handshake on: 2 h.
    pub lifetime: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { idle: Duration::from_secs(10 * 60), lifetime: Duration::from_secs(2 * 60 * 60) }
    }
}

/// A reason for which the front door closes a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Close {
    /// The connection was idle or has lived for too long.
    GoingAway,
    /// A client's frame is binary.
    Binary,
    /// A client's frame or message is too large.
    TooBig,
}

impl Close {
    /// Returns the code (RFC 6455, section 7.4.1) and the reason.
    pub(super) fn status(self) -> (u16, &'static str) {
        match self {
            Self::GoingAway => (1001, "Going away"),
            Self::Binary => (1003, ""),
            Self::TooBig => (1009, ""),
        }
    }
}

/// Checks the frames of a client.
#[derive(Debug, Default)]
pub(super) struct ClientFrames {
    /// Bytes of the message in progress.
    message: u64,
}

impl ClientFrames {
    /// Checks the next frame. Frames that RFC 6455 forbids are the emulator's to refuse.
    ///
    /// # Errors
    /// When API Gateway closes the connection for it.
    pub(super) fn check(&mut self, header: Header) -> Result<(), Close> {
        if header.opcode == BINARY {
            return Err(Close::Binary);
        }
        if header.length > FRAME_BYTES {
            return Err(Close::TooBig);
        }
        if header.is_control() {
            return Ok(());
        }
        if header.opcode != CONTINUATION {
            self.message = 0;
        }
        self.message += header.length;
        if self.message > MESSAGE_BYTES { Err(Close::TooBig) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::frames::{CLOSE, PING, TEXT},
        *,
    };

    /// Returns the result of the last of these frames, opcode and length each. The others are within the limits.
    fn last<const N: usize>(frames: [(u8, u64); N]) -> Result<(), Close> {
        let (mut client, mut results) = (ClientFrames::default(), Vec::new());
        for (opcode, length) in frames {
            results.push(client.check(Header { opcode, length }));
        }
        let last = results.pop().unwrap_or(Ok(()));
        assert!(results.iter().all(Result::is_ok), "{results:?}");
        last
    }

    #[test]
    fn frame_of_32_kib_passes() {
        for opcode in [TEXT, CONTINUATION, CLOSE, PING, 3, 15] {
            assert_eq!(last([(opcode, FRAME_BYTES)]), Ok(()));
            for length in [FRAME_BYTES + 1, 1 << 31, 1 << 32, 1 << 63, u64::MAX] {
                assert_eq!(last([(opcode, length)]), Err(Close::TooBig), "{opcode} {length}");
            }
        }
    }

    #[test]
    fn message_of_128_kib_passes() {
        let part = (CONTINUATION, FRAME_BYTES);
        assert_eq!(last([(TEXT, FRAME_BYTES), part, part, part, (CONTINUATION, 0)]), Ok(()));
        assert_eq!(last([(TEXT, FRAME_BYTES), part, part, part, (CONTINUATION, 1)]), Err(Close::TooBig));
        assert_eq!(last([(TEXT, 1), part, part, part, part]), Err(Close::TooBig));
    }

    #[test]
    fn each_message_has_its_own_size() {
        let part = (CONTINUATION, FRAME_BYTES);
        let full = [(TEXT, FRAME_BYTES), part, part, part];
        let [a, b, c, d] = full;
        assert_eq!(last([a, b, c, d, a, b, c, d]), Ok(()));
    }

    #[test]
    fn control_frames_belong_to_no_message() {
        let (part, ping) = ((CONTINUATION, FRAME_BYTES), (PING, 125));
        assert_eq!(
            last([(TEXT, FRAME_BYTES), ping, part, part, ping, part, ping, (CONTINUATION, 0)]),
            Ok(())
        );
        let too_big = [(TEXT, FRAME_BYTES), ping, part, part, part, ping, (CONTINUATION, 1)];
        assert_eq!(last(too_big), Err(Close::TooBig));
    }

    #[test]
    fn binary_frame_is_refused_at_any_size() {
        for length in [0, 1, FRAME_BYTES + 1, u64::MAX] {
            assert_eq!(last([(BINARY, length)]), Err(Close::Binary));
        }
    }
}
