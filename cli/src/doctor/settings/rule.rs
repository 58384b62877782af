//! A rule that a deployment follows or breaks.

use crate::doctor::{Check, Verdict};

/// A rule: the name of its check, and the texts for people.
#[derive(Debug)]
pub(super) struct Rule {
    name: &'static str,
    expected: String,
    remedy: String,
}

impl Rule {
    pub(super) fn new(name: &'static str, expected: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, expected: expected.into(), remedy: remedy.into() }
    }

    pub(super) fn ok(self, seen: impl Into<String>) -> Check {
        Check::ok(self.name, self.expected, seen)
    }

    pub(super) fn warning(self, seen: impl Into<String>) -> Check {
        Check::warning(self.name, self.expected, seen, self.remedy)
    }

    pub(super) fn failed(self, seen: impl Into<String>) -> Check {
        Check::failed(self.name, self.expected, seen, self.remedy)
    }

    pub(super) fn skipped(self, reason: impl Into<String>) -> Check {
        Check::skipped(self.name, self.expected, reason)
    }

    /// A deployment that breaks the rule does not work, or loses messages.
    pub(super) fn require(self, holds: bool, seen: impl Into<String>) -> Check {
        if holds { self.ok(seen) } else { self.failed(seen) }
    }

    /// A deployment that breaks the rule works, with a disadvantage.
    pub(super) fn prefer(self, holds: bool, seen: impl Into<String>) -> Check {
        if holds { self.ok(seen) } else { self.warning(seen) }
    }

    /// Returns the check of several parts: the result is that of the worst, and the text names each part that breaks the
    /// rule. Without any, it is `fine`.
    pub(super) fn worst(self, parts: Vec<(Verdict, String)>, fine: impl Into<String>) -> Check {
        let failed = parts.iter().any(|(verdict, _)| *verdict == Verdict::Failed);
        if parts.is_empty() {
            return self.ok(fine);
        }
        let seen = parts.into_iter().map(|(_, seen)| seen).collect::<Vec<_>>().join("; ");
        if failed { self.failed(seen) } else { self.warning(seen) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Rule {
        Rule::new("queue.exists", "a queue", "create it")
    }

    #[test]
    fn worst_part_decides() {
        let part = |verdict, text: &str| (verdict, text.to_owned());
        let check = rule().worst(vec![part(Verdict::Warning, "a"), part(Verdict::Failed, "b")], "fine");
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Failed, "a; b"));
        let check = rule().worst(vec![part(Verdict::Warning, "a")], "fine");
        assert_eq!((check.verdict, check.remedy.as_deref()), (Verdict::Warning, Some("create it")));
        let check = rule().worst(Vec::new(), "fine");
        assert_eq!((check.verdict, check.seen.as_str(), check.remedy), (Verdict::Ok, "fine", None));
    }
}
