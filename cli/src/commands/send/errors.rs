//! Errors of messages and of the queue, with what to do about them.

use serde_json::{Value, error::Category};
use streamer_producer::{MessageError, PayloadError, SendError};

use crate::aws;

/// Maximum number of characters of a payload that a hint repeats.
const MAX_REPEATED: usize = 60;

/// Where a payload is written, which decides how a correct one looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An argument of the command, quoted for the shell.
    Argument,
    /// A line of standard input.
    Line,
}

/// Describes why the queue does not have a message. `aws_queue` is the queue's URL on AWS.
pub(super) fn explain(error: &SendError, aws_queue: Option<&str>) -> String {
    match (error, aws_queue) {
        (_, Some(url)) => format!("{:#}", aws::send_failed(error.clone(), url)),
        (SendError::Refused { .. }, None) if error.is_queue_fault() => {
            format!("{error}: restart the stack with `streamer down` and `streamer up`")
        }
        (SendError::TimedOut { .. }, None) => {
            format!("{error}. Is the stack up? `streamer status` shows it")
        }
        (error, None) => error.to_string(),
    }
}

/// Describes why this payload makes no message, and how to write it.
pub(super) fn describe(error: &MessageError, payload: &str, place: Place) -> String {
    match error {
        MessageError::Payload(PayloadError::NotJson(error)) => {
            format!("not JSON ({}): {}", position(error), remedy(payload.trim(), place))
        }
        error => error.to_string(),
    }
}

/// Returns serde's text, with a position that counts from the start of the payload.
fn position(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    match text.strip_suffix(&format!(" at line {line} column {column}")) {
        Some(text) if line == 1 && error.classify() != Category::Eof => format!("{text} at column {column}"),
        Some(text) if line == 1 => text.to_owned(),
        _ => text,
    }
}

fn remedy(payload: &str, place: Place) -> String {
    let example = |json: &str| match place {
        Place::Argument => format!("--payload {}", quoted(json)),
        Place::Line => json.to_owned(),
    };
    if payload.is_empty() {
        format!("for an empty string write {}, for no value {}", example("\"\""), example("null"))
    } else if payload.starts_with(['{', '[', '"']) {
        let example = example(r#"{"hello":"world"}"#);
        format!("names and strings are in double quotes, and nothing follows the value, as in {example}")
    } else if payload.chars().count() <= MAX_REPEATED {
        format!("write a string in double quotes: {}", example(&Value::from(payload).to_string()))
    } else {
        format!("write a string in double quotes: {}", example("\"…\""))
    }
}

/// Quotes a text for the shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use streamer_producer::Message;

    use super::*;

    fn described(payload: &str, place: Place) -> String {
        let error = Message::connection("c").json(payload).err().unwrap();
        describe(&error, payload, place)
    }

    #[test]
    fn invalid_payload_shows_the_correct_one() {
        let argument = |payload| described(payload, Place::Argument);
        assert_eq!(
            argument("hello"),
            "not JSON (expected value at column 1): write a string in double quotes: --payload '\"hello\"'"
        );
        assert!(argument("it's \"so\"").ends_with(r#"--payload '"it'\''s \"so\""'"#));
        assert!(
            argument("")
                .contains("for an empty string write --payload '\"\"', for no value --payload 'null'")
        );
        assert!(argument("{hello:world}").ends_with(r#"as in --payload '{"hello":"world"}'"#));
        assert!(argument("[1").starts_with("not JSON (EOF while parsing a list): names and strings"));
        assert!(argument(&"x".repeat(1000)).len() < 200);
        assert_eq!(
            described("hello", Place::Line),
            "not JSON (expected value at column 1): write a string in double quotes: \"hello\""
        );
    }

    #[test]
    fn large_payload_is_explained() {
        let text = described(&format!("\"{}\"", "x".repeat(128 * 1024)), Place::Line);
        assert!(text.contains("API Gateway delivers at most 131072: send a reference"), "{text}");
    }
}
