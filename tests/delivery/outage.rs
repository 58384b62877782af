//! An endpoint that is down for an hour, and an account that is throttled for ten minutes.
//!
//! A message a minute runs through real workers. A thousand messages a second would be a hundred million re-sends,
//! so that load runs through a simulation of the worker's admission alone (`fleet.rs`).
//!
//! Checked: every message is delivered, none becomes a dead letter, re-sends and posts during the outage stay
//! bounded, and deliveries after it are spread over time.

mod fleet;

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use delivery_worker::admission::breaker::Health;
use streamer_tests::{
    doubles::{Entry, TableDouble},
    event::message,
    gateway::{MemoryGateway, status},
    sqs::Sqs,
    worker::Rig,
};
use tokio::time::Instant;

use self::fleet::{Environment, Fleet, STEP, STEPS};

/// Prints figures to stderr, also when the test passes: libtest captures `eprintln!`.
macro_rules! show {
    ($($text:tt)*) => {{
        let mut output = std::io::stderr();
        writeln!(output, $($text)*).unwrap()
    }};
}

const ENVIRONMENTS: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

/// A message a minute for an hour; every message is delivered within 95 s of the recovery.
#[tokio::test(start_paused = true)]
async fn quiet_stack_recovers_from_hour_of_outage() -> anyhow::Result<()> {
    for (environments, frozen) in [(ENVIRONMENTS, false), (ENVIRONMENTS, true), (5, true), (2, true)] {
        message_a_minute(environments, frozen).await?;
    }
    Ok(())
}

/// Runs the outage with these environments. If `frozen`, their clocks stop between invocations.
async fn message_a_minute(environments: usize, frozen: bool) -> anyhow::Result<()> {
    fastrand::seed(7);
    let (sqs, began) = (Sqs::new(false), Instant::now());
    let rig = || {
        let clock = sqs.clone();
        let is_down = move || clock.instant() < began + HOUR;
        let gateway = MemoryGateway::scripted(move |_, _| (STEP, status(if is_down() { 503 } else { 200 })));
        let accept = |_: &_| (true, Entry::Taken);
        Rig::on(gateway, TableDouble::default(), sqs.outbound(accept, || true), sqs.dead_letters(accept))
    };
    let rigs: Vec<_> = (0..environments).map(|_| rig()).collect();
    for minute in 0..60_u64 {
        let body = message(&minute.to_string(), &[&format!("c{minute}")]).to_string();
        sqs.send(body, None, Duration::from_secs(60 * minute));
    }
    let (mut invocations, mut last) = (0, began);
    while let Some(next) = sqs.next() {
        sqs.wait(next, frozen).await;
        let event = sqs.receive();
        let report = rigs[invocations % environments].invoke_at(sqs.now(), event.clone()).await?;
        sqs.acknowledge(&event, &report);
        (invocations, last) = (invocations + 1, sqs.instant());
    }
    let posts: usize = rigs.iter().map(|rig| rig.worker.gateway.posts().len()).sum();
    let late = last.saturating_duration_since(began + HOUR);
    show!(
        "a message a minute, {environments} environments, frozen {frozen}: 60 messages, {posts} posts, \
         {} re-sends, all delivered {} s after the outage",
        sqs.sent_again(),
        late.as_secs()
    );
    assert!(sqs.dead().is_empty(), "nothing becomes a dead letter");
    // A message is re-sent about 14 times in its first 5 min, and then every 70 s on average.
    assert!(sqs.sent_again() < 60 * 40, "{} re-sends", sqs.sent_again());
    assert!(posts <= 3 * (sqs.sent_again() + 60), "{posts} posts");
    assert!(late <= Duration::from_secs(95), "{late:?}");
    Ok(())
}

/// A thousand messages a second for up to an hour; the re-sends and the deliveries after an hour's outage are spread.
#[test]
fn busy_stack_recovers_without_a_herd() {
    for seconds in [60, 600] {
        thousand_a_second(seconds, false);
    }
    thousand_a_second(HOUR.as_secs(), false);
    thousand_a_second(HOUR.as_secs(), true);
}

