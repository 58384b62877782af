//! CloudWatch's rules for alarms: datapoints from metrics, missing data, datapoints to alarm, and composite alarms.
//!
//! Sources: <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html>,
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html> and
//! <https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutCompositeAlarm.html>.
//!
//! A period begins at a multiple of its length, plus a `phase` in minutes that tests vary, and an alarm is evaluated at
//! the end of each period.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail, ensure};

use crate::math::{self, Series};

/// A metric: namespace, name, and dimensions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Metric {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) dimensions: BTreeMap<String, String>,
}

/// The values that were written, by metric and minute.
#[derive(Debug, Clone, Default)]
pub(crate) struct Values(BTreeMap<Metric, BTreeMap<usize, Vec<f64>>>);

/// A metric's datapoints: their statistic, and their period in minutes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Query {
    pub(crate) metric: Metric,
    pub(crate) statistic: String,
    pub(crate) period: usize,
}

/// The datapoints that an alarm compares with its threshold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    Metric(Query),
    Math { queries: BTreeMap<String, Query>, expression: String },
}

/// Treatment of missing datapoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Breaching,
    NotBreaching,
    Ignore,
    Unknown,
}

/// An alarm on a metric or an expression that is in alarm above its threshold.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) source: Source,
    pub(crate) evaluation_periods: usize,
    pub(crate) datapoints_to_alarm: usize,
    pub(crate) threshold: f64,
    pub(crate) missing: Missing,
    /// Whether it notifies people.
    pub(crate) notifies: bool,
}

/// An alarm on other alarms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Composite {
    pub(crate) rule: String,
    pub(crate) notifies: bool,
}

/// A state of an alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Ok,
    Alarm,
    InsufficientData,
}

impl Values {
    /// Adds a value that was written in this minute.
    pub(crate) fn add(&mut self, metric: Metric, minute: usize, value: f64) {
        self.0.entry(metric).or_default().entry(minute).or_default().push(value);
    }

    /// Returns the metrics that have values.
    pub(crate) fn metrics(&self) -> impl Iterator<Item = &Metric> {
        self.0.keys()
    }

    /// Returns the datapoint of the minutes from `from` up to, not including, `to`.
    fn datapoint(&self, query: &Query, from: usize, to: usize) -> Option<f64> {
        let values = self.0.get(&query.metric)?.range(from..to);
        let mut values: Vec<f64> = values.flat_map(|(_, values)| values.iter().copied()).collect();
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        match query.statistic.as_str() {
            "Sum" => Some(values.iter().sum()),
            "Maximum" => values.last().copied(),
            "Minimum" => values.first().copied(),
            "Average" => Some(values.iter().sum::<f64>() / values.len() as f64),
            percentile => {
                let percent: f64 = percentile.strip_prefix('p')?.parse().ok()?;
                let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
                values.get(rank.clamp(1, values.len()) - 1).copied()
            }
        }
    }
}

impl Source {
    /// Returns the period in minutes. All metrics of an expression have the same one.
    pub(crate) fn period(&self) -> anyhow::Result<usize> {
        match self {
            Self::Metric(query) => Ok(query.period),
            Self::Math { queries, .. } => {
                let mut periods = queries.values().map(|query| query.period);
                let first = periods.next().context("an expression without metrics")?;
                ensure!(periods.all(|period| period == first), "the periods differ");
                Ok(first)
            }
        }
    }

    /// Returns the last `number` datapoints before the minute `end`.
    fn datapoints(&self, values: &Values, end: usize, number: usize) -> anyhow::Result<Series> {
        let period = self.period()?;
        let of = |query: &Query, number: usize| -> Series {
            let ends = (0..number).rev().map(|before| end.saturating_sub(before * period));
            ends.map(|end| values.datapoint(query, end.saturating_sub(period), end)).collect()
        };
        match self {
            Self::Metric(query) => Ok(of(query, number)),
            Self::Math { queries, expression } => {
                // One more, for functions that look at the datapoint before.
                let series = |id: &str| queries.get(id).map(|query| of(query, number + 1));
                Ok(math::evaluate(expression, number + 1, &series)?.split_off(1))
            }
        }
    }
}

impl Alarm {
    /// Returns the state at the end of each minute up to, not including, `end`: the state at the index 3 is known 3 min
    /// after the start.
    pub(crate) fn states(&self, values: &Values, phase: usize, end: usize) -> anyhow::Result<Vec<State>> {
        let period = self.source.period()?;
        let mut state = State::InsufficientData;
        (0..end)
            .map(|minute| {
                if minute % period == phase % period {
                    let datapoints = self.source.datapoints(values, minute, self.evaluation_periods)?;
                    state = self.state(&datapoints, state);
                }
                Ok(state)
            })
            .collect()
    }

