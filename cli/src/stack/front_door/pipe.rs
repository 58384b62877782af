//! One direction of a connection.

use std::{io, ops::Range};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::Instant,
};

use super::{
    frames::{CLOSE, Piece, Position},
    limits::{ClientFrames, Close},
};

/// Bytes that wait in one direction for a reader that is slower than the sender.
const BUFFER_BYTES: usize = 8 * 1024;

/// Passes on the bytes of one direction, unchanged, and reads the headers of their frames.
#[derive(Debug)]
pub(super) struct Pipe<R, W> {
    from: R,
    to: W,
    buffer: Box<[u8]>,
    /// The part of the buffer that has not been written.
    pending: Range<usize>,
    end: End,
    frames: Frames,
}

/// The end of a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The sender may send more.
    Open,
    /// The sender has ended, which the receiver must learn.
    Read,
    /// The receiver has learned it.
    Passed,
}

/// The facts about the frames of one direction. They are those of the bytes that may pass.
#[derive(Debug)]
struct Frames {
    position: Position,
    /// The rules for the frames, if they are a client's.
    client: Option<ClientFrames>,
    /// Whether the latest frame is a control frame.
    is_control: bool,
    /// Whether there was a close frame, after which no other frame may follow.
    is_closed: bool,
    /// The reason for which no further byte may pass.
    refused: Option<Close>,
    /// Time of the latest byte of a message.
    active_at: Instant,
}

impl Frames {
    /// Reads bytes that arrived, and returns the number of those that may pass.
    fn read(&mut self, bytes: &[u8], now: Instant) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            let (read, piece) = self.position.read(&bytes[at..]);
            if let Piece::Header(header) = piece {
                let client = self.client.as_mut();
                if let Some(Err(close)) = client.map(|client| client.check(header)) {
                    self.refused = Some(close);
                    return at;
                }
                self.is_control = header.is_control();
                self.is_closed |= header.opcode == CLOSE;
            }
            if piece != Piece::Unfinished && !self.is_control {
                self.active_at = now;
            }
            at += read;
        }
        at
    }
}

impl<R: AsyncRead + Unpin, W: AsyncWrite + Unpin> Pipe<R, W> {
    /// Creates a direction from `from` to `to`. With `client`, its frames are checked. `to` must not buffer writes.
    pub(super) fn new(from: R, to: W, client: Option<ClientFrames>) -> Self {
        let frames = Frames {
            position: Position::default(),
            client,
            is_control: false,
            is_closed: false,
            refused: None,
            active_at: Instant::now(),
        };
        Self { from, to, buffer: vec![0; BUFFER_BYTES].into(), pending: 0..0, end: End::Open, frames }
    }

    /// Returns whether the sender has ended and the receiver knows it.
    pub(super) fn has_ended(&self) -> bool {
        self.end == End::Passed
    }

    /// Returns the time of the latest byte of a message.
    pub(super) fn active_at(&self) -> Instant {
        self.frames.active_at
    }

    /// Returns the reason to close the connection, if a frame was refused.
    pub(super) fn refused(&self) -> Option<Close> {
        self.frames.refused
    }

    /// Reads once, writes once, or passes on the end. Dropping the future loses no byte.
    pub(super) async fn step(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            self.write().await
        } else if self.end == End::Open {
            self.read(BUFFER_BYTES).await
        } else {
            self.to.shutdown().await?;
            self.end = End::Passed;
            Ok(())
        }
    }

    /// Passes on the rest of the frame in progress, then a close frame and the end. The close frame is left out after
    /// another one, and if the frame in progress ends too early.
    pub(super) async fn close(&mut self, frame: &[u8]) -> io::Result<()> {
        self.finish_frame().await?;
        if self.frames.position.frame_left() == 0 && !self.frames.is_closed {
            self.to.write_all(frame).await?;
        }
        self.to.shutdown().await
    }

    /// Passes on the bytes that have been read, and the end.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        while !self.pending.is_empty() {
            self.write().await?;
        }
        self.to.shutdown().await
    }

    /// Reads and discards bytes until the sender ends.
    pub(super) async fn discard(&mut self) {
        while matches!(self.from.read(&mut self.buffer).await, Ok(read) if read > 0) {}
    }

    async fn finish_frame(&mut self) -> io::Result<()> {
        loop {
            let left = usize::try_from(self.frames.position.frame_left()).unwrap_or(usize::MAX);
            if !self.pending.is_empty() {
                self.write().await?;
            } else if left > 0 && self.end == End::Open {
                self.read(left.min(BUFFER_BYTES)).await?;
            } else {
                return Ok(());
            }
        }
    }

    async fn read(&mut self, limit: usize) -> io::Result<()> {
        let read = self.from.read(&mut self.buffer[..limit]).await?;
        if read == 0 {
            self.end = End::Read;
        }
        self.pending = 0..self.frames.read(&self.buffer[..read], Instant::now());
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        let written = self.to.write(&self.buffer[self.pending.clone()]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.pending.start += written;
        Ok(())
    }
}
