//! Faulty alarms: definitions with one change each.

use crate::{
    cloudwatch::{Alarm, Comparison, Missing, Source},
    composite::Composite,
    definitions::{Definitions, TOPIC},
    math,
};

/// Definitions with one change.
pub(crate) struct Mutant {
    /// The alarm's name.
    pub(crate) alarm: String,
    pub(crate) change: String,
    pub(crate) definitions: Definitions,
}

const STATISTICS: [&str; 6] = ["Sum", "Average", "Maximum", "Minimum", "p50", "p99"];

/// Mutants that no value can tell from the definitions: a reason, alarms, and how their changes begin.
pub(crate) const EQUIVALENT: [(&str, &[&str], &[&str]); 8] = [
    (
        "the mean and the maximum of counts are above zero if their sum is",
        &[
            "connect-errors",
            "connect-throttles",
            "delivery-errors",
            "delivery-throttles",
            "disconnect-errors",
            "disconnect-throttles",
            "mailbox-errors",
            "mailbox-throttles",
        ],
        &["Average of", "Maximum of", "p99 of"],
    ),
    (
        "no zeros are written, so each statistic of counts is above zero",
        &["circuit-opened", "elsewhere", "failed-connects", "receipts-handed-back"],
        &["Average of", "Maximum of", "Minimum of", "p50 of", "p99 of"],
    ),
    (
        "no zeros are written, so zero is the lowest threshold",
        &["circuit-opened", "elsewhere", "receipts-handed-back"],
        &["threshold lowered", "threshold always reached", "comparison GreaterOrEqual"],
    ),
    (
        "SQS writes one value a minute",
        &["oldest-message", "receipts-unread"],
        &["Sum of", "Average of", "Minimum of", "p50 of", "p99 of"],
    ),
    (
        "FILL leaves no datapoint missing",
        &["dead-letters", "failed-connects", "failed-syncs", "refused-connects", "undelivered"],
        &["missing data as"],
    ),
    (
        "one client or message more or less changes no share that counts",
        &["delivery-latency", "failed-syncs", "refused-connects", "undelivered"],
        &["1 for 0 at"],
    ),
    (
        "letters stay visible or hidden for most of a period",
        &["dead-letters"],
        &[
            "p50 of ApproximateNumberOfMessagesVisible",
            "p99 of ApproximateNumberOfMessagesVisible",
            "Average of ApproximateNumberOfMessagesNotVisible",
            "Minimum of ApproximateNumberOfMessagesNotVisible",
            "p50 of ApproximateNumberOfMessagesNotVisible",
            "p99 of ApproximateNumberOfMessagesNotVisible",
        ],
    ),
    (
        "a letter that is there for two periods cancels the filled datapoint",
        &["dead-letters"],
        &["1 for 0 at 13", "Sum of ApproximateNumberOfMessagesNotVisible"],
    ),
];

/// Returns all mutants.
pub(crate) fn mutants(definitions: &Definitions) -> Vec<Mutant> {
    let mut mutants = Vec::new();
    let mut add = |name: &str, change: &str, mutated: Definitions| {
        mutants.push(Mutant { alarm: name.to_owned(), change: change.to_owned(), definitions: mutated });
    };
    for (name, alarm) in &definitions.alarms {
        for (change, mutated) in of_alarm(alarm) {
            let mut definitions = definitions.clone();
            definitions.alarms.insert(name.clone(), mutated);
            add(name, &change, definitions);
        }
        let mut definitions = definitions.clone();
        definitions.alarms.remove(name);
        add(name, "removed", definitions);
    }
    for (name, composite) in &definitions.composites {
        for (change, mutated) in of_composite(composite) {
            let mut definitions = definitions.clone();
            definitions.composites.insert(name.clone(), mutated);
            add(name, &change, definitions);
        }
        let mut definitions = definitions.clone();
        definitions.composites.remove(name);
        add(name, "removed", definitions);
    }
    mutants
}