    fn state(&self, datapoints: &[Option<f64>], before: State) -> State {
        let existing = datapoints.iter().flatten();
        let breaching = existing.clone().filter(|value| **value > self.threshold).count();
        let missing = datapoints.len() - existing.count();
        match self.missing {
            Missing::Ignore if missing == datapoints.len() => before,
            Missing::Unknown if missing == datapoints.len() => State::InsufficientData,
            Missing::Breaching if breaching + missing >= self.datapoints_to_alarm => State::Alarm,
            _ if breaching >= self.datapoints_to_alarm => State::Alarm,
            _ => State::Ok,
        }
    }
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

    fn query(statistic: &str, period: usize) -> Query {
        Query { metric: Metric::test(), statistic: statistic.to_owned(), period }
    }

    impl Metric {
        fn test() -> Self {
            Self { namespace: "N".to_owned(), name: "M".to_owned(), dimensions: BTreeMap::new() }
        }
    }

    fn alarm(statistic: &str, period: usize, evaluation_periods: usize, datapoints_to_alarm: usize) -> Alarm {
        Alarm {
            source: Source::Metric(query(statistic, period)),
            evaluation_periods,
            datapoints_to_alarm,
            threshold: 1.0,
            missing: Missing::NotBreaching,
            notifies: true,
        }
    }

    fn values(values: &[(usize, f64)]) -> Values {
        let mut written = Values::default();
        values.iter().for_each(|(minute, value)| written.add(Metric::test(), *minute, *value));
        written
    }

    /// The minutes at whose beginning the alarm is in alarm.
    fn alarmed(alarm: &Alarm, values: &Values, phase: usize) -> Vec<usize> {
        let states = alarm.states(values, phase, 12).unwrap();
        (0..12).filter(|minute| states[*minute] == State::Alarm).collect()
    }

    #[test]
    fn statistics_aggregate_a_period() {
        let written = values(&[(0, 4.0), (0, 1.0), (1, 3.0), (5, 9.0)]);
        let of = |statistic: &str| written.datapoint(&query(statistic, 5), 0, 5);
        assert_eq!(["Sum", "Maximum", "Minimum"].map(of), [8.0, 4.0, 1.0].map(Some));
        assert_eq!((of("p50"), of("p99"), of("p0")), (Some(3.0), Some(4.0), Some(1.0)));
        assert_eq!(written.datapoint(&query("Average", 5), 1, 6), Some(6.0));
        assert_eq!(written.datapoint(&query("Sum", 5), 2, 5), None);
    }

    #[test]
    fn alarm_needs_m_of_n_datapoints() {
        let written = values(&[(2, 5.0), (4, 5.0), (5, 1.0)]);
        assert_eq!(alarmed(&alarm("Sum", 1, 1, 1), &written, 0), [3, 5]);
        assert_eq!(alarmed(&alarm("Sum", 1, 3, 2), &written, 0), [5]);
        assert_eq!(alarmed(&alarm("Sum", 1, 2, 2), &written, 0), [0_usize; 0]);
        assert_eq!(alarmed(&alarm("Sum", 1, 4, 1), &written, 0), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn periods_begin_at_their_phase() {
        let written = values(&[(4, 5.0)]);
        assert_eq!(alarmed(&alarm("Sum", 5, 1, 1), &written, 0), [5, 6, 7, 8, 9]);
        assert_eq!(alarmed(&alarm("Sum", 5, 1, 1), &written, 4), [9, 10, 11]);
    }

    #[test]
    fn missing_data_is_treated_as_configured() {
        let written = values(&[(2, 5.0), (4, 1.0)]);
        let treated = |missing| alarmed(&Alarm { missing, ..alarm("Sum", 1, 1, 1) }, &written, 0);
        assert_eq!(treated(Missing::NotBreaching), [3]);
        assert_eq!(treated(Missing::Ignore), [3, 4]);
        assert_eq!(treated(Missing::Breaching), [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]);
        let states =
            Alarm { missing: Missing::Unknown, ..alarm("Sum", 1, 1, 1) }.states(&written, 0, 6).unwrap();
        let none = State::InsufficientData;
        assert_eq!(states, [none, none, none, State::Alarm, none, State::Ok]);
    }

    /// An alarm on a difference sees growth, and not a level that stays.
    #[test]
    fn expression_is_compared_with_threshold() {
        let depth = [(3, 2.0), (4, 2.0), (5, 4.0), (6, 4.0)];
        let queries = BTreeMap::from([("depth".to_owned(), query("Maximum", 1))]);
        let expression = "DIFF(FILL(depth, 0))".to_owned();
        let grows = Alarm { source: Source::Math { queries, expression }, ..alarm("", 1, 1, 1) };
        assert_eq!(alarmed(&grows, &values(&depth), 0), [4, 6]);
    }

    #[test]
    fn composite_rules_combine_alarms() {
        let holds = |rule: &str| {
            let composite = Composite { rule: rule.to_owned(), notifies: true };
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
