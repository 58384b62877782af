//! Finds the headers of frames in a stream of bytes (RFC 6455, section 5.2).

/// Bytes of the longest header: two, a length of 64 bits and a masking key.
const LONGEST_HEADER: usize = 14;

/// Opcode of every frame of a message after its first.
pub(crate) const CONTINUATION: u8 = 0x0;
/// Opcode of a binary message's first frame.
pub(crate) const BINARY: u8 = 0x2;
/// Opcode of a close frame.
pub(crate) const CLOSE: u8 = 0x8;

/// Opcode of a text message's first frame.
#[cfg(test)]
pub(crate) const TEXT: u8 = 0x1;
/// Opcode of a ping.
#[cfg(test)]
pub(crate) const PING: u8 = 0x9;

/// The fields of a header that limits depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    /// The opcode, 0 to 15.
    pub(crate) opcode: u8,
    /// Bytes of the payload. Its highest bit may be set, which RFC 6455 forbids.
    pub(crate) length: u64,
}

impl Header {
    /// Returns whether the frame is a control frame: a close, a ping, a pong or one that is not defined.
    pub(crate) fn is_control(self) -> bool {
        self.opcode >= CLOSE
    }
}

/// The piece of a frame that [`Position::read`] read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// A part of a header whose end has not arrived.
    Unfinished,
    /// The end of a header, and before it the whole or the rest of it.
    Header(Header),
    /// Bytes of a payload.
    Payload,
}

/// A position in a stream of frames. It remembers at most one unfinished header and no payload.
#[derive(Debug, Clone, Default)]
pub(crate) struct Position {
    header: [u8; LONGEST_HEADER],
    /// Bytes of the header that have been read.
    header_bytes: usize,
    /// Bytes of the payload that have not been read.
    payload_left: u64,
}

impl Position {
    /// Reads bytes up to the end of a header, of a payload or of `bytes`, whichever comes first. Returns their number.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> (usize, Piece) {
        if self.payload_left > 0 {
            let read = usize::try_from(self.payload_left).unwrap_or(usize::MAX).min(bytes.len());
            self.payload_left -= read as u64;
            return (read, Piece::Payload);
        }
        for (index, byte) in bytes.iter().enumerate() {
            self.header[self.header_bytes] = *byte;
            self.header_bytes += 1;
            if self.header_bytes == self.header_length() {
                let header = Header { opcode: self.header[0] & 0xf, length: self.payload_length() };
                (self.header_bytes, self.payload_left) = (0, header.length);
                return (index + 1, Piece::Header(header));
            }
        }
        (bytes.len(), Piece::Unfinished)
    }

    /// Returns the number of bytes that the frame in progress certainly still has: 0 between two frames.
    pub(crate) fn frame_left(&self) -> u64 {
        match self.header_bytes {
            0 => self.payload_left,
            read => (self.header_length() - read) as u64,
        }
    }

    /// Returns the header's length as far as the bytes that have been read determine it.
    fn header_length(&self) -> usize {
        let second = if self.header_bytes < 2 { 0 } else { self.header[1] };
        let length = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masking_key = if second & 0x80 == 0 { 0 } else { 4 };
        2 + length + masking_key
    }

    fn payload_length(&self) -> u64 {
        let [_, second, extended @ ..] = &self.header;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| (number << 8) | u64::from(*byte));
        match second & 0x7f {
            126 => number(&extended[..2]),
            127 => number(&extended[..8]),
            length => length.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads headers from `bytes`, which come in pieces of `piece` bytes.
    fn headers(position: &mut Position, bytes: &[u8], piece: usize) -> Vec<Header> {
        let mut headers = Vec::new();
        for mut piece in bytes.chunks(piece) {
            while !piece.is_empty() {
                let (read, found) = position.read(piece);
                if let Piece::Header(header) = found {
                    headers.push(header);
                }
                piece = &piece[read..];
            }
        }
        headers
    }

    #[test]
    fn lengths_and_masks_in_any_pieces() {
        let frames: [(&[u8], u8, u64); 7] = [
            (&[0x81, 0x00], 1, 0),
            (&[0x81, 0x7d], 1, 125),
            (&[0x02, 0x80, 1, 2, 3, 4], 2, 0),
            (&[0x81, 0xfe, 0x01, 0x00, 1, 2, 3, 4], 1, 256),
            (&[0x80, 0x7e, 0xff, 0xff], 0, 65_535),
            (&[0x89, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 9, 9, 9, 9], 9, 65_537),
            // A length may be longer than necessary.
            (&[0x8a, 0x7f, 0, 0, 0, 0, 0, 0, 0, 3], 10, 3),
        ];
        let mut bytes = Vec::new();
        for (header, _, length) in &frames {
            bytes.extend_from_slice(header);
            bytes.resize(bytes.len() + usize::try_from(*length).unwrap(), 0xff);
        }
        let expected = frames.map(|(_, opcode, length)| Header { opcode, length });
        for piece in [1, 2, 3, 7, 1000, bytes.len()] {
            let mut position = Position::default();
            assert_eq!(headers(&mut position, &bytes, piece), expected, "{piece}");
            assert_eq!(position.frame_left(), 0);
        }
    }

    #[test]
    fn longest_length_is_read() {
        let mut position = Position::default();
        let bytes = [0x81, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        let header = Header { opcode: 1, length: u64::MAX };
        assert_eq!(position.read(&bytes), (10, Piece::Header(header)));
        assert_eq!(position.read(&[0; 5]), (5, Piece::Payload));
        assert_eq!(position.frame_left(), u64::MAX - 5);
    }

    /// Reading `frame_left` bytes at a time ends between two frames and never after the next one has begun.
    #[test]
    fn frame_left_leads_to_its_end() {
        let bytes = [&[0x81, 0xfe, 0x01, 0x00, 1, 2, 3, 4][..], &[0; 256], &[0x89, 0x00]].concat();
        let (mut position, mut at, mut asked) = (Position::default(), 1, Vec::new());
        position.read(&bytes[..1]);
        while position.frame_left() > 0 {
            asked.push(position.frame_left());
            let end = at + usize::try_from(position.frame_left()).unwrap();
            while at < end {
                at += position.read(&bytes[at..end]).0;
            }
        }
        assert_eq!((at, asked), (bytes.len() - 2, vec![1, 6, 256]));
        // The first byte of the next header is followed by no masking key and no length yet.
        position.read(&bytes[at..=at]);
        assert_eq!(position.frame_left(), 1);
    }
}
