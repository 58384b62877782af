//! Frames of many sockets, in order of arrival.

use std::time::Duration;

use anyhow::Context as _;
use streamer_cli::stack::socket::Socket;
use streamer_tests::DEADLINE;
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinSet,
    time::timeout,
};

/// How long a socket may stay without a frame: longer than any test.
const IDLE: Duration = Duration::from_secs(3600);

/// Sockets that are read concurrently until they close or this is dropped.
pub(crate) struct Arrivals {
    frames: UnboundedReceiver<(usize, String)>,
    readers: JoinSet<()>,
}

impl Arrivals {
    /// Reads these sockets.
    pub(crate) fn of(sockets: impl IntoIterator<Item = Socket>) -> Self {
        let (sender, frames) = mpsc::unbounded_channel();
        let mut readers = JoinSet::new();
        for (index, mut socket) in sockets.into_iter().enumerate() {
            let sender = sender.clone();
            readers.spawn(async move {
                while let Ok(frame) = socket.next(IDLE).await {
                    if sender.send((index, frame.text)).is_err() {
                        break;
                    }
                }
            });
        }
        Self { frames, readers }
    }

    /// Waits for the next frame, and returns it with its socket's index. `progress` says how far the test is.
    pub(crate) async fn next(
        &mut self,
        progress: impl FnOnce() -> String,
    ) -> anyhow::Result<(usize, String)> {
        match timeout(DEADLINE, self.frames.recv()).await {
            Ok(frame) => frame.context("every socket is closed"),
            Err(_) => anyhow::bail!("no frame within {} s: {}", DEADLINE.as_secs(), progress()),
        }
    }

    /// Waits for the next frame for a short time.
    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<(usize, String)> {
        timeout(limit, self.frames.recv()).await.ok().flatten()
    }

    /// Returns a frame that has already arrived.
    pub(crate) fn try_next(&mut self) -> Option<(usize, String)> {
        self.frames.try_recv().ok()
    }

    /// Whether no socket has closed.
    pub(crate) fn all_open(&mut self) -> bool {
        self.readers.try_join_next().is_none()
    }
}
