//! Chunked bodies (RFC 9112, section 7.1).

use std::io;

use crate::{http1::MAX_HEADERS, post::MAX_BODY_BYTES};

/// Maximum number of encoded bytes: the body with the sizes, extensions and trailers around its chunks.
const MAX_ENCODED_BYTES: usize = 2 * MAX_BODY_BYTES;

/// A chunked body, decoded as its bytes arrive.
#[derive(Debug, Default)]
pub(crate) struct ChunkedBody {
    /// The data of the chunks so far.
    pub(crate) data: Vec<u8>,
    /// The number of encoded bytes that were decoded.
    decoded: usize,
    /// Whether the last chunk was decoded. Only the trailers follow.
    is_last: bool,
}

impl ChunkedBody {
    /// Decodes whole chunks from the start of the body, which is all in `encoded`, and goes on where the last call
    /// stopped. Returns the number of encoded bytes once the body has ended.
    ///
    /// # Errors
    /// If the bytes are no chunked body, or too many.
    pub(crate) fn decode(&mut self, encoded: &[u8]) -> io::Result<Option<usize>> {
        while !self.is_last {
            let rest = &encoded[self.decoded..];
            let Ok(parsed) = httparse::parse_chunk_size(rest) else { return Err(invalid("a chunk's size")) };
            let httparse::Status::Complete((start, size)) = parsed else { return check_size(encoded) };
            self.is_last = size == 0;
            if self.is_last {
                self.decoded += start;
                break;
            }
            let end = usize::try_from(size).ok().and_then(|size| start.checked_add(size));
            let end = end.filter(|end| *end <= MAX_ENCODED_BYTES).ok_or_else(|| invalid("a chunk's size"))?;
            match rest.get(end..end + 2) {
                Some(b"\r\n") => self.data.extend_from_slice(&rest[start..end]),
                Some(_) => return Err(invalid("the end of a chunk")),
                None => return check_size(encoded),
            }
            self.decoded += end + 2;
        }
        let mut trailers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        match httparse::parse_headers(&encoded[self.decoded..], &mut trailers) {
            Ok(httparse::Status::Complete((length, _))) => Ok(Some(self.decoded + length)),
            Ok(httparse::Status::Partial) => check_size(encoded),
            Err(_) => Err(invalid("a trailer")),
        }
    }
}

/// Returns that the body has not ended, unless it has too many bytes.
fn check_size(encoded: &[u8]) -> io::Result<Option<usize>> {
    match encoded.len() {
        0..=MAX_ENCODED_BYTES => Ok(None),
        _ => Err(io::Error::other("the chunked body is too long")),
    }
}

fn invalid(part: &str) -> io::Error {
    io::Error::other(format!("the chunked body is not valid: {part}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Decodes a body that arrives whole.
    fn decode(encoded: &[u8]) -> io::Result<Option<(Vec<u8>, usize)>> {
        let mut body = ChunkedBody::default();
        Ok(body.decode(encoded)?.map(|length| (body.data, length)))
    }

    #[test]
    fn extensions_and_trailers_are_skipped() {
        let encoded = b"1b;x=y\r\n{\"message\":\"GoneException\"}\r\n0;z\r\nTrailer: t\r\n\r\nrest";
        let (data, length) = decode(encoded).unwrap().unwrap();
        assert_eq!((data.as_slice(), length), (&b"{\"message\":\"GoneException\"}"[..], encoded.len() - 4));
        assert_eq!(decode(b"0\r\n\r\n").unwrap(), Some((Vec::new(), 5)));
    }

    #[test]
    fn other_bytes_are_refused() {
        for encoded in
            [&b"{}"[..], b"x\r\n", b"2\r\n{}0\r\n\r\n", b"-1\r\n", b"ffffffffffffffff1\r\n", b"ffffffff\r\n"]
        {
            assert!(decode(encoded).is_err(), "{:?}", String::from_utf8_lossy(encoded));
        }
        assert!(decode(b"0\r\n\x01\r\n\r\n").is_err());
    }

    #[test]
    fn size_is_bounded() {
        let chunk = format!("{:x}\r\n{}\r\n", 1000, "x".repeat(1000));
        assert!(matches!(decode(chunk.repeat(8).as_bytes()), Ok(None)));
        assert!(decode(chunk.repeat(9).as_bytes()).is_err());
        let extension = format!("1;{}", "x".repeat(MAX_ENCODED_BYTES));
        assert!(decode(extension.as_bytes()).is_err());
        let trailer = format!("0\r\nT: {}", "x".repeat(MAX_ENCODED_BYTES));
        assert!(decode(trailer.as_bytes()).is_err());
    }

    proptest! {
        /// A body that arrives in any pieces, down to single bytes, is the same body.
        #[test]
        fn pieces_make_no_difference(
            chunks in prop::collection::vec("[ -~]{1,40}", 0..6),
            extension in "(;[a-z]{1,5}(=[a-z]{1,5})?)?",
            trailer in "(X-[A-Z]{1,5}: [a-z]{0,9}\r\n)?",
            cuts in prop::collection::vec(1..40_usize, 0..400),
        ) {
            let mut encoded = String::new();
            for chunk in &chunks {
                encoded.push_str(&format!("{:X}{extension}\r\n{chunk}\r\n", chunk.len()));
            }
            encoded.push_str(&format!("0{extension}\r\n{trailer}\r\n"));
            let (mut body, mut arrived) = (ChunkedBody::default(), 0);
            for cut in cuts.into_iter().chain(std::iter::repeat(1)) {
                let ended = body.decode(&encoded.as_bytes()[..arrived]).unwrap();
                if arrived == encoded.len() {
                    prop_assert_eq!(ended, Some(arrived));
                    break;
                }
                prop_assert_eq!(ended, None);
                arrived = (arrived + cut).min(encoded.len());
            }
            prop_assert_eq!(body.data, chunks.concat().into_bytes());
        }
    }
}
