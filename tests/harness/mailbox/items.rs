//! Items of the table, their keys and their sizes.

use std::time::{Duration, SystemTime};

use streamer_mailbox::{Device, Head, StoredMessage, Stream};
use streamer_message::Epoch;

/// The range key of a head.
pub(super) const HEAD: &str = "h";

/// An item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    Head(Head),
    Message { message: StoredMessage, expires_at: SystemTime },
    Device(Device),
}

impl Item {
    /// Returns a message's item. The table has milliseconds.
    pub(super) fn message(message: &StoredMessage) -> Self {
        let (stored_at, until) = (millis(message.stored_at), millis(message.until));
        let message = StoredMessage { stored_at, until, ..message.clone() };
        let expires_at = seconds(message.expires_at());
        Self::Message { message, expires_at }
    }

    /// Returns a device's item.
    pub(super) fn device(device: &Device) -> Self {
        Self::Device(Device { expires_at: seconds(device.expires_at), ..device.clone() })
    }

    /// Returns when DynamoDB may remove the item.
    pub(super) fn expires_at(&self) -> SystemTime {
        match self {
            Self::Head(head) => head.expires_at,
            Self::Message { expires_at, .. } => *expires_at,
            Self::Device(device) => device.expires_at,
        }
    }

    /// Returns the item's size in bytes, as DynamoDB counts it: the names and the values.
    ///
    /// Source: <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html>.
    pub(super) fn bytes(&self, stream: &Stream, key: &str) -> usize {
        let keys = "stream".len() + stream.key().len() + "item".len() + key.len();
        let expiry = "expires_at".len() + number(unix(self.expires_at()).as_secs());
        let rest = match self {
            Self::Head(head) => {
                "epochtopfloor".len() + head.epoch.as_str().len() + number(head.top) + number(head.floor)
            }
            Self::Message { message, .. } => {
                let time = |time| number(unix(time).as_millis() as u64);
                let names = "idbodystored_atuntil".len();
                let ack = if message.ack { "ack".len() + 1 } else { 0 };
                names
                    + ack
                    + message.id.as_str().len()
                    + message.body.len()
                    + time(message.stored_at)
                    + time(message.until)
            }
            Self::Device(device) => "endpoint".len() + device.endpoint.len(),
        };
        keys + expiry + rest
    }
}

/// Returns the size of a number: a byte for two digits, and one more.
fn number(number: u64) -> usize {
    number.to_string().len().div_ceil(2) + 1
}

fn unix(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn millis(time: SystemTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(unix(time).as_millis() as u64)
}

/// Returns a time in whole seconds, rounded up.
pub(super) fn seconds(time: SystemTime) -> SystemTime {
    let since = unix(time);
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs() + u64::from(since.subsec_nanos() > 0))
}

/// Returns the range key of a message.
pub(super) fn message_key(epoch: &Epoch, seq: u64) -> String {
    format!("m#{epoch}#{seq:020}")
}

/// Returns the number in a message's range key.
pub(super) fn seq_of(key: &str) -> u64 {
    key.rsplit_once('#').and_then(|(_, seq)| seq.parse().ok()).unwrap_or_default()
}
