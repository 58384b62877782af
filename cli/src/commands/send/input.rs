//! Reads the input in chunks, in a thread of its own.

use std::{
    io::{self, ErrorKind, Read},
    sync::mpsc,
    thread,
};

use futures::{Stream, StreamExt as _, stream};

/// Bytes of a chunk.
const CHUNK: usize = 16 * 1024;

/// Returns the chunks of `reader`. The last one is empty.
///
/// Each chunk is read when the stream is polled for it, so that an interruption leaves the rest of the input unread.
/// The thread is not joined: tokio's own standard input would keep the process alive until the next line.
///
/// # Errors
/// When the thread cannot be started.
pub(super) fn chunks(
    mut reader: impl Read + Send + 'static,
) -> io::Result<impl Stream<Item = io::Result<Vec<u8>>> + Unpin> {
    let (request, requests) = mpsc::channel::<()>();
    let (sender, chunks) = tokio::sync::mpsc::channel(1);
    let read = move || {
        while requests.recv().is_ok() {
            if sender.blocking_send(read_chunk(&mut reader)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new().name("input".to_owned()).spawn(read)?;
    let next = async |(request, mut chunks): (mpsc::Sender<()>, tokio::sync::mpsc::Receiver<_>)| {
        request.send(()).ok()?;
        let chunk = chunks.recv().await?;
        Some((chunk, (request, chunks)))
    };
    Ok(stream::unfold((request, chunks), next).boxed_local())
}

fn read_chunk(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match reader.read(&mut chunk) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(bytes) => {
                chunk.truncate(bytes);
                return Ok(chunk);
            }
        }
    }
}