/// Runs an outage of so many seconds. If `frozen`, the clock of an environment stops while it has nothing to do.
fn thousand_a_second(outage_end: u64, frozen: bool) {
    fastrand::seed(7);
    let began = Instant::now();
    let mut fleet = Fleet::new(ENVIRONMENTS, frozen, began);
    let (mut second, rate) = (0, 1000);
    let (mut posts_in_outage, mut hand_backs_in_outage, mut batches_in_outage) = (0, 0, 0);
    while second < outage_end || !fleet.is_idle() {
        assert!(second < outage_end + 600, "not every message is delivered after 600 s");
        fleet.receive(second, if second < outage_end { rate } else { 0 });
        for step in 0..STEPS {
            let now = began + Duration::from_secs(second) + STEP * step as u32;
            let health = if second < outage_end { Health::Fails } else { Health::Works };
            fleet.step(second, now, &mut || health);
        }
        second += 1;
        if second == outage_end {
            (posts_in_outage, hand_backs_in_outage) = (fleet.posts, fleet.hand_backs);
            batches_in_outage = fleet.batches;
        }
    }
    let total = rate * outage_end;
    let delivered: u64 = fleet.delivered.values().sum();
    let per_10_s = |figures: &BTreeMap<u64, u64>, from: u64| -> Vec<u64> {
        (0..12.min(outage_end / 10))
            .map(|ten| figures.range(from + ten * 10..from + ten * 10 + 10).map(|(_, number)| number).sum())
            .collect()
    };
    let returns = per_10_s(&fleet.returns, outage_end.saturating_sub(120));
    let deliveries = per_10_s(&fleet.delivered, outage_end);
    // Each message waits for half of the outage on average.
    let interval = total * outage_end / 2 / hand_backs_in_outage;
    let latest = fleet.returns.keys().next_back().copied().unwrap_or_default() - outage_end;
    show!(
        "a thousand a second for {outage_end} s, simulated, frozen {frozen}: {total} messages, {posts_in_outage} posts, \
         {hand_backs_in_outage} re-sends in the outage, one in {interval} s, in {batches_in_outage} batches; \
         the last message returns {latest} s after it\n\
         received again in each 10 s before its end: {returns:?}\n\
         delivered in each 10 s after it: {deliveries:?}, all after {} s",
        second - outage_end
    );
    assert_eq!(delivered, total, "every message is delivered");
    // Up to the limit in flight until the circuit opens, and then three probes for each time it is half-open.
    let probes = ENVIRONMENTS as u64 * (3 * (outage_end / 20 + 3));
    assert!(posts_in_outage <= ENVIRONMENTS as u64 * 3 * 128 + probes, "{posts_in_outage} posts");
    assert!(latest <= 120, "the last message returns {latest} s after the recovery");
    assert!(second - outage_end <= 130);
    if outage_end < HOUR.as_secs() {
        return;
    }
    assert!(interval >= 76, "a message is re-sent every {interval} s");
    let (least, most) = (returns.iter().min().copied(), returns.iter().max().copied());
    assert!(2 * most.unwrap_or_default() < 3 * least.unwrap_or_default(), "re-sends are spread: {returns:?}");
    let most = deliveries.iter().max().copied().unwrap_or_default();
    assert!(most < total / 3, "no 10 s get a third of the messages: {deliveries:?}");
}

/// The account allows a tenth of the demand for ten minutes; at least 80 % of that is delivered in each minute.
#[test]
fn throttled_account_is_used_within_a_fifth() {
    fastrand::seed(7);
    let began = Instant::now();
    let mut fleet = Fleet::new(10, false, began);
    let (demand, allowed, throttled) = (1000, 100, 600);
    let (mut delivered, mut posts, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for second in 0..throttled + 300 {
        fleet.receive(second, if second < throttled { demand } else { 0 });
        let (delivered_before, posts_before) = (fleet.delivered.values().sum::<u64>(), fleet.posts);
        for step in 0..STEPS {
            let now = began + Duration::from_secs(second) + STEP * step as u32;
            let mut left = if second < throttled { allowed / STEPS } else { u64::MAX };
            fleet.step(second, now, &mut || match left {
                0 => Health::Throttles,
                _ => {
                    left -= 1;
                    Health::Works
                }
            });
        }
        delivered.push(fleet.delivered.values().sum::<u64>() - delivered_before);
        posts.push(fleet.posts - posts_before);
        let limit = |environment: &Environment| environment.admission.limit();
        limits.push(fleet.environments.iter().map(limit).sum::<usize>() / 10);
    }
    let per_minute = |figures: &[u64]| -> Vec<u64> {
        figures.chunks(60).map(|minute| minute.iter().sum::<u64>() / 60).collect()
    };
    let (delivered, posts) = (per_minute(&delivered), per_minute(&posts));
    let limits: Vec<_> = limits.iter().skip(59).step_by(60).collect();
    show!(
        "{demand} a second wanted, {allowed} allowed for 10 minutes, simulated, mean of each minute:\n\
         delivered {delivered:?}\nposts {posts:?}\nlimit of an environment {limits:?}"
    );
    let (during, after) = delivered.split_at(10);
    assert!(during.iter().all(|rate| (allowed * 4 / 5..=allowed).contains(rate)), "{during:?}");
    // Ten environments with 4 posts in flight, the lowest limit, begin 2 000 posts a second.
    assert!(posts[2..10].iter().all(|posts| *posts < 2500), "{posts:?}");
    assert!(limits[2..10].iter().all(|limit| **limit < 16), "{limits:?}");
    assert!(after.iter().any(|rate| *rate > 2 * demand), "the backlog is delivered: {after:?}");
    assert!(limits[10..].iter().any(|limit| **limit > 32), "the limit recovers: {limits:?}");
}
