//! Output for people: spinners on a terminal, plain lines elsewhere.

mod progress;

use std::{
    env,
    io::{IsTerminal, Write as _, stderr, stdout},
    time::Duration,
};

use humantime::format_duration;
use indicatif::{ProgressBar, ProgressStyle};

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

    /// Writes a line.
    pub fn line(self, text: impl AsRef<str>) {
        if !self.silent {
            // A reader such as `head` may have closed the pipe.
            _ = writeln!(stdout(), "{}", text.as_ref());
        }
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
    match bar {
        Some(bar) => bar.suspend(|| eprintln!("{text}")),
        None => eprintln!("{text}"),
    }
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

/// Replaces control characters and bidirectional formatting characters, which could change what a terminal shows.
#[must_use]
pub fn sanitize(text: &str) -> String {
    let unsafe_character = |character: char| {
        character.is_control()
            || matches!(character, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if unsafe_character(character) { '\u{FFFD}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_at_most_two_units() {
        let ages = [59, 3_725, 180_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["59s", "1h 2m", "2days 2h"]);
    }
}
