//! The size of payloads that are posted.

use streamer_environment::{Environment, Faulty, Variable};
use streamer_message::limits::{KEPT_PAYLOAD_BYTES, PAYLOAD_BYTES};

/// The variable with the maximum number of bytes of a posted payload.
pub const MAX_PAYLOAD_BYTES: Variable = Variable {
    name: "MAX_PAYLOAD_BYTES",
    expected: "the maximum size of a payload that is posted, in whole bytes from 8192 to 131072; 131072 by default",
    example: "32768",
};

/// Minimum of [`MAX_PAYLOAD_BYTES`]: a page of kept messages needs some space.
const MIN_BYTES: usize = 8 * 1024;

/// Bytes that a kept payload's frame may have besides the payload: its id and its position.
const KEPT_FRAME_BYTES: usize = PAYLOAD_BYTES - KEPT_PAYLOAD_BYTES;

/// Maximum size of a payload that is posted.
///
/// API Gateway's limit of 128 KiB is the default. Its documentation also limits WebSocket frames to 32 KiB, and does not
/// say whether it splits a posted payload into several. Where it does not, a lower limit keeps larger payloads from
/// closing the connection of their client.
///
/// Source: "WebSocket message payload size" and "WebSocket frame size" in
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PayloadLimit(usize);

impl Default for PayloadLimit {
    fn default() -> Self {
        Self(PAYLOAD_BYTES)
    }
}

impl PayloadLimit {
    /// Reads [`MAX_PAYLOAD_BYTES`].
    ///
    /// # Errors
    /// [`Faulty`] if the value is malformed or out of range.
    pub fn read(environment: &mut Environment) -> Result<Self, Faulty> {
        let parse = |text: &str| {
            let bytes = text.parse().ok().filter(|bytes| (MIN_BYTES..=PAYLOAD_BYTES).contains(bytes));
            bytes.map(Self)
        };
        environment.or(&MAX_PAYLOAD_BYTES, parse, Self::default)
    }

    /// Returns the maximum number of bytes of a posted payload.
    #[must_use]
    pub fn bytes(self) -> usize {
        self.0
    }

    /// Returns the maximum number of bytes of a payload that is kept, which clients receive in a frame with its
    /// position.
    #[must_use]
    pub fn kept_bytes(self) -> usize {
        self.0 - KEPT_FRAME_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: &str) -> Option<usize> {
        let mut environment = Environment::of([("MAX_PAYLOAD_BYTES", value)]);
        PayloadLimit::read(&mut environment).ok().map(PayloadLimit::bytes)
    }

    #[test]
    fn limit_is_at_most_api_gateways() {
        assert_eq!([read(""), read("32768"), read("131072")], [Some(131_072), Some(32_768), Some(131_072)]);
        assert_eq!([read("8192"), read("8191"), read("131073"), read("32k")], [Some(8192), None, None, None]);
    }

    #[test]
    fn kept_payloads_leave_room_for_the_position() {
        assert_eq!(PayloadLimit::default().kept_bytes(), KEPT_PAYLOAD_BYTES);
        assert_eq!(PayloadLimit(32 * 1024).kept_bytes(), 31 * 1024);
    }
}
