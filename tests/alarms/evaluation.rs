//! The states of all alarms in all runs.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, LazyLock},
};

use crate::{
    cloudwatch::{Alarm, State, Values},
    composite::Composite,
    definitions::Definitions,
    stops::{Extent, PLAYED, Played},
    world::{END, STOP},
};

/// Minutes by which values arrive late, from zero on.
const LATE: usize = 3;

/// The minute from which on everything works again after a stop.
const RECOVERY: usize = STOP + 21;

/// Minutes after a stop in which the alarms end.
const ENDING: usize = 20;

/// The values of each run. A stop ends, and the minutes before it follow again.
static VALUES: LazyLock<Vec<Values>> = LazyLock::new(|| {
    let values = |played: &Played| match played.stop.extent {
        Extent::Nothing => played.values.clone(),
        _ => played.values.recovering(RECOVERY, 1..STOP, END),
    };
    PLAYED.iter().map(values).collect()
});

/// An alarm in a run.
struct Outcome {
    /// The state at each minute, by the minutes by which values arrive late.
    states: [Vec<State>; LATE],
    /// Minutes from the stop to the alarm if values arrive as late as they can.
    delay: Option<usize>,
    /// The first minute in which it is not OK before the stop, or in an hour without one.
    false_alarm: Option<usize>,
    /// The first minute in which it is not OK after the stop.
    endless: Option<usize>,
}

impl Outcome {
    fn new(run: usize, states: [Vec<State>; LATE]) -> Self {
        let first = |states: &Vec<State>| {
            let mut minutes = STOP..RECOVERY;
            minutes.find(|minute| states[*minute] == State::Alarm).map(|minute| minute - STOP)
        };
        let delays: Option<Vec<usize>> = states.iter().map(first).collect();
        let not_ok = |mut minutes: Range<usize>| {
            minutes.find(|minute| states.iter().any(|states| states[*minute] != State::Ok))
        };
        let before = match PLAYED[run].stop.extent {
            Extent::Nothing => STOP + 1..END,
            _ => 5..STOP + 1,
        };
        let (false_alarm, endless) = (not_ok(before), not_ok(RECOVERY + ENDING..END));
        Self { delay: delays.and_then(|delays| delays.into_iter().max()), false_alarm, endless, states }
    }
}

/// All alarms in all runs.
pub(crate) struct Evaluation<'a> {
    pub(crate) definitions: &'a Definitions,
    /// Outcomes by the alarm's name, for each run.
    outcomes: BTreeMap<&'a str, Arc<Vec<Outcome>>>,
}

impl<'a> Evaluation<'a> {
    /// Evaluates the definitions.
    pub(crate) fn new(definitions: &'a Definitions) -> Self {
        let nothing = Definitions { alarms: BTreeMap::new(), composites: BTreeMap::new() };
        Self::changed(definitions, &Evaluation { definitions: &nothing, outcomes: BTreeMap::new() })
    }

    /// Evaluates the definitions, except for alarms that have the same outcome as in `known`.
    pub(crate) fn changed(definitions: &'a Definitions, known: &Evaluation<'_>) -> Self {
        let mut outcomes: BTreeMap<&str, Arc<Vec<Outcome>>> = BTreeMap::new();
        for (name, alarm) in &definitions.alarms {
            let same = known.outcomes.get(name.as_str()).filter(|_| {
                let known = &known.definitions.alarms[name];
                Alarm { actions: alarm.actions.clone(), ..known.clone() } == *alarm
            });
            outcomes.insert(name, same.cloned().unwrap_or_else(|| Arc::new(of_alarm(name, alarm))));
        }
        let alarms = outcomes.clone();
        for (name, composite) in &definitions.composites {
            let same = known.outcomes.get(name.as_str()).filter(|_| {
                let is_same = |(name, outcomes): (&&str, _)| {
                    known.outcomes.get(name).is_some_and(|known| Arc::ptr_eq(known, outcomes))
                };
                known.definitions.composites[name].rule == composite.rule
                    && known.definitions.alarms.len() == alarms.len()
                    && alarms.iter().all(is_same)
            });
            let outcome = || Arc::new(of_composite(name, composite, &alarms));
            outcomes.insert(name, same.cloned().unwrap_or_else(outcome));
        }
        Self { definitions, outcomes }
    }

    /// Returns the alarms that notify people of a run, and after how many minutes, the earliest first.
    pub(crate) fn notifications(&self, run: usize) -> Vec<(usize, &'a str)> {
        let definitions = self.definitions;
        let alarms = definitions.alarms.iter().map(|(name, alarm)| (name, &alarm.actions));
        let composites = definitions.composites.iter().map(|(name, composite)| (name, &composite.actions));
        let notifying = alarms.chain(composites).filter(|(_, actions)| !actions.alarm.is_empty());
        let mut delays: Vec<_> = notifying
            .filter_map(|(name, _)| Some((self.outcomes[name.as_str()][run].delay?, name.as_str())))
            .collect();
        delays.sort_unstable();
        delays
    }

    /// Returns the alarms that are not OK before a stop, or in an hour without one.
    pub(crate) fn false_alarms(&self) -> Vec<String> {
        self.not_ok(|outcome| outcome.false_alarm)
    }

    /// Returns the alarms that are not OK after a stop.
    pub(crate) fn endless(&self) -> Vec<String> {
        self.not_ok(|outcome| outcome.endless)
    }

    fn not_ok(&self, minute: impl Fn(&Outcome) -> Option<usize>) -> Vec<String> {
        let mut not_ok = Vec::new();
        for (run, played) in PLAYED.iter().enumerate() {
            for (name, outcomes) in &self.outcomes {
                let minute = minute(&outcomes[run]);
                not_ok
                    .extend(minute.map(|minute| format!("{}: {name} in minute {minute}", played.stop.name)));
            }
        }
        not_ok
    }
}

fn of_alarm(name: &str, alarm: &Alarm) -> Vec<Outcome> {
    let states = |values: &Values| -> [Vec<State>; LATE] {
        std::array::from_fn(|late| {
            alarm.states(values, late, END).unwrap_or_else(|error| panic!("{name}: {error:?}"))
        })
    };
    let (queries, without) = (alarm.source.queries(), states(&Values::default()));
    let of_run = |(run, values): (usize, &Values)| {
        let states = if values.have_any(&queries) { states(values) } else { without.clone() };
        Outcome::new(run, states)
    };
    VALUES.iter().enumerate().map(of_run).collect()
}

fn of_composite(
    name: &str,
    composite: &Composite,
    alarms: &BTreeMap<&str, Arc<Vec<Outcome>>>,
) -> Vec<Outcome> {
    let state = |run: usize, late: usize, minute: usize| {
        let is_in_alarm = |child: &str| {
            let child = alarms.get(child);
            Ok(child.is_some_and(|outcomes| outcomes[run].states[late][minute] == State::Alarm))
        };
        let holds = composite.holds(&is_in_alarm).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        if holds { State::Alarm } else { State::Ok }
    };
    let of_run = |run| {
        let states = std::array::from_fn(|late| (0..END).map(|minute| state(run, late, minute)).collect());
        Outcome::new(run, states)
    };
    (0..VALUES.len()).map(of_run).collect()
}