fn of_alarm(alarm: &Alarm) -> Vec<(String, Alarm)> {
    let mut mutants = Vec::new();
    let mut add = |change: String, mutate: &dyn Fn(&mut Alarm)| {
        let mut mutated = alarm.clone();
        mutate(&mut mutated);
        if mutated != *alarm {
            mutants.push((change, mutated));
        }
    };
    let (number, needed, threshold) = (alarm.evaluation_periods, alarm.datapoints_to_alarm, alarm.threshold);
    let (raised, lowered) = if threshold == 0.0 { (1.0, -1.0) } else { (threshold * 2.0, threshold / 2.0) };
    for (change, threshold) in [
        ("threshold raised", raised),
        ("threshold lowered", lowered),
        ("threshold never reached", f64::MAX),
        ("threshold always reached", f64::MIN),
    ] {
        add(change.to_owned(), &|alarm| alarm.threshold = threshold);
    }
    for (periods, datapoints) in [
        (number + 1, needed),
        (number * 3, needed),
        (number + 1, needed + 1),
        (number.max(needed + 1), needed + 1),
        (number, number),
        (number.saturating_sub(1).max(1), needed.min(number - 1).max(1)),
        (number, 1),
    ] {
        add(format!("{datapoints} of {periods} datapoints"), &|alarm| {
            (alarm.evaluation_periods, alarm.datapoints_to_alarm) = (periods, datapoints);
        });
    }
    for missing in [Missing::Breaching, Missing::NotBreaching, Missing::Ignore, Missing::Unknown] {
        add(format!("missing data as {missing:?}"), &|alarm| alarm.missing = missing);
    }
    for comparison in
        [Comparison::Greater, Comparison::GreaterOrEqual, Comparison::Less, Comparison::LessOrEqual]
    {
        add(format!("comparison {comparison:?}"), &|alarm| alarm.comparison = comparison);
    }
    add("period x3".to_owned(), &|alarm| {
        alarm.source.queries_mut().into_iter().for_each(|query| query.period *= 3);
    });
    add("alarm_actions toggled".to_owned(), &|alarm| toggle(&mut alarm.actions.alarm));
    add("ok_actions toggled".to_owned(), &|alarm| toggle(&mut alarm.actions.ok));
    add("another topic".to_owned(), &|alarm| {
        alarm.actions.alarm.iter_mut().for_each(|topic| topic.push('X'));
    });
    for (index, query) in alarm.source.clone().queries_mut().into_iter().enumerate() {
        let metric = &query.metric;
        for statistic in STATISTICS {
            add(format!("{statistic} of {}", metric.name), &|alarm| {
                statistic.clone_into(&mut alarm.source.queries_mut()[index].statistic);
            });
        }
        add(format!("{} renamed", metric.name), &|alarm| {
            alarm.source.queries_mut()[index].metric.name.push('X');
        });
        add(format!("namespace of {}", metric.name), &|alarm| {
            alarm.source.queries_mut()[index].metric.namespace.push('X');
        });
        for dimension in metric.dimensions.keys() {
            add(format!("{dimension} of {}", metric.name), &|alarm| {
                let dimensions = &mut alarm.source.queries_mut()[index].metric.dimensions;
                dimensions.entry(dimension.clone()).or_default().push('X');
            });
            add(format!("{} without {dimension}", metric.name), &|alarm| {
                alarm.source.queries_mut()[index].metric.dimensions.remove(dimension);
            });
        }
    }
    if let Source::Math { expression, .. } = &alarm.source {
        for (change, changed) in of_expression(expression) {
            add(change, &|alarm| {
                if let Source::Math { expression, .. } = &mut alarm.source {
                    changed.clone_into(expression);
                }
            });
        }
    }
    mutants
}

fn toggle(topics: &mut Vec<String>) {
    if topics.pop().is_none() {
        topics.push(TOPIC.to_owned());
    }
}

/// Changes each number and operator.
fn of_expression(expression: &str) -> Vec<(String, String)> {
    let tokens = math::tokens(expression).unwrap();
    let mut mutants = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let others: Vec<String> = match token.as_str() {
            ">=" => vec![">".to_owned(), "<".to_owned()],
            ">" => vec![">=".to_owned(), "<".to_owned()],
            "OR" => vec!["AND".to_owned()],
            "AND" => vec!["OR".to_owned()],
            "+" => vec!["-".to_owned()],
            "*" => vec!["/".to_owned()],
            "/" => vec!["*".to_owned()],
            "REPEAT" => vec!["0".to_owned()],
            "0" => vec!["1".to_owned()],
            number => number.parse().map_or_else(
                |_| Vec::new(),
                |number: f64| vec![(number * 2.0).to_string(), (number / 2.0).to_string()],
            ),
        };
        for other in others {
            let mut changed = tokens.clone();
            changed[index].clone_from(&other);
            mutants.push((format!("{other} for {token} at {index}"), changed.join(" ")));
        }
    }
    mutants
}

fn of_composite(composite: &Composite) -> Vec<(String, Composite)> {
    let parts: Vec<_> = composite.rule.split(" OR ").collect();
    let mut rules: Vec<_> = (0..parts.len())
        .map(|left_out| {
            let rest = parts.iter().enumerate().filter(|(index, _)| *index != left_out);
            rest.map(|(_, part)| *part).collect::<Vec<_>>().join(" OR ")
        })
        .collect();
    rules.push(parts.join(" AND "));
    rules.push(format!("NOT ({})", composite.rule));
    let rules = rules.into_iter().map(|rule| (rule.clone(), Composite { rule, ..composite.clone() }));
    let mut mutants: Vec<_> = rules.collect();
    let (mut silent, mut endless) = (composite.clone(), composite.clone());
    toggle(&mut silent.actions.alarm);
    toggle(&mut endless.actions.ok);
    mutants.push(("alarm_actions toggled".to_owned(), silent));
    mutants.push(("ok_actions toggled".to_owned(), endless));
    mutants
}
