//! CloudWatch's rules for alarms: datapoints from metrics, missing data, and datapoints to alarm.
//!
//! - [Evaluation](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation.html): an alarm with a
//!   period of a minute or longer is evaluated every minute. A period of 5 min covers the minutes 1 to 5, then 2 to 6.
//! - [Evaluation window](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html):
//!   the window slides unless an alarm sets `EvaluationWindow`.
//! - [Missing data](https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarms-and-missing-data.html): an
//!   alarm looks farther back than its evaluation periods if datapoints are missing.

use std::{collections::BTreeMap, ops::Range};

use anyhow::{Context as _, ensure};

use crate::math::{Expression, Series};

/// Periods of the evaluation range beyond an alarm's evaluation periods. The page on missing data leaves the number
/// open; this is the one in its examples.
const EXTRA_PERIODS: usize = 2;

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

/// The condition of a datapoint that breaches the threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Comparison {
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

/// Topics that an alarm notifies when it enters a state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Actions {
    pub(crate) alarm: Vec<String>,
    pub(crate) ok: Vec<String>,
}

/// An alarm on a metric or an expression.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Alarm {
    pub(crate) source: Source,
    pub(crate) evaluation_periods: usize,
    pub(crate) datapoints_to_alarm: usize,
    pub(crate) comparison: Comparison,
    pub(crate) threshold: f64,
    pub(crate) missing: Missing,
    pub(crate) actions: Actions,
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

    /// Returns the values before the minute `at`, followed by those of the minutes `normal`, again and again.
    pub(crate) fn recovering(&self, at: usize, normal: Range<usize>, end: usize) -> Self {
        let of_metric = |values: &BTreeMap<usize, Vec<f64>>| {
            let source =
                |minute| if minute < at { minute } else { normal.start + (minute - at) % normal.len() };
            (0..end).filter_map(|minute| Some((minute, values.get(&source(minute))?.clone()))).collect()
        };
        Self(self.0.iter().map(|(metric, values)| (metric.clone(), of_metric(values))).collect())
    }

    /// Returns whether one of the metrics has values.
    pub(crate) fn have_any(&self, queries: &[&Query]) -> bool {
        queries.iter().any(|query| self.0.contains_key(&query.metric))
    }

    /// Returns the datapoint of the minutes from `from` up to, not including, `to`.
    fn datapoint(&self, query: &Query, from: usize, to: usize) -> Option<f64> {
        let values = self.0.get(&query.metric)?.range(from.min(to)..to);
        let values = values.flat_map(|(_, values)| values.iter().copied());
        match query.statistic.as_str() {
            "Sum" => values.reduce(|sum, value| sum + value),
            "Maximum" => values.reduce(f64::max),
            "Minimum" => values.reduce(f64::min),
            "Average" => {
                let (sum, count) = values.fold((0.0, 0.0), |(sum, count), value| (sum + value, count + 1.0));
                (count > 0.0).then(|| sum / count)
            }
            percentile => {
                let percent: f64 = percentile.strip_prefix('p')?.parse().ok()?;
                let mut values: Vec<f64> = values.collect();
                let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
                let index = rank.max(1) - 1;
                let in_order = (index < values.len()).then_some(&mut values)?;
                Some(*in_order.select_nth_unstable_by(index, f64::total_cmp).1)
            }
        }
    }
}

/// A metric's datapoints, by the minute in which their periods end.
struct Datapoints<'a> {
    values: &'a Values,
    query: &'a Query,
    /// Datapoints whose values have all arrived.
    whole: Series,
}

impl<'a> Datapoints<'a> {
    fn of(values: &'a Values, query: &'a Query, end: usize) -> Self {
        let whole = (0..end).map(|end| values.datapoint(query, end.saturating_sub(query.period), end));
        Self { values, query, whole: whole.collect() }
    }

    /// Returns the last `number` datapoints at a minute, of the values before the minute `arrived`.
    fn range(&self, minute: usize, arrived: usize, number: usize) -> Series {
        let ends = (0..number).rev().map(|before| minute.saturating_sub(before * self.query.period));
        let datapoint = |end: usize| match end <= arrived {
            true => self.whole[end],
            false => self.values.datapoint(self.query, end.saturating_sub(self.query.period), arrived),
        };
        ends.map(datapoint).collect()
    }
}

