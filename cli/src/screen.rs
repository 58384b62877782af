//! What a person sees: spinners on a terminal, plain lines elsewhere.

use std::{
    io::{IsTerminal, Write as _, stderr, stdout},
    time::{Duration, Instant},
};

use humantime::format_duration;
use indicatif::{ProgressBar, ProgressStyle};

/// Where commands write.
#[derive(Debug, Clone, Copy)]
pub struct Screen {
    terminal: bool,
    silent: bool,
}

impl Screen {
    /// Standard output, and standard error for what moves.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: stderr().is_terminal(), silent: false }
    }

    /// Nothing at all.
    #[must_use]
    pub fn silent() -> Self {
        Self { terminal: false, silent: true }
    }

    /// Writes a line.
    pub fn line(self, text: impl AsRef<str>) {
        if !self.silent {
            // Whoever reads may have seen enough: `head` does.
            _ = writeln!(stdout(), "{}", text.as_ref());
        }
    }

    /// Waits for `work`, and shows on a terminal that something is going on, elsewhere a line that it began.
    ///
    /// # Errors
    /// Those of `work`.
    pub async fn step<T>(
        self,
        name: &str,
        what: &str,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<(T, Duration)> {
        let started = Instant::now();
        let spinner = self.terminal.then(|| {
            let style = ProgressStyle::with_template(" {prefix:<11} {spinner} {msg} {elapsed}");
            let spinner =
                ProgressBar::new_spinner().with_prefix(name.to_owned()).with_message(what.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner.with_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()))
        });
        if !self.terminal {
            self.line(format!(" {name:<11} {what} …"));
        }
        let done = work.await;
        spinner.inspect(ProgressBar::finish_and_clear);
        Ok((done?, started.elapsed()))
    }

    /// A bar of 100 percent, where there is a terminal.
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

/// A duration for people.
#[must_use]
pub fn human(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}

/// An age for people: its two greatest parts.
#[must_use]
pub fn age(age: Duration) -> String {
    let age = format_duration(Duration::from_secs(age.as_secs())).to_string();
    age.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

/// A text of somebody else's: it may hold any character, a terminal obeys some, and some turn a line around.
#[must_use]
pub fn shown(text: &str) -> String {
    let obeyed = |character: char| {
        character.is_control()
            || matches!(character, '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|character| if obeyed(character) { '\u{FFFD}' } else { character }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_two_parts() {
        let ages = [59, 3_725, 180_000].map(|seconds| age(Duration::from_secs(seconds)));
        assert_eq!(ages, ["59s", "1h 2m", "2days 2h"]);
    }
}
