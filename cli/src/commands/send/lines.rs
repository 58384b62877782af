//! Splits chunks into lines, with bounded memory.

use std::io;

use futures::{Stream, StreamExt as _};
use memchr::memchr;
use streamer_message::limits::QUEUE_MESSAGE_BYTES;

/// The lines of the input, except blank ones. `S` yields chunks; an empty one is the end.
pub(super) struct Lines<S> {
    chunks: S,
    buffer: Vec<u8>,
    /// Position in the buffer at which the current line begins.
    start: usize,
    /// Position up to which the current line was searched for its end.
    searched: usize,
    /// Number of the last line that was returned or skipped, from 1.
    number: usize,
    /// Whether the current line is too long: the rest of it is dropped.
    is_too_long: bool,
    is_at_end: bool,
}

/// A line with its number, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub number: usize,
    /// The text, or what is wrong with the line.
    pub text: Result<String, String>,
}

impl<S: Stream<Item = io::Result<Vec<u8>>> + Unpin> Lines<S> {
    pub(super) fn new(chunks: S) -> Self {
        Self {
            chunks,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            number: 0,
            is_too_long: false,
            is_at_end: false,
        }
    }

    /// Returns the next line that is not blank, and `None` at the end. Cancelling it loses no line.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.next_read() {
                return Ok(Some(line));
            }
            if self.is_at_end {
                return Ok(None);
            }
            match self.chunks.next().await.transpose()? {
                Some(chunk) if !chunk.is_empty() => self.append(&chunk),
                _ => self.is_at_end = true,
            }
        }
    }

    /// Returns the next line of those that were read as a whole.
    pub(super) fn next_read(&mut self) -> Option<Line> {
        loop {
            let bytes = self.take()?;
            self.number += 1;
            let text = match std::mem::take(&mut self.is_too_long) {
                true => Err(format!("longer than {QUEUE_MESSAGE_BYTES} bytes, more than a message may have")),
                false => String::from_utf8(bytes)
                    .map_err(|_| "not UTF-8: convert the input first, for example with iconv".to_owned()),
            };
            let text = text.map(|text| match (self.number, text.strip_prefix('\u{FEFF}')) {
                // The byte order mark, with which some editors begin a file.
                (1, Some(rest)) => rest.to_owned(),
                _ => text,
            });
            if !text.as_ref().is_ok_and(|text| text.trim().is_empty()) {
                return Some(Line { number: self.number, text });
            }
        }
    }

    /// Returns the number of the line of which only the beginning was read, if there is one.
    pub(super) fn partial(&self) -> Option<usize> {
        let is_partial = self.is_too_long || !self.buffer[self.start..].iter().all(u8::is_ascii_whitespace);
        is_partial.then_some(self.number + 1)
    }

    /// Returns the number of the last line.
    pub(super) fn number(&self) -> usize {
        self.number
    }

    /// Returns whether the whole input was read.
    pub(super) fn is_at_end(&self) -> bool {
        self.is_at_end
    }

    fn append(&mut self, chunk: &[u8]) {
        self.buffer.drain(..self.start);
        self.searched -= self.start;
        self.start = 0;
        self.buffer.extend_from_slice(chunk);
    }

    /// Takes the bytes of the next whole line, without its end. Forgets a line that is too long, up to its end.
    fn take(&mut self) -> Option<Vec<u8>> {
        let end = match memchr(b'\n', &self.buffer[self.searched..]) {
            Some(found) => self.searched + found,
            None if self.is_at_end && (self.is_too_long || self.start < self.buffer.len()) => {
                self.buffer.len()
            }
            None => {
                if self.buffer.len() - self.start > QUEUE_MESSAGE_BYTES {
                    self.is_too_long = true;
                    self.start = self.buffer.len();
                }
                self.searched = self.buffer.len();
                return None;
            }
        };
        let line = self.buffer[self.start..end].to_vec();
        self.is_too_long |= line.len() > QUEUE_MESSAGE_BYTES;
        self.start = self.buffer.len().min(end + 1);
        self.searched = self.start;
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    /// Returns the lines of an input that is read in these chunks.
    async fn lines(chunks: &[&[u8]]) -> Vec<Line> {
        let end = [Vec::new()];
        let chunks = chunks.iter().map(|chunk| chunk.to_vec()).chain(end).map(Ok);
        let mut lines = Lines::new(stream::iter(chunks));
        let mut all = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            all.push(line);
        }
        all
    }

    fn line(number: usize, text: &str) -> Line {
        Line { number, text: Ok(text.to_owned()) }
    }

    #[tokio::test]
    async fn lines_are_split_at_any_byte() {
        let input = "\u{feff}1\n\n\"é\"\r\n \t\n3".as_bytes();
        let expected = [line(1, "1"), line(3, "\"é\"\r"), line(5, "3")];
        for middle in 0..input.len() {
            let (before, after) = input.split_at(middle);
            let chunks: Vec<_> = [before, after].into_iter().filter(|chunk| !chunk.is_empty()).collect();
            assert_eq!(lines(&chunks).await, expected, "{middle}");
        }
        assert_eq!(lines(&[b"1\n2\n"]).await, [line(1, "1"), line(2, "2")]);
        assert_eq!(lines(&[]).await, []);
    }

    #[tokio::test]
    async fn invalid_utf8_is_reported_by_line() {
        let read = lines(&[b"1\n\xff\xfe\n3\n"]).await;
        assert_eq!((&read[0], &read[2]), (&line(1, "1"), &line(3, "3")));
        assert!(read[1].number == 2 && read[1].text.as_ref().unwrap_err().contains("not UTF-8"), "{read:?}");
    }

    #[tokio::test]
    async fn long_line_is_skipped_in_bounded_memory() {
        let chunk = [b'x'; 16 * 1024];
        let sent = std::iter::repeat_n(chunk.as_slice(), 1000).chain([b"x\n2".as_slice()]);
        let end = [Vec::new()];
        let mut lines = Lines::new(stream::iter(sent.map(<[u8]>::to_vec).chain(end).map(Ok)));
        let long = lines.next().await.unwrap().unwrap();
        assert!(long.number == 1 && long.text.unwrap_err().starts_with("longer than 1048576 bytes"));
        assert_eq!(lines.next().await.unwrap(), Some(line(2, "2")));
        assert!(lines.buffer.capacity() < 4 * QUEUE_MESSAGE_BYTES, "{}", lines.buffer.capacity());
    }

    #[tokio::test]
    async fn partial_line_is_not_returned_early() {
        let mut lines = Lines::new(stream::iter([Ok(b"1\n2\n12".to_vec())]).chain(stream::pending()));
        assert_eq!(lines.next().await.unwrap(), Some(line(1, "1")));
        assert_eq!(lines.next_read(), Some(line(2, "2")));
        assert_eq!((lines.next_read(), lines.partial(), lines.number()), (None, Some(3), 2));
    }
}
