//! The alarms of `infra/alarms.tf` against every way in which delivery can stop.
//!
//! Real workers and connect handlers run for an hour of virtual time ([`world`], [`connects`]), each run with one stop
//! ([`stops`]). [`traffic`] has the messages, and [`written`] collects the metrics. The alarms' definitions come from
//! Terraform's plan ([`definitions`]) and are evaluated against the metrics of the runs ([`evaluation`]) and against
//! values at their edges ([`edges`]), by CloudWatch's rules ([`cloudwatch`], [`composite`], [`math`]), with values that
//! arrive up to 2 min late. [`mutants`] breaks the definitions.
//!
//! `docs/operations.md` has the table of stops and alarms. To write it, run
//! `UPDATE_ALARMS=1 cargo test -p streamer-tests --test alarms`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cloudwatch;
mod composite;
mod connects;
mod definitions;
mod edges;
mod evaluation;
mod math;
mod mutants;
mod stops;
mod traffic;
mod world;
mod written;

use std::{fs, ops::Range, path::PathBuf, thread};

use streamer_cli::paths;

use crate::{
    cloudwatch::{State, Values},
    definitions::{DEAD_LETTERS, Definitions, TOPIC},
    evaluation::Evaluation,
    mutants::Mutant,
    stops::{Extent, PLAYED},
    world::END,
    written::of_queue,
};

/// The heading above the table in the page.
const HEADING: &str = "### Stops and their alarms";

/// Alarms that do not notify of their end, because it repairs nothing.
const WITHOUT_END: [&str; 1] = ["dead-letters"];

/// Returns the stops without an alarm in time.
fn late(evaluation: &Evaluation<'_>) -> Vec<String> {
    let mut late = Vec::new();
    for (run, played) in PLAYED.iter().enumerate() {
        let first = evaluation.notifications(run).first().copied();
        if played.stop.extent != Extent::Nothing
            && first.is_none_or(|(minutes, _)| minutes > played.stop.extent.limit())
        {
            late.push(format!("{}: {first:?}", played.stop.name));
        }
    }
    late
}

/// Returns the alarms that do not notify the topic of both their beginning and their end, or of neither.
fn one_sided(definitions: &Definitions) -> Vec<String> {
    let alarms = definitions.alarms.iter().map(|(name, alarm)| (name, &alarm.actions));
    let composites = definitions.composites.iter().map(|(name, composite)| (name, &composite.actions));
    let one_sided = alarms.chain(composites).filter(|(name, actions)| {
        let begins = actions.alarm.len();
        let ends = if WITHOUT_END.contains(&name.as_str()) { 0 } else { begins };
        let mut topics = actions.alarm.iter().chain(&actions.ok);
        actions.ok.len() != ends || begins > 1 || topics.any(|topic| topic != TOPIC)
    });
    one_sided.map(|(name, actions)| format!("{name}: {actions:?}")).collect()
}

/// The minutes in which `dead-letters` is in alarm if letters arrive in the minutes 20 and 45.
const TWO_LETTERS: [Range<usize>; 2] = [21..41, 50..END];

/// Returns the minutes in which `dead-letters` is in alarm if letters arrive in the minutes 20 and 45.
fn with_two_letters(definitions: &Definitions) -> Vec<usize> {
    let mut values = Values::default();
    for minute in 20..END {
        let depth = if minute < 45 { 1.0 } else { 2.0 };
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesVisible"), minute, depth);
        values.add(of_queue(DEAD_LETTERS, "ApproximateNumberOfMessagesNotVisible"), minute, 0.0);
    }
    let states = definitions.alarms.get("dead-letters").map(|alarm| alarm.states(&values, 0, END).unwrap());
    let states = states.unwrap_or_default().into_iter().enumerate();
    states.filter(|(_, state)| *state == State::Alarm).map(|(minute, _)| minute).collect()
}

/// Returns whether a check fails. `table` is the one in the page.
fn is_noticed(mutant: &Mutant, known: &Evaluation<'_>, table: &str) -> bool {
    let definitions = &mutant.definitions;
    if !one_sided(definitions).is_empty() || !edges::missed(definitions, &mutant.alarm).is_empty() {
        return true;
    }
    if !with_two_letters(definitions).into_iter().eq(TWO_LETTERS.into_iter().flatten()) {
        return true;
    }
    let evaluation = Evaluation::changed(definitions, known);
    let faults = [late(&evaluation), evaluation.false_alarms(), evaluation.endless()];
    faults.iter().any(|faults| !faults.is_empty()) || self::table(&evaluation) != table
}

/// Within 10 min for a total stop, 15 min for a half or less, and 20 min if messages are only late.
#[test]
fn every_stop_raises_an_alarm_in_time() {
    let Some(definitions) = Definitions::planned() else { return };
    let late = late(&Evaluation::new(definitions));
    assert!(late.is_empty(), "{late:#?}");
}

/// Before a stop, and in an hour without one.
#[test]
fn normal_life_raises_no_alarm() {
    let Some(definitions) = Definitions::planned() else { return };
    let false_alarms = Evaluation::new(definitions).false_alarms();
    assert!(false_alarms.is_empty(), "{false_alarms:#?}");
}

