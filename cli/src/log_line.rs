//! Log lines for people: one line an event, coloured by outcome.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use anstyle::Style;
use humantime::parse_rfc3339;
use serde_json::{Map, Value};

use crate::{
    paint::{DIM, GREEN, PLAIN, Paint, RED, YELLOW},
    screen::{clock, sanitize},
    stack::logs::Line,
};

/// Fields that come first, in this order.
const FIRST_FIELDS: [&str; 11] = [
    "outcome",
    "connection_id",
    "user_id",
    "tenant_id",
    "request_id",
    "message_id",
    "record_id",
    "status",
    "reason",
    "cause",
    "error",
];

/// Fields that are shown elsewhere in the line, or that help only to find the source code.
const OMITTED_FIELDS: [&str; 10] = [
    "timestamp",
    "level",
    "message",
    "target",
    "span",
    "spans",
    "filename",
    "line_number",
    "threadName",
    "threadId",
];

/// Lines that Lambda writes around each invocation.
const PLATFORM_LINES: [&str; 4] =
    ["START RequestId: ", "END RequestId: ", "REPORT RequestId: ", "INIT_START "];

/// Formats the lines of functions' logs.
#[derive(Debug, Clone, Copy)]
pub struct LogFormat {
    /// The colours.
    pub paint: Paint,
    /// Whether each line names its function.
    pub functions: bool,
    /// Whether lines stay as the functions wrote them.
    pub raw: bool,
}

/// An event of a function's log.
struct Event {
    at: SystemTime,
    function: String,
    content: Content,
}

enum Content {
    /// A JSON object with a level, a message or an outcome.
    Fields {
        level: String,
        title: String,
        style: Style,
        fields: Vec<(String, String)>,
    },
    Text(String),
}

impl LogFormat {
    /// Formats lines, in order of time. Metrics, the lines that Lambda writes around an invocation, and the worker's
    /// lines for SQS records are left out.
    #[must_use]
    pub fn lines(&self, lines: Vec<Line>, now: SystemTime) -> Vec<String> {
        if self.raw {
            let raw = |line: Line| if self.paint.terminal { sanitize(&line.text) } else { line.text };
            return lines.into_iter().map(raw).collect();
        }
        let mut events: Vec<_> = lines.into_iter().filter_map(Event::read).collect();
        events.sort_by_key(|event| event.at);
        events.into_iter().map(|event| self.line(event, now)).collect()
    }

    fn line(&self, event: Event, now: SystemTime) -> String {
        let mut line = self.paint.paint(DIM, &clock(event.at, now));
        if self.functions {
            line = format!("{line}  {:<10}", event.function);
        }
        match event.content {
            Content::Text(text) if self.paint.terminal => format!("{line}  {}", sanitize(&text)),
            Content::Text(text) => format!("{line}  {text}"),
            Content::Fields { level, title, style, fields } => {
                let head = self.paint.paint(style, &format!("{level:<5} {title}"));
                let mut line = format!("{line}  {head}");
                for (name, value) in fields {
                    line.push_str(&format!(" {}{value}", self.paint.paint(DIM, &format!("{name}="))));
                }
                line
            }
        }
    }
}

impl Event {
    /// Reads an event. Returns `None` for a line that people need not see.
    fn read(line: Line) -> Option<Self> {
        let Line { function, mut at, text } = line;
        if text.is_empty() || PLATFORM_LINES.iter().any(|prefix| text.starts_with(prefix)) {
            return None;
        }
        let Ok(mut object) = serde_json::from_str::<Map<String, Value>>(&text) else {
            return Some(Self { at, function, content: Content::Text(text.replace('\t', " ")) });
        };
        if object.contains_key("_aws") {
            return None;
        }
        if let Some(Value::Object(nested)) = object.remove("fields") {
            object.extend(nested);
        }
        let field = |name: &str| object.get(name).and_then(Value::as_str).map(sanitize);
        if let Some(time) = object.get("timestamp").and_then(Value::as_str) {
            at = parse_rfc3339(time).unwrap_or(at);
        }
        let level = field("level").unwrap_or_default().to_uppercase();
        let (message, outcome) = (field("message"), field("outcome"));
        let content = match (message.as_ref().or(outcome.as_ref()), level.is_empty()) {
            (None, true) => Content::Text(text),
            (title, _) => {
                let title = title.cloned().unwrap_or_default();
                let style = style(&level, outcome.as_ref().unwrap_or(&title), &object);
                // A batch's counts of zero say nothing.
                let is_batch = title == "batch";
                object.retain(|name, value| {
                    let is_title = message.is_none() && name == "outcome";
                    !(OMITTED_FIELDS.contains(&name.as_str())
                        || value.is_null()
                        || *value == ""
                        || is_title
                        || is_batch && *value == 0)
                });
                Content::Fields { level, title, style, fields: ordered(object) }
            }
        };
        Some(Self { at, function, content })
    }
}

