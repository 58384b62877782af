//! Invariants of the simulation, at sizes that run fast.

use std::time::Duration;

use streamer_simulation::{
    model::Setup,
    scenario::loads::{UPDATES, run_broadcast, run_progress, run_singles},
    world::Kind,
};

#[test]
fn broadcast_reaches_every_connection_once() {
    for connections in [1000, 10_000] {
        let report = run_broadcast(&Setup::WHOLE_ACCOUNT, connections);
        assert_eq!(report.delivered + report.gone, connections as u64);
        assert_eq!((report.duplicates, report.bound), (0, "requests_per_second"));
        let bill = report.bill();
        assert_eq!(bill.total(), bill.lambda + bill.queue + bill.messages + bill.table);
        assert!((bill.messages - report.delivered as f64 / 1e6).abs() < 1e-12);
    }
}

/// In each span of whole seconds, no more posts are admitted than the quota and the burst.
#[test]
fn posts_stay_within_the_account() {
    let setup = Setup { pace: None, account: (1000.0, 500.0), ..Setup::WHOLE_ACCOUNT };
    let report = run_broadcast(&setup, 10_000);
    assert_eq!(report.delivered + report.gone, 10_000);
    assert!(report.throttled > 0, "the account is the bound");
    for from in 0..report.admitted.len() {
        for to in from..report.admitted.len() {
            let posts: u64 = report.admitted[from..=to].iter().sum();
            assert!(posts <= 1000 * (to - from + 1) as u64 + 500, "{posts} in seconds {from} to {to}");
        }
    }
}

#[test]
fn same_seed_gives_same_report() {
    let run = || run_singles(&Setup::DEFAULT, 1000, 200.0, Duration::from_secs(5));
    let report = run();
    assert_eq!(report.delivered + report.gone, 1000);
    assert_eq!(report, run());
    let broadcast = || run_broadcast(&Setup::WHOLE_ACCOUNT, 1000);
    assert_eq!(broadcast(), broadcast());
}

#[test]
fn progress_streams_end_with_their_last_update() {
    let report = run_progress(&Setup::DEFAULT, 3);
    assert!(report.delivered <= 3 * UPDATES);
    assert!(report.last[&Kind::Update] >= 9900);
}

/// A mapping begins with 5 concurrent batches and adds 300 a minute.
#[test]
fn environments_grow_with_the_pollers() {
    let setup = Setup { batch: 1, concurrency: 1000, pace: None, ..Setup::DEFAULT };
    let report = run_singles(&setup, 1000, 1500.0, Duration::from_secs(2));
    let most = 5 + 5 * report.millis.div_ceil(1000);
    assert!((6..=most).contains(&report.environments), "{} in {} ms", report.environments, report.millis);
}

/// The first message waits 8 ms at least on the queue, and then for an execution environment.
#[test]
fn first_message_waits_for_cold_start() {
    let report = run_singles(&Setup::DEFAULT, 1, 1.0, Duration::from_secs(1));
    assert!(report.quantile(Kind::Single, 1.0) >= 8.0 + 102.0);
}
