//! Prints frames, for people or as JSON, and marks duplicates.

use std::{collections::BTreeMap, time::SystemTime};

use anstyle::Style;
use humantime::format_rfc3339_millis;
use serde_json::{Value, value::RawValue};

use super::mailbox;
use crate::{
    paint::{CYAN, DIM, GREEN, PLAIN, Paint, RED, YELLOW},
    recent::Recent,
    screen::{clock, sanitize, single_line_json},
};

/// Ids that are remembered, to recognize duplicates.
const MAX_IDS: usize = 10_000;

/// Characters of a progress bar.
const BAR: usize = 20;

/// Formats frames, and remembers their ids.
pub(super) struct Frames {
    paint: Paint,
    json: bool,
    seen: Recent,
}

/// A frame, as a line of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whether a message with the same id has arrived before.
    pub(super) duplicate: bool,
}

/// The members of a JSON object, as they are written.
type Members<'a> = BTreeMap<String, &'a RawValue>;

/// A message that Streamer's library built, or a kept message: `type`, `id`, and the fields of the type.
struct ClientMessage {
    id: String,
    request_id: String,
    kind: String,
    style: Style,
    content: String,
}

impl Frames {
    pub(super) fn new(paint: Paint, json: bool) -> Self {
        Self { paint, json, seen: Recent::new(MAX_IDS) }
    }

    /// Formats a text frame.
    pub(super) fn text(&mut self, text: &str, at: SystemTime) -> Line {
        let message = ClientMessage::parse(text);
        let duplicate = message.as_ref().is_some_and(|message| !self.seen.insert(&message.id));
        let text =
            if self.json { object(text, at, duplicate) } else { self.line(text, message, at, duplicate) };
        Line { text, duplicate }
    }

    /// Formats a binary frame, whose bytes are not shown.
    pub(super) fn binary(&self, bytes: usize, at: SystemTime) -> Line {
        let text = if self.json {
            json_line(at, false, "binary_bytes", &bytes.to_string())
        } else {
            self.columns(at, PLAIN, "binary", "", &format!("{bytes} bytes"))
        };
        Line { text, duplicate: false }
    }

    fn line(&self, text: &str, message: Option<ClientMessage>, at: SystemTime, duplicate: bool) -> String {
        if let Some(kept) = mailbox::page(text) {
            let kept = kept.iter().map(|kept| self.columns(at, GREEN, "mailbox", "", kept));
            return kept.collect::<Vec<_>>().join("\n");
        }
        let line = match message {
            Some(ClientMessage { kind, style, request_id, content, .. }) => {
                self.columns(at, style, &kind, &sanitize(&request_id), &content)
            }
            None => self.columns(at, PLAIN, "payload", "", &one_line(text)),
        };
        if duplicate { format!("{line}  {}", self.paint.paint(YELLOW, "(duplicate)")) } else { line }
    }

    fn columns(&self, at: SystemTime, style: Style, kind: &str, request: &str, content: &str) -> String {
        let time = self.paint.paint(DIM, &clock(at, SystemTime::now()));
        let kind = self.paint.paint(style, &format!("{kind:<14}"));
        let separator = if request.is_empty() { "" } else { "  " };
        format!("{time}  {kind}  {request}{separator}{content}").trim_end().to_owned()
    }
}

impl ClientMessage {
    /// Parses a message. Returns `None` for any other payload.
    fn parse(text: &str) -> Option<Self> {
        let members: Members<'_> = serde_json::from_str(text).ok()?;
        let (kind, id) = (string(&members, "type")?, string(&members, "id")?);
        let (style, content) = match kind.as_str() {
            "acknowledgment" => (CYAN, string(&members, "message").unwrap_or_default()),
            "progress" => (CYAN, progress(&members)?),
            "response" => (GREEN, members.get("data")?.get().to_owned()),
            "complete" => (GREEN, members.get("result")?.get().to_owned()),
            "error" => (RED, error(members.get("error")?)?),
            "streamer.message" => {
                (GREEN, format!("{}  {}", members.get("seq")?.get(), members.get("payload")?.get()))
            }
            _ => return None,
        };
        let kind = if kind == "streamer.message" { "mailbox".to_owned() } else { kind };
        let request_id = string(&members, "request_id").unwrap_or_default();
        Some(Self { id, request_id, kind, style, content: one_line(&content) })
    }
}

fn string(members: &Members<'_>, name: &str) -> Option<String> {
    serde_json::from_str(members.get(name)?.get()).ok()
}

fn progress(members: &Members<'_>) -> Option<String> {
    let percent: usize = members.get("progress")?.get().parse().ok().filter(|percent| *percent <= 100)?;
    let full = BAR * percent / 100;
    let bar = format!("{}{} {percent:>3} %", "█".repeat(full), "░".repeat(BAR - full));
    let details = members.get("details").map(|details| details.get().to_owned());
    let texts = [Some(bar), string(members, "message"), details];
    Some(texts.into_iter().flatten().collect::<Vec<_>>().join("  "))
}

fn error(error: &RawValue) -> Option<String> {
    let members: Members<'_> = serde_json::from_str(error.get()).ok()?;
    let head = format!("{}: {}", string(&members, "code")?, string(&members, "message")?);
    Some(members.get("details").map_or(head.clone(), |details| format!("{head}  {}", details.get())))
}

/// Replaces line breaks and tabs by spaces, and characters that could change what a terminal shows.
pub(super) fn one_line(text: &str) -> String {
    sanitize(&text.replace(['\n', '\r', '\t'], " "))
}

