//! The alarms of `infra/alarms.tf` against every way in which delivery can stop.
//!
//! Real workers and connect handlers run for an hour of virtual time ([`world`], [`connects`]), each run with one stop
//! ([`stops`]). The alarms' definitions are evaluated from Terraform ([`definitions`]) against the metrics of the run,
//! by CloudWatch's rules ([`cloudwatch`], [`math`]). [`traffic`] has the messages, and [`written`] collects the metrics. CloudWatch's own delay, about a minute, is not included.
//!
//! `docs/operations.md` has the table of stops and alarms. To write it, run
//! `UPDATE_ALARMS=1 cargo test -p streamer-tests --test alarms`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloudwatch;
mod connects;
mod definitions;
mod math;
mod stops;
mod traffic;
mod world;
mod written;

use std::{collections::BTreeMap, fs};

use streamer_cli::paths;
use streamer_telemetry::NAMESPACE;

use crate::{
    cloudwatch::{Alarm, Missing, Query, Source, State, Values},
    definitions::{DEAD_LETTERS, Definitions},
    stops::{Extent, PLAYED},
    world::{END, STOP},
    written::of_queue,
};

/// Minutes at which the periods of 5 min may begin.
const PHASES: usize = 5;

/// The heading above the table in the page.
const HEADING: &str = "### Stops and their alarms";

/// The minutes in which an alarm is in alarm, for each phase.
type Minutes = [Vec<usize>; PHASES];

/// Returns when an alarm or a composite alarm is in alarm.
fn alarmed(definitions: &Definitions, name: &str, values: &Values) -> Minutes {
    std::array::from_fn(|phase| in_alarm(definitions, name, values, phase))
}

fn in_alarm(definitions: &Definitions, name: &str, values: &Values, phase: usize) -> Vec<usize> {
    if let Some(alarm) = definitions.alarms.get(name) {
        let states = alarm.states(values, phase, END).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        return (0..END).filter(|minute| states[*minute] == State::Alarm).collect();
    }
    let composite = &definitions.composites[name];
    let children: BTreeMap<&String, Vec<usize>> =
        definitions.alarms.keys().map(|child| (child, in_alarm(definitions, child, values, phase))).collect();
    let holds = |minute: usize| {
        let is_in_alarm = |child: &str| Ok(children[&child.to_owned()].contains(&minute));
        composite.holds(&is_in_alarm).unwrap_or_else(|error| panic!("{name}: {error:?}"))
    };
    (0..END).filter(|minute| holds(*minute)).collect()
}

/// Returns the minutes from the stop to the alarm in the worst phase; `None` if a phase has no alarm.
fn delay(minutes: &Minutes) -> Option<usize> {
    let first =
        |minutes: &Vec<usize>| minutes.iter().find(|minute| **minute >= STOP).map(|minute| minute - STOP);
    minutes.iter().map(first).collect::<Option<Vec<_>>>()?.into_iter().max()
}

fn notifying(definitions: &Definitions) -> Vec<&str> {
    let alarms = definitions.alarms.iter().filter(|(_, alarm)| alarm.notifies).map(|(name, _)| name.as_str());
    let composites = definitions.composites.iter().filter(|(_, composite)| composite.notifies);
    alarms.chain(composites.map(|(name, _)| name.as_str())).collect()
}

/// Returns the alarms that notify people of a run, and after how many minutes, the first first.
fn notifications<'a>(definitions: &'a Definitions, values: &Values) -> Vec<(usize, &'a str)> {
    let delays = notifying(definitions).into_iter();
    let delays = delays.filter_map(|name| Some((delay(&alarmed(definitions, name, values))?, name)));
    let mut delays: Vec<_> = delays.collect();
    delays.sort_unstable();
    delays
}

/// Within 10 min for a total stop, 15 min for a half or less, and 20 min if messages are only late.
#[test]
fn every_stop_raises_an_alarm_in_time() {
    let definitions = Definitions::read().unwrap();
    let mut late = Vec::new();
    for played in PLAYED.iter().filter(|played| played.stop.extent != Extent::Nothing) {
        let first = notifications(&definitions, &played.values).first().copied();
        if first.is_none_or(|(minutes, _)| minutes > played.stop.extent.limit()) {
            late.push((played.stop.name, first));
        }
    }
    assert!(late.is_empty(), "{late:?}");
}

/// Before a stop, and in an hour without one.
#[test]
fn normal_life_raises_no_alarm() {
    let definitions = Definitions::read().unwrap();
    for played in PLAYED.iter() {
        let is_normal = |minute: &usize| match played.stop.extent {
            Extent::Nothing => *minute > STOP,
            _ => (5..=STOP).contains(minute),
        };
        for name in definitions.alarms.keys().chain(definitions.composites.keys()) {
            for minutes in alarmed(&definitions, name, &played.values) {
                assert!(!minutes.iter().any(is_normal), "{}: {name} at {minutes:?}", played.stop.name);
            }
        }
    }
}