/// Returns the fields as text: the ones that say most first, the duration last.
fn ordered(object: Map<String, Value>) -> Vec<(String, String)> {
    let mut fields: BTreeMap<String, Value> = object.into_iter().collect();
    let mut ordered: Vec<_> = FIRST_FIELDS.iter().filter_map(|name| fields.remove_entry(*name)).collect();
    let duration = fields.remove_entry("duration_ms");
    ordered.extend(fields);
    ordered.extend(duration);
    ordered.into_iter().map(|(name, field)| (sanitize(&name), value(&field))).collect()
}

/// Returns a value without quotes if it reads as one word.
fn value(value: &Value) -> String {
    let text = match value {
        Value::String(text) => {
            let is_word = |character: char| !character.is_whitespace() && character != '"';
            if !text.is_empty() && text.chars().all(is_word) { text.clone() } else { value.to_string() }
        }
        other => other.to_string(),
    };
    sanitize(&text)
}

/// Returns the style of an event: that of its level if it reports trouble, else that of its outcome.
fn style(level: &str, outcome: &str, fields: &Map<String, Value>) -> Style {
    let any = |names: &[&str]| names.iter().any(|name| fields.get(*name).is_some_and(|count| *count != 0));
    match (level, outcome) {
        ("ERROR" | "FATAL" | "CRITICAL", _) => RED,
        ("WARN" | "WARNING", _) => YELLOW,
        ("DEBUG" | "TRACE", _) => DIM,
        (_, "batch") if any(&["rejected", "poison", "exhausted"]) => RED,
        (_, "batch") if any(&["handed_back"]) => YELLOW,
        (_, "batch") if any(&["delivered", "expanded"]) => GREEN,
        (_, "connected" | "circuit breaker closed") => GREEN,
        (_, "refused") => YELLOW,
        (_, "gone" | "expired" | "superseded" | "no_recipient" | "batch") => DIM,
        (_, outcome) if outcome.starts_with("disconnected") => DIM,
        _ => PLAIN,
    }
}