fn rfc3339(at: SystemTime) -> String {
    format_rfc3339_millis(at).to_string()
}

/// Returns the JSON object of a frame: its time, whether it is a duplicate, and a member with this name and JSON.
fn json_line(at: SystemTime, duplicate: bool, name: &str, value: &str) -> String {
    format!(r#"{{"received_at":"{}","duplicate":{duplicate},"{name}":{value}}}"#, rfc3339(at))
}

/// Returns a frame as a JSON object in one line. A frame that is JSON keeps its text, except that line breaks become
/// spaces, and characters that could change what a terminal shows become escapes, both of which keep its value.
fn object(text: &str, at: SystemTime, duplicate: bool) -> String {
    if serde_json::from_str::<&RawValue>(text).is_err() {
        return json_line(at, duplicate, "text", &single_line_json(&Value::from(text).to_string()));
    }
    json_line(at, duplicate, "frame", &single_line_json(text.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn frames(json: bool) -> Frames {
        Frames::new(Paint { colours: false, terminal: false }, json)
    }

    /// Formats a frame for people, without the time.
    fn plain(text: &str) -> String {
        let line = frames(false).text(text, SystemTime::now()).text;
        line.split_once("  ").unwrap().1.to_owned()
    }

    #[test]
    fn each_type_becomes_one_line() {
        for (frame, line) in [
            (
                r#"{"type":"response","data":{"b": 1,"a":1.0},"request_id":"r1","id":"m"}"#,
                r#"response        r1  {"b": 1,"a":1.0}"#,
            ),
            (r#"{"type":"response","data":null,"id":"m"}"#, "response        null"),
            (
                r#"{"type":"acknowledgment","message":"at work","request_id":"r1","id":"m"}"#,
                "acknowledgment  r1  at work",
            ),
            (r#"{"type":"acknowledgment","request_id":"r1","id":"m"}"#, "acknowledgment  r1"),
            (
                r#"{"type":"progress","progress":40,"message":"rows","details":[1],"request_id":"r1","id":"m"}"#,
                "progress        r1  ████████░░░░░░░░░░░░  40 %  rows  [1]",
            ),
            (r#"{"type":"complete","result":"done","id":"m"}"#, r#"complete        "done""#),
            (
                r#"{"type":"error","error":{"code":"internal","message":"no","details":{"a":1}},"id":"m"}"#,
                r#"error           internal: no  {"a":1}"#,
            ),
            (
                r#"{"type":"streamer.message","epoch":"e","seq":42,"id":"m","payload":{"a": 1.0}}"#,
                r#"mailbox         42  {"a": 1.0}"#,
            ),
        ] {
            assert_eq!(plain(frame), line);
        }
    }

    #[test]
    fn any_payload_is_shown_as_it_is() {
        for text in [
            r#""hello, anna""#,
            "12",
            "null",
            "not json",
            r#"{"type":"response","data":1}"#,
            r#"{"type":"progress","progress":"half","id":"m"}"#,
            r#"{"type":"other","id":"m"}"#,
        ] {
            assert_eq!(plain(text), format!("payload         {text}"));
        }
        assert_eq!(plain("{\n\t\"a\": 1\r\n}"), "payload         {  \"a\": 1  }");
    }

    #[test]
    fn terminal_gets_no_control_characters() {
        let bad = "\u{1b}[2J\u{9b}\u{202e}\u{7f}";
        for text in [
            bad.to_owned(),
            format!(r#"{{"type":"response","data":"{}","request_id":{},"id":"m"}}"#, &bad[4..], json!(bad)),
            json!({"type": "error", "error": {"code": bad, "message": bad}, "id": "m"}).to_string(),
            json!({"type": "acknowledgment", "message": bad, "id": "m"}).to_string(),
        ] {
            for json in [false, true] {
                let line = frames(json).text(&text, SystemTime::now()).text;
                assert!(!line.contains(crate::screen::is_unsafe), "{line:?}");
            }
        }
    }

    #[test]
    fn repeated_id_is_marked_as_duplicate() {
        let message = r#"{"type":"response","data":1,"id":"m"}"#;
        for json in [false, true] {
            let mut frames = frames(json);
            let lines = [(); 2].map(|()| frames.text(message, SystemTime::now()));
            assert_eq!(lines.each_ref().map(|line| line.duplicate), [false, true]);
            let mark = if json { r#""duplicate":true"# } else { "(duplicate)" };
            assert_eq!(lines.map(|line| line.text.contains(mark)), [false, true]);
        }
    }

    /// The `id` in such a payload is the application's.
    #[test]
    fn other_payloads_are_never_duplicates() {
        let mut frames = frames(false);
        for _ in 0..2 {
            assert!(!frames.text(r#"{"id":"sensor-1"}"#, SystemTime::now()).duplicate);
        }
    }

    #[test]
    fn json_line_keeps_the_frame() {
        let at = SystemTime::UNIX_EPOCH;
        let mut frames = frames(true);
        assert_eq!(
            frames.text("{ \"b\":1.0,\n\"a\":\"\u{9b}\\n\" }", at).text,
            r#"{"received_at":"1970-01-01T00:00:00.000Z","duplicate":false,"frame":{ "b":1.0, "a":"\u009b\n" }}"#
        );
        assert_eq!(
            frames.text("plain\n", at).text,
            r#"{"received_at":"1970-01-01T00:00:00.000Z","duplicate":false,"text":"plain\n"}"#
        );
        assert_eq!(
            frames.binary(3, at).text,
            r#"{"received_at":"1970-01-01T00:00:00.000Z","duplicate":false,"binary_bytes":3}"#
        );
    }
}