/// The depth of the queue stays above zero meanwhile.
#[test]
fn second_dead_letter_alarms_again() {
    let definitions = Definitions::read().unwrap();
    let mut values = Values::default();
    for minute in 20..END {
        let depth = if minute < 45 { 1.0 } else { 2.0 };
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesVisible"), minute, depth);
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesNotVisible"), minute, 0.0);
    }
    let expected: Vec<_> = (21..31).chain(46..56).collect();
    assert_eq!(alarmed(&definitions, "dead-letters", &values)[0], expected);
}

/// Returns the definitions with each alarm broken in each way, and what is broken.
fn broken(definitions: &Definitions) -> Vec<(String, Definitions)> {
    let mut broken = Vec::new();
    for (name, alarm) in &definitions.alarms {
        let mut add = |what: &str, change: &dyn Fn(&mut Alarm)| {
            let mut changed = definitions.clone();
            change(changed.alarms.get_mut(name).unwrap());
            broken.push((format!("{name}: {what}"), changed));
        };
        add("threshold never reached", &|alarm| alarm.threshold = f64::MAX);
        if let Source::Metric(query) = &alarm.source {
            add("missing data breaching", &|alarm| alarm.missing = Missing::Breaching);
            // The functions write no zeros, so that a threshold of zero is the lowest one.
            if query.metric.namespace != NAMESPACE || alarm.threshold > 0.0 {
                add("threshold always reached", &|alarm| alarm.threshold = f64::MIN);
            }
        }
        add("more datapoints", &|alarm| {
            alarm.evaluation_periods = 60;
            alarm.datapoints_to_alarm = 60;
        });
        for index in 0..queries(&mut alarm.source.clone()).len() {
            add(&format!("metric {index} renamed"), &|alarm| {
                queries(&mut alarm.source)[index].metric.name.push('X');
            });
            add(&format!("namespace {index} renamed"), &|alarm| {
                queries(&mut alarm.source)[index].metric.namespace.push('X');
            });
            add(&format!("dimension {index} renamed"), &|alarm| {
                queries(&mut alarm.source)[index].metric.dimensions.clear();
            });
        }
        add("period of an hour", &|alarm| {
            queries(&mut alarm.source).into_iter().for_each(|query| query.period = 60);
        });
    }
    for (name, composite) in &definitions.composites {
        for rule in composite.rule.split(" OR ") {
            let mut changed = definitions.clone();
            rule.clone_into(&mut changed.composites.get_mut(name).unwrap().rule);
            broken.push((format!("{name}: only {rule}"), changed));
        }
    }
    broken
}

fn queries(source: &mut Source) -> Vec<&mut Query> {
    match source {
        Source::Metric(query) => vec![query],
        Source::Math { queries, .. } => queries.values_mut().collect(),
    }
}

/// Each change of a definition changes when its alarm is in alarm, in some run.
#[test]
fn broken_alarms_are_noticed() {
    let definitions = Definitions::read().unwrap();
    let outcome = |definitions: &Definitions, name: &str| -> Vec<Minutes> {
        PLAYED.iter().map(|played| alarmed(definitions, name, &played.values)).collect()
    };
    let names = definitions.alarms.keys().chain(definitions.composites.keys());
    let expected: BTreeMap<&String, Vec<Minutes>> =
        names.map(|name| (name, outcome(&definitions, name))).collect();
    let mut unnoticed = Vec::new();
    for (what, changed) in broken(&definitions) {
        let name = what.split(':').next().unwrap();
        if outcome(&changed, name) == expected[&name.to_owned()] {
            unnoticed.push(what);
        }
    }
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

/// Every metric that an alarm watches is written by a function, or by AWS, in some run.
#[test]
fn alarms_watch_metrics_that_are_written() {
    let (definitions, written) = (Definitions::read().unwrap(), stops::written());
    for (name, alarm) in definitions.alarms {
        for query in queries(&mut alarm.source.clone()) {
            assert!(written.contains_key(&query.metric), "{name}: {:?}", query.metric);
        }
    }
}

/// Returns the table of stops and alarms, as Markdown.
fn table(definitions: &Definitions) -> String {
    let mut table = "| stop | first alarm | later alarms |\n|---|---|---|\n".to_owned();
    for played in PLAYED.iter().filter(|played| played.stop.extent != Extent::Nothing) {
        let notifications = notifications(definitions, &played.values);
        let text = |(minutes, name): &(usize, &str)| format!("`{name}` after {minutes} min");
        let first = notifications.first().map(text).unwrap_or_default();
        let later: Vec<_> = notifications.iter().skip(1).map(text).collect();
        table +=
            &format!("| {} | {first} | {} |\n", played.stop.name, later.join(", ")).replace("|  |", "| |");
    }
    table
}

#[test]
fn page_lists_every_stop() {
    let path = paths::workspace().join("docs/operations.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, section) = page.split_once(&format!("\n{HEADING}\n")).unwrap();
    let begin = section.find("\n|").unwrap() + 1;
    let end = begin + section[begin..].find("\n\n").unwrap() + 1;
    let table = table(&Definitions::read().unwrap());
    if std::env::var_os("UPDATE_ALARMS").is_some() {
        let (text, after) = (&section[..begin], &section[end..]);
        fs::write(path, format!("{before}\n{HEADING}\n{text}{table}{after}")).unwrap();
        return;
    }
    assert!(section[begin..end] == table, "docs/operations.md differs: run with UPDATE_ALARMS=1\n{table}");
}