impl Source {
    /// Returns the metrics' queries.
    pub(crate) fn queries(&self) -> Vec<&Query> {
        match self {
            Self::Metric(query) => vec![query],
            Self::Math { queries, .. } => queries.values().collect(),
        }
    }

    /// Returns the metrics' queries.
    pub(crate) fn queries_mut(&mut self) -> Vec<&mut Query> {
        match self {
            Self::Metric(query) => vec![query],
            Self::Math { queries, .. } => queries.values_mut().collect(),
        }
    }
}

impl Alarm {
    /// Returns the state at each minute up to, not including, `end`, if values arrive `late` minutes late.
    pub(crate) fn states(&self, values: &Values, late: usize, end: usize) -> anyhow::Result<Vec<State>> {
        let number = self.evaluation_periods + EXTRA_PERIODS;
        let ranges: Box<dyn Fn(usize) -> anyhow::Result<Series>> = match &self.source {
            Source::Metric(query) => {
                let datapoints = Datapoints::of(values, query, end);
                Box::new(move |minute| Ok(datapoints.range(minute, minute.saturating_sub(late), number)))
            }
            Source::Math { queries, expression } => {
                let mut periods = queries.values().map(|query| query.period);
                let first = periods.next().context("an expression without metrics")?;
                ensure!(periods.all(|period| period == first), "the periods differ");
                let of = |(id, query)| (id, Datapoints::of(values, query, end));
                let datapoints: BTreeMap<&String, _> = queries.iter().map(of).collect();
                let expression = Expression::parse(expression)?;
                Box::new(move |minute| {
                    let of = |datapoints: &Datapoints<'_>| {
                        datapoints.range(minute, minute.saturating_sub(late), number)
                    };
                    expression.evaluate(number, &|id| datapoints.get(&id.to_owned()).map(of))
                })
            }
        };
        let mut state = State::InsufficientData;
        (0..end)
            .map(|minute| {
                state = self.state(&ranges(minute)?, state);
                Ok(state)
            })
            .collect()
    }

    fn is_breaching(&self, value: f64) -> bool {
        match self.comparison {
            Comparison::Greater => value > self.threshold,
            Comparison::GreaterOrEqual => value >= self.threshold,
            Comparison::Less => value < self.threshold,
            Comparison::LessOrEqual => value <= self.threshold,
        }
    }

    /// Returns the state after an evaluation of the datapoints in the evaluation range, the oldest first.
    fn state(&self, range: &[Option<f64>], before: State) -> State {
        let is_breaching = |point: &Option<f64>| point.is_some_and(|value| self.is_breaching(value));
        let evaluated = range.iter().rev().filter(|point| point.is_some()).take(self.evaluation_periods);
        let missing = self.evaluation_periods - evaluated.clone().count();
        let breaching = evaluated.clone().filter(|point| is_breaching(point)).count();
        // A breaching datapoint that has been followed by missing ones for long enough.
        let is_premature = range.iter().flatten().all(|value| self.is_breaching(*value))
            && range.iter().rev().skip(self.datapoints_to_alarm - 1).any(is_breaching);
        let is_empty = missing == self.evaluation_periods;
        let is_alarm = match self.missing {
            _ if missing == 0 => breaching >= self.datapoints_to_alarm,
            Missing::Ignore if is_empty || is_premature => return before,
            Missing::Unknown if is_empty => return State::InsufficientData,
            Missing::Unknown if is_premature => true,
            Missing::Breaching => breaching + missing >= self.datapoints_to_alarm,
            _ => breaching >= self.datapoints_to_alarm,
        };
        if is_alarm { State::Alarm } else { State::Ok }
    }
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
            comparison: Comparison::Greater,
            threshold: 1.0,
            missing: Missing::NotBreaching,
            actions: Actions { alarm: Vec::new(), ok: Vec::new() },
        }
    }

    fn values(values: &[(usize, f64)]) -> Values {
        let mut written = Values::default();
        values.iter().for_each(|(minute, value)| written.add(Metric::test(), *minute, *value));
        written
    }

    /// Values of 0 in all minutes without another one.
    fn dense(sparse: &[(usize, f64)]) -> Values {
        let mut written = values(sparse);
        for minute in (0..12).filter(|minute| sparse.iter().all(|(other, _)| other != minute)) {
            written.add(Metric::test(), minute, 0.0);
        }
        written
    }

    /// The minutes at whose beginning the alarm is in alarm.
    fn alarmed(alarm: &Alarm, values: &Values, late: usize) -> Vec<usize> {
        let states = alarm.states(values, late, 12).unwrap();
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
        let written = dense(&[(2, 5.0), (4, 5.0), (5, 1.0)]);
        assert_eq!(alarmed(&alarm("Sum", 1, 1, 1), &written, 0), [3, 5]);
        assert_eq!(alarmed(&alarm("Sum", 1, 3, 2), &written, 0), [5]);
        assert_eq!(alarmed(&alarm("Sum", 1, 2, 2), &written, 0), [0_usize; 0]);
        assert_eq!(alarmed(&alarm("Sum", 1, 4, 1), &written, 0), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn window_slides_each_minute() {
        let written = dense(&[(4, 5.0)]);
        assert_eq!(alarmed(&alarm("Sum", 5, 1, 1), &written, 0), [5, 6, 7, 8, 9]);
        assert_eq!(alarmed(&alarm("Sum", 3, 2, 1), &written, 0), [5, 6, 7, 8, 9, 10]);
        assert_eq!(alarmed(&alarm("Sum", 5, 1, 1), &dense(&[(2, 1.0), (6, 1.0)]), 0), [7]);
    }

    #[test]
    fn late_values_are_seen_later() {
        let written = dense(&[(4, 5.0)]);
        assert_eq!(alarmed(&alarm("Sum", 1, 1, 1), &written, 2), [7]);
        assert_eq!(alarmed(&alarm("Sum", 5, 1, 1), &written, 2), [7, 8, 9]);
    }

    #[test]
    fn datapoints_are_compared_with_threshold() {
        let written = dense(&[(2, 1.0), (3, 2.0)]);
        let of = |comparison| alarmed(&Alarm { comparison, ..alarm("Sum", 1, 1, 1) }, &written, 0);
        assert_eq!((of(Comparison::Greater), of(Comparison::GreaterOrEqual)), (vec![4], vec![3, 4]));
        assert_eq!(of(Comparison::Less), [1, 2, 5, 6, 7, 8, 9, 10, 11]);
        assert_eq!(of(Comparison::LessOrEqual), [1, 2, 3, 5, 6, 7, 8, 9, 10, 11]);
    }

    /// The two tables of the page on missing data: the datapoints, and the states if missing data is treated as missing,
    /// ignored, breaching, and not breaching. `R` retains the state.
    #[test]
    fn missing_data_is_treated_as_documented() {
        let treatments = [Missing::Unknown, Missing::Ignore, Missing::Breaching, Missing::NotBreaching];
        for (datapoints_to_alarm, points, expected) in [
            (3, "0-X-X", "OOOO"),
            (3, "0----", "OOOO"),
            (3, "-----", "IRAO"),
            (3, "0XX-X", "AAAA"),
            (3, "--X--", "ARAO"),
            (2, "0-X-X", "AAAA"),
            (2, "00X0X", "AAAA"),
            (2, "0-X--", "OOAO"),
            (2, "----0", "OOAO"),
            (2, "---X-", "ARAO"),
        ] {
            let range = points.chars().map(|point| match point {
                '-' => None,
                point => Some(if point == 'X' { 5.0 } else { 0.0 }),
            });
            let range: Series = range.collect();
            for (missing, expected) in treatments.into_iter().zip(expected.chars()) {
                let alarm = Alarm { missing, ..alarm("Sum", 1, 3, datapoints_to_alarm) };
                for before in [State::Ok, State::Alarm] {
                    let expected = match expected {
                        'A' => State::Alarm,
                        'I' => State::InsufficientData,
                        'R' => before,
                        _ => State::Ok,
                    };
                    assert_eq!(alarm.state(&range, before), expected, "{points}: {missing:?}");
                }
            }
        }
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
}
