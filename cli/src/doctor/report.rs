//! The results of an examination.

use serde::Serialize;
use serde_json::Value;
use textwrap::{Options, WordSeparator, WordSplitter};

use super::live::CLEANUP;
use crate::{
    layout::fit,
    paint::{self, Paint},
    screen::sanitize,
};

/// Width of the results' words.
const WORD_WIDTH: usize = 8;

/// Width of the checks' names.
const NAME_WIDTH: usize = 24;

/// Minimum width of a text beside names. A narrower terminal continues lines near its left edge.
const TEXT_WIDTH: usize = 24;

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As expected.
    Ok,
    /// It works, with a disadvantage that the remedy names.
    Warning,
    /// It does not work, or messages can get lost.
    Failed,
    /// It could not be checked, or does not apply. The text of `seen` gives the reason.
    Skipped,
}

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Check {
    /// The name, such as `queue.visibility`: documentation refers to it.
    pub name: &'static str,
    /// The result.
    pub verdict: Verdict,
    /// The observation on a deployment that works.
    pub expected: String,
    /// The observation.
    pub seen: String,
    /// The remedy of a warning or a failure.
    pub remedy: Option<String>,
    /// Measured values by name, with the unit at the end of the name, such as `p50_ms`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Value>,
}

/// The checks of a deployment, in the order in which they ran.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The deployment's name.
    pub deployment: String,
    /// The checks.
    pub checks: Vec<Check>,
}

impl Check {
    fn new(
        name: &'static str,
        verdict: Verdict,
        expected: impl Into<String>,
        seen: impl Into<String>,
    ) -> Self {
        let (expected, seen) = (expected.into(), sanitize(&seen.into()));
        Self { name, verdict, expected, seen, remedy: None, values: None }
    }

    /// Something is as expected.
    #[must_use]
    pub fn ok(name: &'static str, expected: impl Into<String>, seen: impl Into<String>) -> Self {
        Self::new(name, Verdict::Ok, expected, seen)
    }

    /// Something could not be checked, or does not apply, for a reason.
    #[must_use]
    pub fn skipped(name: &'static str, expected: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::new(name, Verdict::Skipped, expected, reason)
    }

    /// Something works, with a disadvantage.
    #[must_use]
    pub fn warning(
        name: &'static str,
        expected: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, Verdict::Warning, expected, seen) }
    }

    /// Something does not work.
    #[must_use]
    pub fn failed(
        name: &'static str,
        expected: impl Into<String>,
        seen: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { remedy: Some(remedy.into()), ..Self::new(name, Verdict::Failed, expected, seen) }
    }

    /// Adds measured values.
    #[must_use]
    pub fn with_values(self, values: Value) -> Self {
        Self { values: Some(values), ..self }
    }

    /// Returns the lines for people: the result, then for anything but [`Verdict::Ok`] what was expected and what to do.
    #[must_use]
    pub fn lines(&self, paint: Paint, width: Option<usize>) -> Vec<String> {
        let (style, word) = match self.verdict {
            Verdict::Ok => (paint::GREEN, "ok"),
            Verdict::Warning => (paint::YELLOW, "warning"),
            Verdict::Failed => (paint::RED, "FAILED"),
            Verdict::Skipped => (paint::DIM, "skipped"),
        };
        let word = paint.paint(style, &format!("{word:<WORD_WIDTH$}"));
        let indent = " ".repeat(WORD_WIDTH + 2);
        let begin = format!("{word}  {:<NAME_WIDTH$}  ", self.name);
        let mut lines = hanging(&begin, WORD_WIDTH + NAME_WIDTH + 4, &self.seen, width);
        if matches!(self.verdict, Verdict::Warning | Verdict::Failed) {
            let begin = format!("{indent}expected: ");
            lines.extend(hanging(&begin, begin.len(), &self.expected, width));
        }
        if let Some(remedy) = &self.remedy {
            let begin = format!("{indent}remedy:   ");
            lines.extend(hanging(&begin, begin.len(), remedy, width));
        }
        lines
    }
}

impl Report {
    /// Returns the number of checks with a result.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.checks.iter().filter(|check| check.verdict == verdict).count()
    }

    /// Returns whether the cleanup ran and left nothing.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.checks.iter().any(|check| check.name == CLEANUP && check.verdict == Verdict::Ok)
    }

    /// Returns the last line: the number of checks by result.
    #[must_use]
    pub fn summary(&self) -> String {
        let [ok, warnings, failed, skipped] =
            [Verdict::Ok, Verdict::Warning, Verdict::Failed, Verdict::Skipped]
                .map(|verdict| self.count(verdict));
        let total = self.checks.len();
        format!("{total} checks: {ok} ok, {warnings} with a warning, {failed} failed, {skipped} skipped")
    }
}

/// Appends a text to the beginning of a line, and continues it on the next lines below its own first column.
fn hanging(begin: &str, column: usize, text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| *width >= column + TEXT_WIDTH) else {
        return vec![fit(&format!("{begin}{text}"), width)];
    };
    let options = Options::new(width - column)
        .break_words(true)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation);
    let begins = [begin.to_owned()].into_iter().chain(std::iter::repeat(" ".repeat(column)));
    begins.zip(textwrap::wrap(text, options)).map(|(begin, line)| begin + &line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAINT: Paint = Paint { colours: false, terminal: false };

    #[test]
    fn failure_shows_expectation_and_remedy() {
        let check = Check::failed("queue.visibility", "at least 180 s", "30 s", "raise it");
        let lines = check.lines(PAINT, None);
        assert_eq!(
            lines,
            [
                "FAILED    queue.visibility          30 s",
                "          expected: at least 180 s",
                "          remedy:   raise it"
            ]
        );
    }

    #[test]
    fn long_texts_continue_below_themselves() {
        let check =
            Check::failed("a.b", "it works", "one two three four five six", "do one thing after another");
        let indent = " ".repeat(36);
        let lines = check.lines(PAINT, Some(60));
        assert_eq!(
            lines[..2],
            [format!("FAILED    {:<26}one two three four five", "a.b"), format!("{indent}six")]
        );
        assert!(lines.iter().all(|line| line.len() <= 60), "{lines:?}");
    }

    #[test]
    fn seen_text_cannot_change_the_terminal() {
        let check = Check::ok("endpoint.body", "a text", "a\u{1b}[2Jb");
        assert!(!check.lines(PAINT, None)[0].contains('\u{1b}'));
    }

    #[test]
    fn summary_counts_by_result() {
        let checks = vec![Check::ok("a", "", ""), Check::skipped("b", "", ""), Check::ok("c", "", "")];
        let report = Report { deployment: "streamer".to_owned(), checks };
        assert_eq!(report.summary(), "3 checks: 2 ok, 0 with a warning, 0 failed, 1 skipped");
    }
}