/// Also where metrics are no longer written.
#[test]
fn alarms_end_after_a_stop() {
    let Some(definitions) = Definitions::planned() else { return };
    let endless = Evaluation::new(definitions).endless();
    assert!(endless.is_empty(), "{endless:#?}");
}

#[test]
fn alarms_notify_of_beginning_and_end() {
    let Some(definitions) = Definitions::planned() else { return };
    let one_sided = one_sided(definitions);
    assert!(one_sided.is_empty(), "{one_sided:#?}");
}

#[test]
fn alarms_begin_at_their_edges() {
    let Some(definitions) = Definitions::planned() else { return };
    let missed: Vec<_> =
        definitions.alarms.keys().flat_map(|name| edges::missed(definitions, name)).collect();
    assert!(missed.is_empty(), "{missed:#?}");
}

/// The depth of the queue stays above zero meanwhile.
#[test]
fn second_dead_letter_alarms_again() {
    let Some(definitions) = Definitions::planned() else { return };
    assert_eq!(with_two_letters(definitions), TWO_LETTERS.into_iter().flatten().collect::<Vec<_>>());
}

/// Each fault in a definition fails one of the tests above, or the one of the page, except for those in
/// [`mutants::EQUIVALENT`].
#[test]
fn broken_alarms_are_noticed() {
    let Some(definitions) = Definitions::planned() else { return };
    let known = Evaluation::new(definitions);
    let table = if is_updating() { table(&known) } else { Page::read().table().to_owned() };
    let mutants = mutants::mutants(definitions);
    let mut unnoticed: Vec<&Mutant> = thread::scope(|scope| {
        let halves = mutants.chunks(mutants.len().div_ceil(2)).map(|half| {
            let (known, table) = (&known, &table);
            let is_unnoticed = move |mutant: &&Mutant| !is_noticed(mutant, known, table);
            scope.spawn(move || half.iter().filter(is_unnoticed).collect::<Vec<_>>())
        });
        let halves: Vec<_> = halves.collect();
        halves.into_iter().flat_map(|half| half.join().unwrap()).collect()
    });
    for (reason, alarms, changes) in mutants::EQUIVALENT {
        for (alarm, change) in
            alarms.iter().flat_map(|alarm| changes.iter().map(move |change| (alarm, change)))
        {
            let before = unnoticed.len();
            unnoticed.retain(|mutant| mutant.alarm != *alarm || !mutant.change.starts_with(change));
            assert!(unnoticed.len() < before, "{alarm}: {change} is noticed, although {reason}");
        }
    }
    let unnoticed: Vec<_> = unnoticed.iter().map(|mutant| (&mutant.alarm, &mutant.change)).collect();
    assert!(unnoticed.is_empty(), "{} of {}: {unnoticed:#?}", unnoticed.len(), mutants.len());
}

/// Every metric that an alarm watches is written by a function, or by AWS, in some run.
#[test]
fn alarms_watch_metrics_that_are_written() {
    let Some(definitions) = Definitions::planned() else { return };
    let written = stops::written();
    for (name, alarm) in &definitions.alarms {
        for query in alarm.source.queries() {
            assert!(written.contains_key(&query.metric), "{name}: {:?}", query.metric);
        }
    }
}

/// Returns the table of stops and alarms, as Markdown.
fn table(evaluation: &Evaluation<'_>) -> String {
    let mut table = "| stop | first alarm | later alarms |\n|---|---|---|\n".to_owned();
    for (run, played) in PLAYED.iter().enumerate() {
        if played.stop.extent == Extent::Nothing {
            continue;
        }
        let notifications = evaluation.notifications(run);
        let text = |(minutes, name): &(usize, &str)| format!("`{name}` after {minutes} min");
        let first = notifications.first().map(text).unwrap_or_default();
        let later: Vec<_> = notifications.iter().skip(1).map(text).collect();
        table +=
            &format!("| {} | {first} | {} |\n", played.stop.name, later.join(", ")).replace("|  |", "| |");
    }
    table
}

/// `docs/operations.md`, with the place of the table in it.
struct Page {
    path: PathBuf,
    text: String,
    table: Range<usize>,
}

impl Page {
    fn read() -> Self {
        let path = paths::workspace().join("docs/operations.md");
        let text = fs::read_to_string(&path).unwrap();
        let heading = text.find(&format!("\n{HEADING}\n")).unwrap();
        let begin = heading + text[heading..].find("\n|").unwrap() + 1;
        let end = begin + text[begin..].find("\n\n").unwrap() + 1;
        Self { path, text, table: begin..end }
    }

    fn table(&self) -> &str {
        &self.text[self.table.clone()]
    }

    fn write(mut self, table: &str) {
        self.text.replace_range(self.table, table);
        fs::write(self.path, self.text).unwrap();
    }
}

fn is_updating() -> bool {
    std::env::var_os("UPDATE_ALARMS").is_some()
}

#[test]
fn page_lists_every_stop() {
    let Some(definitions) = Definitions::planned() else { return };
    let (page, table) = (Page::read(), table(&Evaluation::new(definitions)));
    if is_updating() {
        page.write(&table);
    } else {
        assert!(page.table() == table, "docs/operations.md differs: run with UPDATE_ALARMS=1\n{table}");
    }
}
