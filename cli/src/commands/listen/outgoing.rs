//! The frames that `listen` sends: those of `--send`, then lines of standard input.

use std::{collections::VecDeque, io, thread};

use tokio::sync::mpsc::{Receiver, channel};

/// Frames to send, in order. A frame stays the next one until it is sent.
pub(super) struct Outgoing {
    pending: VecDeque<String>,
    lines: Option<Receiver<String>>,
}

impl Outgoing {
    /// Creates the frames. With `stdin`, they go on with each line of standard input that is not blank.
    pub(super) fn new(frames: Vec<String>, stdin: bool) -> Self {
        Self { pending: frames.into(), lines: stdin.then(read_stdin) }
    }

    /// Waits for the next frame. Dropping the future loses none.
    pub(super) async fn next(&mut self) -> String {
        while self.pending.is_empty() {
            match &mut self.lines {
                Some(lines) => match lines.recv().await {
                    Some(line) => self.pending.push_back(line),
                    None => self.lines = None,
                },
                None => std::future::pending().await,
            }
        }
        self.pending[0].clone()
    }

    /// Removes the next frame, which was sent.
    pub(super) fn sent(&mut self) {
        self.pending.pop_front();
    }
}

/// Reads lines in a thread of its own, because a read of a terminal would keep the runtime from ending.
fn read_stdin() -> Receiver<String> {
    let (sender, receiver) = channel(1);
    thread::spawn(move || {
        for line in io::stdin().lines().map_while(Result::ok) {
            if !line.trim().is_empty() && sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}
