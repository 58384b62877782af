//! Colours for standard output. `NO_COLOR`, `TERM=dumb` and an output that is no terminal turn them off.

use std::io::{IsTerminal as _, stdout};

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// Red.
pub const RED: Style = AnsiColor::Red.on_default();
/// Yellow.
pub const YELLOW: Style = AnsiColor::Yellow.on_default();
/// Green.
pub const GREEN: Style = AnsiColor::Green.on_default();
/// Cyan.
pub const CYAN: Style = AnsiColor::Cyan.on_default();
/// Faint.
pub const DIM: Style = Style::new().dimmed();
/// The terminal's own colour.
pub const PLAIN: Style = Style::new();

/// Colours texts, or leaves them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Paint {
    /// Whether texts are coloured.
    pub colours: bool,
    /// Whether the output is a terminal, which control characters could change.
    pub terminal: bool,
}

impl Paint {
    /// Returns the paint for standard output.
    #[must_use]
    pub fn stdout() -> Self {
        let colours = AutoStream::choice(&stdout()) != ColorChoice::Never;
        Self { colours, terminal: stdout().is_terminal() }
    }

    /// Returns `text` in a style.
    #[must_use]
    pub fn paint(self, style: Style, text: &str) -> String {
        if self.colours && style != PLAIN { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}
