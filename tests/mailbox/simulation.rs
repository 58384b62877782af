//! Devices of a user that come, go and crash, over workers and handlers that are killed at any step.
//!
//! **Modelled**: the queue, workers (append, devices, posts) and handlers of syncs (register, page, post) over the real
//! `Mailbox`, a table whose calls fail, TTL, sockets that lose and reorder frames, and up to three devices that follow
//! the rules of `docs/reference/clients.md`. Every call is a step, and any task may run next.
//!
//! **Checked**, as `docs/explanation/semantics.md` promises:
//! - P1: at rest, each device has handled each message, or was told of a gap that holds its number. Messages that have
//!   expired meanwhile are a gap at the next idle sync.
//! - P2: no device is told that it is caught up while it lacks a message up to the `top` that was read.
//! - P3: all devices were shown the messages in the same order.
//! - P4: no gap is told without cause.
//! - P5: every number up to `top` had a message.
//! - P6: no message is shown again after its position was stored.
//! - P7: a redelivery stores no message twice.
//!
//! `mutants.rs` lists wrong variants, which must violate one of them.

mod case;
mod check;
mod device;
mod handler;
mod mutants;
mod record;
mod run;
mod worker;
mod world;

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    strategy::ValueTree as _,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use streamer_tests::cases;

use self::{
    case::{Case, case},
    mutants::Mutant,
    run::run,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// Every device has each message or knows of the gap, after any kills, cuts and removals.
    #[test]
    fn every_device_has_each_message_or_gap(case in case()) {
        let result = run(&case, None).map(drop);
        if let Err(violation) = result {
            return Err(TestCaseError::fail(format!("{}: {}", violation.property, violation.detail)));
        }
    }
}

/// Returns the same cases in every run.
fn fixed_cases() -> impl Iterator<Item = Case> {
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    std::iter::repeat_with(move || case().new_tree(&mut runner).unwrap().current())
}

/// Each wrong variant violates a property in one of the same few cases, which are near to its fault.
#[test]
fn every_mutant_is_noticed() {
    const CASES: usize = 100;
    const MAX_CASES: usize = 4000;
    let mut survivors = Vec::new();
    for mutant in Mutant::ALL {
        let (mut ran, mut noticed) = (0, BTreeMap::<_, usize>::new());
        for case in fixed_cases().take(MAX_CASES) {
            ran += 1;
            if let Err(violation) = run(&mutant.focus(case), Some(mutant)) {
                *noticed.entry(violation.property).or_default() += 1;
            }
            if ran >= CASES && !noticed.is_empty() {
                break;
            }
        }
        let total: usize = noticed.values().sum();
        println!("{mutant:?}: noticed in {total} of {ran} cases, {noticed:?}");
        if total == 0 {
            survivors.push(mutant);
        }
    }
    assert_eq!(survivors, []);
}

/// Without their faults, the cases of the mutants hold.
#[test]
fn cases_of_mutants_hold() {
    for mutant in Mutant::ALL {
        for case in fixed_cases().take(20) {
            let result = run(&mutant.focus(case), None).map(drop);
            assert!(result.is_ok(), "{mutant:?}: {result:?}");
        }
    }
}

/// The cases reach what they are for: gaps, restarts and erasures happen.
#[test]
fn cases_have_gaps_and_crashes() {
    let (mut gaps, mut erased, mut shown) = (0, 0, 0);
    for case in fixed_cases().take(300) {
        let run = run(&case, None).unwrap();
        gaps += run.devices.iter().map(|device| device.record.gaps).sum::<usize>();
        shown += run.devices.iter().map(|device| device.record.shown.len()).sum::<usize>();
        erased += usize::from(run.world.was_erased());
    }
    assert!(gaps > 50 && erased > 3 && shown > 1000, "{gaps} gaps, {erased} erasures, {shown} shown");
}