/// Returns the time before which lines are left out, or the epoch.
#[must_use]
pub fn cutoff(now: SystemTime, since: Option<Duration>) -> SystemTime {
    since.and_then(|since| now.checked_sub(since)).unwrap_or(SystemTime::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const AT: SystemTime = SystemTime::UNIX_EPOCH;
    const PLAIN_OUTPUT: Paint = Paint { colours: false, terminal: false };
    const TERMINAL: Paint = Paint { colours: true, terminal: true };

    fn format(paint: Paint, texts: &[&str]) -> Vec<String> {
        let format = LogFormat { paint, functions: true, raw: false };
        let line = |text: &&str| Line { function: "delivery".to_owned(), at: AT, text: (*text).to_owned() };
        format.lines(texts.iter().map(line).collect(), AT)
    }

    fn plain(text: &str) -> String {
        format(PLAIN_OUTPUT, &[text]).concat()
    }

    #[test]
    fn event_becomes_one_line() {
        let event = json!({
            "timestamp": "1970-01-01T07:44:00.123456Z", "level": "INFO", "message": "disconnected",
            "connection_id": "L0SM9cOFvHcCIhw=", "user_id": "anna", "tenant_id": "acme", "duration_ms": 4012,
            "status": 1001, "reason": "Going away", "target": "disconnect_handler",
        });
        assert_eq!(
            plain(&event.to_string()),
            "07:44:00.123  delivery    INFO  disconnected connection_id=L0SM9cOFvHcCIhw= user_id=anna tenant_id=acme \
             status=1001 reason=\"Going away\" duration_ms=4012"
        );
    }

    #[test]
    fn outcome_stands_for_a_missing_message() {
        let event = json!({"level": "WARN", "message_id": "m", "connection_id": "c", "outcome": "handed_back",
            "request_id": null, "reason": "", "cause": "throttled", "target": "delivery_worker"});
        assert_eq!(
            plain(&event.to_string()),
            "00:00:00.000  delivery    WARN  handed_back connection_id=c message_id=m cause=throttled"
        );
    }

    #[test]
    fn batch_shows_counts_above_zero() {
        let event = json!({"level": "INFO", "message": "batch", "messages": 2, "pairs": 3, "delivered": 3,
            "gone": 0, "poison": 0, "duration_ms": 12});
        let expected = "00:00:00.000  delivery    INFO  batch delivered=3 messages=2 pairs=3 duration_ms=12";
        assert_eq!(plain(&event.to_string()), expected);
    }

    #[test]
    fn platform_and_metric_lines_are_left_out() {
        for text in [
            "START RequestId: 1 Version: $LATEST",
            "END RequestId: 1",
            "REPORT RequestId: 1\tDuration: 3 ms",
            "INIT_START Runtime Version: provided:al2023.v1",
            r#"{"_aws":{"CloudWatchMetrics":[]},"Delivered":1}"#,
            "",
        ] {
            assert_eq!(plain(text), "", "{text}");
        }
    }

    #[test]
    fn lines_of_other_programs_stay_as_they_are() {
        for text in ["listening", "{\"a\": 1}", "[1]", "thread 'main' panicked", "\u{1b}[31mred"] {
            assert_eq!(plain(text), format!("00:00:00.000  delivery    {text}"));
        }
        let nested = json!({"level": "info", "fields": {"message": "routed", "route": "echo"}});
        assert_eq!(plain(&nested.to_string()), "00:00:00.000  delivery    INFO  routed route=echo");
    }

    #[test]
    fn terminal_gets_no_control_characters() {
        let event =
            json!({"level": "INFO", "message": "\u{1b}[2J", "user_id": "\u{202e}anna", "\u{7}": "\u{9b}"});
        for text in [&event.to_string(), "\u{1b}[2Jplain\u{202e}"] {
            let line = format(Paint { colours: false, ..TERMINAL }, &[text]).concat();
            assert!(!line.contains(crate::screen::is_unsafe), "{line:?}");
        }
    }

    #[test]
    fn outcome_decides_the_colour() {
        let coloured = |event: Value| format(TERMINAL, &[&event.to_string()]).concat();
        let has = |line: &str, style: Style, text: &str| line.contains(&format!("{style}{text}{style:#}"));
        assert!(has(&coloured(json!({"level": "INFO", "message": "connected"})), GREEN, "INFO  connected"));
        assert!(has(&coloured(json!({"level": "INFO", "message": "refused"})), YELLOW, "INFO  refused"));
        assert!(has(&coloured(json!({"level": "INFO", "outcome": "gone"})), DIM, "INFO  gone"));
        assert!(has(&coloured(json!({"level": "ERROR", "outcome": "poison"})), RED, "ERROR poison"));
        for (count, style) in [("delivered", GREEN), ("handed_back", YELLOW), ("exhausted", RED)] {
            assert!(has(
                &coloured(json!({"level": "INFO", "message": "batch", count: 1})),
                style,
                "INFO  batch"
            ));
        }
        assert!(!format(PLAIN_OUTPUT, &[r#"{"level":"ERROR","message":"m"}"#]).concat().contains('\u{1b}'));
    }

    #[test]
    fn lines_are_in_order_of_time() {
        let texts = [
            r#"{"message":"b","timestamp":"2026-01-01T00:00:02Z"}"#,
            r#"{"message":"a","timestamp":"2026-01-01T00:00:01Z"}"#,
        ];
        let lines = format(PLAIN_OUTPUT, &texts);
        assert!(lines[0].ends_with(" a") && lines[1].ends_with(" b"), "{lines:?}");
    }

    #[test]
    fn raw_lines_are_unchanged() {
        let format = LogFormat { paint: PLAIN_OUTPUT, functions: true, raw: true };
        let texts = ["START RequestId: 1", r#"{"_aws":{}}"#, "\u{1b}plain"];
        let line = |text: &str| Line { function: "router".to_owned(), at: AT, text: text.to_owned() };
        assert_eq!(format.lines(texts.map(line).into(), AT), texts);
    }
}
