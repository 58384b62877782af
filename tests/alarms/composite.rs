//! Composite alarms, and their rules:
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html>.

use anyhow::{Context as _, bail, ensure};

use crate::cloudwatch::Actions;

/// An alarm on other alarms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Composite {
    pub(crate) rule: String,
    pub(crate) actions: Actions,
}

impl Composite {
    /// Returns whether the rule holds for the alarms of which `is_in_alarm` returns true.
    pub(crate) fn holds(&self, is_in_alarm: &dyn Fn(&str) -> anyhow::Result<bool>) -> anyhow::Result<bool> {
        let (holds, rest) = disjunction(&self.rule, is_in_alarm)?;
        ensure!(rest.is_empty(), "`{rest}` is left of a rule");
        Ok(holds)
    }
}

type IsInAlarm<'a> = &'a dyn Fn(&str) -> anyhow::Result<bool>;

fn disjunction<'a>(rule: &'a str, is_in_alarm: IsInAlarm<'_>) -> anyhow::Result<(bool, &'a str)> {
    let (mut holds, mut rest) = conjunction(rule, is_in_alarm)?;
    while let Some(after) = rest.strip_prefix("OR ") {
        let (right, after) = conjunction(after.trim_start(), is_in_alarm)?;
        (holds, rest) = (holds || right, after);
    }
    Ok((holds, rest))
}

fn conjunction<'a>(rule: &'a str, is_in_alarm: IsInAlarm<'_>) -> anyhow::Result<(bool, &'a str)> {
    let (mut holds, mut rest) = negation(rule, is_in_alarm)?;
    while let Some(after) = rest.strip_prefix("AND ") {
        let (right, after) = negation(after.trim_start(), is_in_alarm)?;
        (holds, rest) = (holds && right, after);
    }
    Ok((holds, rest))
}

fn negation<'a>(rule: &'a str, is_in_alarm: IsInAlarm<'_>) -> anyhow::Result<(bool, &'a str)> {
    if let Some(after) = rule.strip_prefix("NOT ") {
        let (holds, rest) = negation(after.trim_start(), is_in_alarm)?;
        return Ok((!holds, rest));
    }
    if let Some(inner) = rule.strip_prefix('(') {
        let (holds, rest) = disjunction(inner.trim_start(), is_in_alarm)?;
        let rest = rest.strip_prefix(')').context("a parenthesis is open")?;
        return Ok((holds, rest.trim_start()));
    }
    let Some((name, rest)) = rule.strip_prefix("ALARM(\"").and_then(|rule| rule.split_once("\")")) else {
        bail!("`{rule}` is no rule");
    };
    Ok((is_in_alarm(name)?, rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composite_rules_combine_alarms() {
        let holds = |rule: &str| {
            let actions = Actions { alarm: Vec::new(), ok: Vec::new() };
            let composite = Composite { rule: rule.to_owned(), actions };
            composite.holds(&|name| Ok(name == "on"))
        };
        for (rule, expected) in [
            (r#"ALARM("on")"#, true),
            (r#"ALARM("off") OR ALARM("on")"#, true),
            (r#"ALARM("off") AND ALARM("on") OR ALARM("off")"#, false),
            (r#"NOT ALARM("off") AND (ALARM("off") OR ALARM("on"))"#, true),
        ] {
            assert_eq!(holds(rule).unwrap(), expected, "{rule}");
        }
        for rule in ["", "OK(\"on\")", r#"(ALARM("on")"#, r#"ALARM("on") ALARM("on")"#] {
            assert!(holds(rule).is_err(), "{rule}");
        }
    }
}
