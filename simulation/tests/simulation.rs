//! Invariants of the simulation, at sizes that run fast.

use std::time::Duration;

use streamer_simulation::{
    cost::price,
    model::{Emulator, NO_FAULTS, Setup},
    scenario::loads::{UPDATES, run_broadcast, run_kept, run_progress, run_singles},
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

const AWAY: Setup = Setup { away: Some(0.3), ..Setup::WHOLE_ACCOUNT };

/// Each message is in the table once, and has reached its user's device, or waits for a user who is away.
#[test]
fn kept_message_is_appended_once() {
    let run = || run_kept(&AWAY, 5000, 100.0, Duration::from_secs(4));
    let report = run();
    let kept = report.kept;
    assert_eq!((kept.appended, kept.copies, kept.throttled), (400, 0, 0));
    assert_eq!(kept.waiting + report.delivered + report.gone, 400);
    assert!((90..150).contains(&kept.waiting), "{kept:?}");
    assert_eq!(report, run());
}

#[test]
fn away_users_get_no_post() {
    let setup = Setup { away: Some(1.0), ..AWAY };
    let report = run_kept(&setup, 1000, 100.0, Duration::from_secs(3));
    assert_eq!((report.posts, report.delivered, report.handed_back), (0, 0, 0));
    assert_eq!((report.kept.appended, report.kept.waiting), (300, 300));
}

/// Failed posts are tried again, and neither stored nor delivered a second time.
#[test]
fn kept_messages_survive_an_outage() {
    let setup = Setup { outage: (1, 8), away: Some(0.0), ..AWAY };
    let report = run_kept(&setup, 5000, 40.0, Duration::from_secs(10));
    assert!(report.handed_back > 0, "posts fail");
    assert_eq!((report.kept.appended, report.kept.copies), (400, 0));
    assert_eq!((report.delivered + report.gone, report.duplicates), (400, 0));
}

/// The message, the head and the devices of a lone message: `docs/operations.md`.
#[test]
fn kept_messages_cost_two_writes_and_reads() {
    let setup = Setup { faults: NO_FAULTS, ..AWAY };
    let report = run_kept(&setup, 1_000_000, 5.0, Duration::from_secs(20));
    assert_eq!((report.kept.writes, report.kept.reads), (200, 200));
    let dollars = 200.0 * (price::WRITES + price::READS) / 1e6;
    assert!((report.bill().table - dollars).abs() < 1e-12, "{:?}", report.bill());
}

/// A stream is one partition, which takes 1 000 write units a second.
#[test]
fn hot_stream_is_throttled_and_complete() {
    let setup = Setup { away: Some(0.0), faults: NO_FAULTS, ..AWAY };
    let report = run_kept(&setup, 1, 600.0, Duration::from_millis(800));
    assert!(report.kept.throttled > 0, "{:?}", report.kept);
    assert_eq!((report.kept.appended, report.kept.copies, report.delivered), (480, 0, 480));
    assert!(
        report.kept.writes <= 1000 * (report.millis / 1000 + 1),
        "{:?} in {} ms",
        report.kept,
        report.millis
    );
}

/// A message takes the emulator's latency to the worker, and that of its post.
#[test]
fn emulator_has_its_own_latencies() {
    let millis = Duration::from_millis;
    let emulator = Emulator {
        dispatch: millis(50),
        rest: millis(40),
        post: millis(4),
        post_of_many: millis(1),
        query: millis(5),
        send: millis(3),
        pollers: 2,
    };
    let setup = Setup { emulator: Some(emulator), faults: NO_FAULTS, pace: None, ..Setup::DEFAULT };
    let report = run_singles(&setup, 10, 1.0, Duration::from_secs(5));
    assert!((54.0..=56.0).contains(&report.quantile(Kind::Single, 0.5)), "{:?}", report.latencies);
}
