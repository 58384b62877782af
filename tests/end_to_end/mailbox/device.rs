//! A device of a user: it reads kept messages by the rules for clients.

use std::time::Duration;

use anyhow::ensure;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use streamer_cli::stack::{Stack, socket::Socket};
use streamer_tests::DEADLINE;

use crate::TENANT;

/// A connected device.
pub(super) struct Device {
    socket: Socket,
    syncs: u64,
    pub(super) state: State,
}

/// The part of a device that outlives its connections.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct State {
    /// Epoch and number of the last message that was read. `None` before the first page.
    pub(super) position: Option<(String, u64)>,
    /// The messages that were read, in order.
    pub(super) read: Vec<Message>,
    /// The numbers of messages whose ids had been read before.
    pub(super) repeated: Vec<u64>,
    /// The pages, each with its number of messages.
    pub(super) pages: Vec<usize>,
}

/// A kept message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) seq: u64,
    pub(super) id: String,
    /// The payload as it was received.
    pub(super) payload: String,
}

#[derive(Deserialize)]
struct Kind {
    #[serde(rename = "type")]
    name: String,
}

#[derive(Deserialize)]
struct Page<'a> {
    n: u64,
    epoch: String,
    after: u64,
    through: u64,
    top: u64,
    #[serde(borrow)]
    messages: Vec<Frame<'a>>,
    missing: Vec<Value>,
}

#[derive(Deserialize)]
struct Frame<'a> {
    seq: u64,
    id: String,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl From<Frame<'_>> for Message {
    fn from(Frame { seq, id, payload }: Frame<'_>) -> Self {
        Self { seq, id, payload: payload.get().to_owned() }
    }
}

impl Device {
    /// Connects a device with this state, and asks for the messages that it lacks.
    pub(super) async fn connect(stack: &Stack, user: &str, state: State) -> anyhow::Result<Self> {
        let mut device = Self { socket: stack.connect(TENANT, user).await?, syncs: 0, state };
        device.sync(true).await?;
        Ok(device)
    }

    /// Asks for the messages after the position, or from the oldest on.
    pub(super) async fn sync(&mut self, hello: bool) -> anyhow::Result<()> {
        self.syncs += 1;
        let stream = match &self.state.position {
            Some((epoch, seq)) => json!({ "stream": "user", "epoch": epoch, "seq": seq }),
            None => json!({ "stream": "user", "from": "oldest" }),
        };
        let sync = json!({ "type": "streamer.sync", "n": self.syncs, "hello": hello, "streams": [stream] });
        self.socket.send(&sync).await
    }

    /// Handles the next frame, if one arrives within `limit`. A page that is not the last is followed by a sync, and so
    /// is a message ahead of the position.
    ///
    /// # Errors
    /// When a page leaves out a number, or the connection is closed.
    pub(super) async fn step(&mut self, limit: Duration) -> anyhow::Result<bool> {
        let Ok(frame) = tokio::time::timeout(limit, self.socket.next(DEADLINE)).await else {
            return Ok(false);
        };
        let text = frame?.text;
        let kind: Kind = serde_json::from_str(&text)?;
        match kind.name.as_str() {
            "streamer.page" => self.page(serde_json::from_str(&text)?).await?,
            "streamer.message" => self.message(serde_json::from_str(&text)?).await?,
            _ => anyhow::bail!("unexpected frame: {text}"),
        }
        Ok(true)
    }

    async fn page(&mut self, page: Page<'_>) -> anyhow::Result<()> {
        ensure!(page.missing.is_empty(), "nothing has expired: {:?}", page.missing);
        if page.n != self.syncs {
            return Ok(());
        }
        let numbers: Vec<_> = page.messages.iter().map(|message| message.seq).collect();
        let expected: Vec<_> = (page.after + 1..=page.through).collect();
        ensure!(numbers == expected, "a page from {} to {} has {numbers:?}", page.after, page.through);
        let (epoch, seq) = self.state.position.get_or_insert((page.epoch, page.after));
        ensure!(page.after <= *seq, "a page begins after {}, the position is {seq} of {epoch}", page.after);
        self.state.pages.push(numbers.len());
        for message in page.messages {
            self.read(message);
        }
        if page.through < page.top {
            self.sync(false).await?;
        }
        Ok(())
    }

    async fn message(&mut self, message: Frame<'_>) -> anyhow::Result<()> {
        // A message before the first page is dropped: a page brings it.
        let Some((_, seq)) = &self.state.position else { return Ok(()) };
        if message.seq > seq + 1 {
            return self.sync(false).await;
        }
        self.read(message);
        Ok(())
    }

    /// Reads a message unless it was read before. The position moves past a repeated id, too.
    fn read(&mut self, message: Frame<'_>) {
        let State { position, read, repeated, .. } = &mut self.state;
        if let Some((_, seq)) = position.as_mut().filter(|(_, seq)| *seq + 1 == message.seq) {
            *seq = message.seq;
            match read.iter().any(|earlier| earlier.id == message.id) {
                true => repeated.push(message.seq),
                false => read.push(message.into()),
            }
        }
    }

    /// Reads until the device has `number` messages, and returns its state.
    pub(super) async fn read_until(mut self, number: usize) -> anyhow::Result<State> {
        while self.state.read.len() < number {
            let read = self.state.read.len();
            ensure!(self.step(DEADLINE).await?, "no frame after {read} of {number} messages");
        }
        Ok(self.state)
    }
}
