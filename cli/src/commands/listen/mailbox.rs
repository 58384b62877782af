//! The kept messages of `listen --mailbox`: which frame to send, and how a page reads for people.

use serde::Deserialize;
use serde_json::value::RawValue;
use streamer_message::{
    Epoch, Position,
    frame::{ClientFrame, Start, StreamRequest, SyncFrame},
};

use super::frame::one_line;

/// The position in the user's mailbox, which outlives connections.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    position: Option<Position>,
    syncs: u64,
}

/// The fields of a frame that decide what to send. An enum with a tag would parse the payload's numbers, too, which may
/// be out of range.
#[derive(Debug, Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    epoch: Epoch,
    /// Of a page: the number of its sync, its last number, and that of the newest message.
    n: Option<u64>,
    #[serde(default)]
    through: u64,
    #[serde(default)]
    top: u64,
    /// Of a message: its number.
    #[serde(default)]
    seq: u64,
}

/// The parts of a page that are shown.
#[derive(Deserialize)]
struct Page<'a> {
    #[serde(rename = "type")]
    kind: String,
    after: u64,
    #[serde(borrow)]
    messages: Vec<Kept<'a>>,
    missing: Vec<Missing>,
    #[serde(default)]
    reset: Option<String>,
}

/// A kept message on a page.
#[derive(Deserialize)]
struct Kept<'a> {
    seq: u64,
    #[serde(borrow)]
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Missing {
    from: u64,
    to: u64,
    reason: String,
}

impl Mailbox {
    /// Returns the first sync of a connection: from the position on, or from the oldest message.
    pub(super) fn hello(&mut self) -> serde_json::Result<String> {
        self.sync(true)
    }

    /// Moves the position past a received frame. Returns the sync to send if messages are left or one is missing.
    pub(super) fn receive(&mut self, text: &str) -> serde_json::Result<Option<String>> {
        let Ok(Frame { kind, epoch, n, through, top, seq }) = serde_json::from_str(text) else {
            return Ok(None);
        };
        let (seq, is_behind) = match (kind.as_str(), &self.position) {
            // An answer to an earlier sync may be behind the position.
            ("streamer.page", _) if n != Some(self.syncs) => return Ok(None),
            ("streamer.page", _) => (through, through < top),
            ("streamer.message", Some(position)) if position.epoch == epoch && seq <= position.seq + 1 => {
                (seq.max(position.seq), false)
            }
            ("streamer.message", _) => return self.sync(false).map(Some),
            _ => return Ok(None),
        };
        self.position = Some(Position { epoch, seq });
        if is_behind { self.sync(false).map(Some) } else { Ok(None) }
    }

    fn sync(&mut self, hello: bool) -> serde_json::Result<String> {
        self.syncs += 1;
        let start = self.position.clone().map_or(Start::Oldest, Start::After);
        let sync = SyncFrame::new(self.syncs, hello, StreamRequest::user(start));
        serde_json::to_string(&ClientFrame::Sync(sync))
    }
}

/// Returns the lines of a page for people, without line breaks: its messages, and what it lacks. `None` for any other
/// frame.
pub(super) fn page(text: &str) -> Option<Vec<String>> {
    let page = serde_json::from_str(text).ok().filter(|page: &Page<'_>| page.kind == "streamer.page")?;
    let Page { after, messages, missing, reset, .. } = page;
    let reset = reset.map(|reason| format!("reset ({reason}): the page begins after number {after}"));
    let missing =
        missing.iter().map(|Missing { from, to, reason }| format!("missing {from} to {to}: {reason}"));
    let messages = messages.iter().map(|Kept { seq, payload }| format!("{seq}  {}", payload.get()));
    let mut lines: Vec<_> = reset.into_iter().chain(missing).chain(messages).collect();
    lines.iter_mut().for_each(|line| *line = one_line(line));
    if lines.is_empty() {
        lines.push(format!("no message after number {after}"));
    }
    Some(lines)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use serde_json::{Value, json};

    use super::*;

    fn page_frame(n: u64, through: u64, top: u64) -> String {
        format!(
            r#"{{"type":"streamer.page","n":{n},"stream":"user","epoch":"e.0","after":1,"through":{through},"top":{top},
            "messages":[{{"seq":2,"id":"m","payload":{{"b":1.0,
            "a":1e400}}}}],"missing":[{{"from":3,"to":4,"reason":"expired"}}],"expires_in":1,"now":1}}"#
        )
    }

    fn message(seq: u64) -> String {
        json!({ "type": "streamer.message", "stream": "user", "epoch": "e.0", "seq": seq, "id": "m", "payload": 1 })
            .to_string()
    }

    /// Returns the sync that follows a frame: its number and the position.
    fn after(mailbox: &mut Mailbox, frame: &str) -> Option<(Value, Value)> {
        let sync: Value = serde_json::from_str(&mailbox.receive(frame).unwrap()?).unwrap();
        Some((sync["n"].clone(), sync["streams"][0]["seq"].clone()))
    }

    #[test]
    fn pages_are_read_up_to_the_newest_message() {
        let mut mailbox = Mailbox::default();
        let hello: Value = serde_json::from_str(&mailbox.hello().unwrap()).unwrap();
        assert_eq!((&hello["hello"], &hello["streams"][0]["from"]), (&json!(true), &json!("oldest")));
        assert_eq!(after(&mut mailbox, &page_frame(1, 4, 9)), Some((json!(2), json!(4))));
        assert_eq!(after(&mut mailbox, &page_frame(1, 4, 9)), None, "a page that was answered before");
        assert_eq!(after(&mut mailbox, &page_frame(2, 9, 9)), None);
        let hello: Value = serde_json::from_str(&mailbox.hello().unwrap()).unwrap();
        assert_eq!(hello["streams"][0], json!({ "stream": "user", "epoch": "e.0", "seq": 9 }));
    }

    #[test]
    fn message_ahead_of_position_causes_sync() {
        let mut mailbox = Mailbox::default();
        mailbox.hello().unwrap();
        mailbox.receive(&page_frame(1, 4, 4)).unwrap();
        assert_eq!(after(&mut mailbox, &message(5)), None);
        assert_eq!(after(&mut mailbox, &message(5)), None, "a duplicate");
        assert_eq!(after(&mut mailbox, &message(7)), Some((json!(2), json!(5))));
        for other in ["\"hello\"", "no json", r#"{"type":"response","data":1,"id":"m"}"#] {
            assert_eq!(after(&mut mailbox, other), None, "{other}");
        }
    }

    #[test]
    fn page_has_line_for_each_message() {
        let lines = page(&page_frame(1, 4, 4)).unwrap();
        assert_eq!(lines[0], "missing 3 to 4: expired");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["2", "{\"b\":1.0,", "\"a\":1e400}"]);
        let empty = r#"{"type":"streamer.page","n":1,"epoch":"e","after":0,"through":0,"top":0,"messages":[],"missing":[]}"#;
        assert_eq!(page(empty).unwrap(), ["no message after number 0"]);
        assert_eq!(page(&message(1)), None);
    }
}
