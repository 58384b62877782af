//! Output for people: spinners on a terminal, plain lines elsewhere.

mod progress;

use std::{
    env,
    io::{IsTerminal, Write as _, stderr, stdout},
    time::{Duration, SystemTime},
};

use humantime::{format_duration, format_rfc3339_millis};
use indicatif::{ProgressBar, ProgressStyle};
use terminal_size::{Width, terminal_size_of};

use crate::layout::fit;

pub use self::progress::Progress;

/// Writes lines to standard output, and spinners and bars to standard error.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    terminal: bool,
    silent: bool,
}

impl Screen {
    /// Creates a screen, with spinners and bars if standard error is a terminal that can show them.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: can_redraw(&stderr()), silent: false }
    }

    /// Creates a screen that writes nothing to standard output.
    #[must_use]
    pub fn silent() -> Self {
        Self { silent: true, ..Self::new() }
    }

    /// Writes a line for people. On a terminal it continues on the next line if it is too wide, between two words.
    pub fn line(self, text: impl AsRef<str>) {
        self.verbatim(fit(text.as_ref(), width()));
    }

    /// Writes a line for programs, or one to be copied, as it is.
    pub fn verbatim(self, text: impl AsRef<str>) {
        if !self.silent {
            // A reader such as `head` may have closed the pipe.
            _ = writeln!(stdout(), "{}", text.as_ref());
        }
    }

    /// Writes a document byte for byte and without a line break at its end, unless standard output is a terminal.
    pub fn document(self, text: &str) {
        let mut out = stdout().lock();
        // A reader such as `head` may have closed the pipe.
        _ = match out.is_terminal() {
            true => writeln!(out, "{}", sanitize_lines(text)),
            false => out.write_all(text.as_bytes()).and_then(|()| out.flush()),
        };
    }

    /// Writes a line about a step that takes a while, to standard error if standard output has to stay empty.
    fn progress_line(self, text: &str) {
        if self.silent {
            eprintln!("{text}");
        } else {
            self.line(text);
        }
    }

    /// Creates a progress bar from 0 to 100 percent, if there is a terminal.
    #[must_use]
    pub fn bar(self) -> Option<ProgressBar> {
        self.terminal.then(|| {
            let style = ProgressStyle::with_template("   {bar:20.green} {pos:>3} %");
            ProgressBar::new(100).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        })
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Returns whether `stream` is a terminal that can move its cursor. indicatif shows nothing on any other.
#[must_use]
pub fn can_redraw(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && env::var("TERM").is_ok_and(|term| term != "dumb")
}

/// Creates a spinner with `template` on standard error, if that is a terminal. It counts without a known total.
#[must_use]
pub fn counter(template: &str) -> Option<ProgressBar> {
    can_redraw(&stderr()).then(|| {
        let style = ProgressStyle::with_template(template);
        let bar = ProgressBar::no_length();
        bar.enable_steady_tick(Duration::from_millis(100));
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
    })
}

/// Prints an error to standard error, above the bar if there is one.
pub fn print_error(text: &str, bar: Option<&ProgressBar>) {
    let text = fit(text, error_width());
    match bar {
        Some(bar) => bar.suspend(|| eprintln!("{text}")),
        None => eprintln!("{text}"),
    }
}

/// Returns the width of the terminal that standard output is, if it is one.
#[must_use]
pub fn width() -> Option<usize> {
    terminal_size_of(stdout()).map(|(Width(width), _)| usize::from(width))
}

/// Returns the width of the terminal that standard error is, if it is one.
#[must_use]
pub fn error_width() -> Option<usize> {
    terminal_size_of(stderr()).map(|(Width(width), _)| usize::from(width))
}

/// Formats the time that something took, such as `54 ms` or `4.0 s`.
#[must_use]
pub fn elapsed(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// Formats an age with its two largest units, such as `2h 5m`.
#[must_use]
pub fn age(age: Duration) -> String {
    let age = format_duration(Duration::from_secs(age.as_secs())).to_string();
    age.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// Formats a time as its time of day in UTC, such as `07:44:00.123`, with the date if that is not the date of `now`.
#[must_use]
pub fn clock(at: SystemTime, now: SystemTime) -> String {
    let [at, now] = [at, now].map(|time| format_rfc3339_millis(time).to_string());
    let ((date, time), today) = (at.split_once('T').unwrap_or_default(), now.split('T').next());
    let time = time.trim_end_matches('Z');
    if today == Some(date) { time.to_owned() } else { format!("{date} {time}") }
}

/// Replaces control characters and bidirectional formatting characters, which could change what a terminal shows.
#[must_use]
pub fn sanitize(text: &str) -> String {
    text.chars().map(|character| if is_unsafe(character) { '\u{FFFD}' } else { character }).collect()
}

/// Like [`sanitize`], except for line breaks and tabs.
fn sanitize_lines(text: &str) -> String {
    let line = |line: &str| line.split('\t').map(sanitize).collect::<Vec<_>>().join("\t");
    text.split('\n').map(line).collect::<Vec<_>>().join("\n")
}

/// Returns JSON in one line, with the same value: line breaks become spaces, and characters that could change what a
/// terminal shows become escapes. Of the control characters, JSON allows only white space outside of strings, and only
/// DEL and those from U+0080 inside.
#[must_use]
pub fn single_line_json(json: &str) -> String {
    let mut line = String::with_capacity(json.len());
    for character in json.chars() {
        match character {
            '\n' | '\r' | '\t' => line.push(' '),
            other if is_unsafe(other) => line.push_str(&format!("\\u{:04x}", u32::from(other))),
            other => line.push(other),
        }
    }
    line
}

/// Returns whether a character could change what a terminal shows.
#[must_use]
pub fn is_unsafe(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_at_most_two_units() {
        let ages = [59, 3_725, 180_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["59s", "1h 2m", "2days 2h"]);
    }

    #[test]
    fn document_keeps_its_lines_on_a_terminal() {
        assert_eq!(sanitize_lines("{\n\t\"a\": \"\u{1b}[2J\"\n}"), "{\n\t\"a\": \"\u{FFFD}[2J\"\n}");
    }

    #[test]
    fn clock_has_a_date_on_other_days() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(seconds * 1_000 + 5);
        assert_eq!(clock(at(86_399), at(0)), "23:59:59.005");
        assert_eq!(clock(at(86_399), at(86_400)), "1970-01-01 23:59:59.005");
    }
}
