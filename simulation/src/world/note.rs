//! Payloads of simulated messages, which say what they are and when they were sent.

use bytes::Bytes;

/// Bytes of a payload, as in the benches.
const BYTES: usize = 300;

/// The kind of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A message to one connection.
    Single,
    /// An update of a progress stream.
    Update,
    /// A message to all connections of a tenant.
    Broadcast,
    /// A message to a user that is kept.
    Kept,
}

/// The content of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// The kind of its message.
    pub kind: Kind,
    /// When the message was sent, in milliseconds.
    pub at: u64,
    /// The number of the message among those of its kind.
    pub number: u64,
}

impl Note {
    /// Writes the payload.
    #[must_use]
    pub fn write(self) -> String {
        let kind = match self.kind {
            Kind::Single => 's',
            Kind::Update => 'u',
            Kind::Broadcast => 'b',
            Kind::Kept => 'k',
        };
        let text = format!("{kind} {} {} ", self.at, self.number);
        format!("\"{text:.<width$}\"", width = BYTES - 2)
    }

    /// Reads a payload, or the frame of a kept one. `None` for another one.
    #[must_use]
    pub fn read(posted: &Bytes) -> Option<Self> {
        let text = std::str::from_utf8(posted).ok()?;
        let payload = if text.starts_with('{') { text.split_once(r#""payload":"#)?.1 } else { text };
        let text = payload.strip_prefix('"')?;
        let mut words = text.split(' ');
        let kind = match words.next()? {
            "s" => Kind::Single,
            "u" => Kind::Update,
            "b" => Kind::Broadcast,
            "k" => Kind::Kept,
            _ => return None,
        };
        Some(Self { kind, at: words.next()?.parse().ok()?, number: words.next()?.parse().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_round_trips() {
        for kind in [Kind::Single, Kind::Update, Kind::Broadcast, Kind::Kept] {
            let note = Note { kind, at: 1234, number: 56 };
            let text = note.write();
            assert_eq!((text.len(), Note::read(&text.clone().into())), (BYTES, Some(note)));
            let frame = format!(r#"{{"type":"streamer.message","seq":1,"payload":{text}}}"#);
            assert_eq!(Note::read(&frame.into()), Some(note));
        }
        assert_eq!(Note::read(&Bytes::from_static(b"1")), None);
    }
}
