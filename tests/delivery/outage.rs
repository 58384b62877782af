//! An endpoint that is down for an hour, and an account that is throttled for ten minutes.
//!
//! A message a minute runs through real workers. A thousand a second would be a hundred million re-sends, so there
//! the pure core runs alone, in steps of 20 ms, which a post takes: what the circuit refuses is sent again in one
//! piece, spread over its window as evenly as chance would.

use std::{
    collections::{BTreeMap, VecDeque},
    io::Write as _,
    time::Duration,
};

use delivery_worker::{
    admission::{Admission, Admitted, Decision, breaker::Health},
    backoff,
};
use streamer_message::ConnectionId;
use streamer_tests::{
    doubles::{Entry, TableDouble},
    event::{epoch, message},
    gateway::{MemoryGateway, status},
    sqs::Sqs,
    worker::Rig,
};
use tokio::time::Instant;

/// Shows figures, also of a test that passes.
macro_rules! show {
    ($($text:tt)*) => {{
        let mut output = std::io::stderr();
        writeln!(output, $($text)*).unwrap()
    }};
}

const ENVIRONMENTS: usize = 20;
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test(start_paused = true)]
async fn a_message_a_minute_for_an_hour_all_arrives_when_the_endpoint_is_back() -> anyhow::Result<()> {
    for (environments, frozen) in [(ENVIRONMENTS, false), (ENVIRONMENTS, true), (5, true), (2, true)] {
        a_message_a_minute(environments, frozen).await?;
    }
    Ok(())
}

/// If `frozen`, the environments' clock stands still between invocations.
async fn a_message_a_minute(environments: usize, frozen: bool) -> anyhow::Result<()> {
    fastrand::seed(7);
    let (sqs, began) = (Sqs::new(false), Instant::now());
    let rig = || {
        let clock = sqs.clone();
        let is_down = move || clock.instant() < began + HOUR;
        let down = MemoryGateway::scripted(move |_, _| (STEP, status(if is_down() { 503 } else { 200 })));
        let taking = |_: &_| (true, Entry::Taken);
        Rig::on(down, TableDouble::default(), sqs.outbound(taking, || true), sqs.dead_letters(taking))
    };
    let rigs: Vec<_> = (0..environments).map(|_| rig()).collect();
    for minute in 0..60_u64 {
        let body = message(&minute.to_string(), &[&format!("c{minute}")]).to_string();
        sqs.send(body, None, Duration::from_secs(60 * minute));
    }
    let (mut rounds, mut last) = (0, began);
    while let Some(next) = sqs.next() {
        sqs.wait(next, frozen).await;
        let event = sqs.receive();
        let report = rigs[rounds % environments].invoke_at(sqs.now(), event.clone()).await?;
        sqs.acknowledge(&event, &report);
        (rounds, last) = (rounds + 1, sqs.instant());
    }
    let posts: usize = rigs.iter().map(|rig| rig.worker.gateway.posts().len()).sum();
    let late = last.saturating_duration_since(began + HOUR);
    show!(
        "a message a minute, {environments} environments, frozen {frozen}: 60 messages, {posts} posts, {} re-sends, all delivered {} s after the outage",
        sqs.sent_again(),
        late.as_secs()
    );
    assert!(sqs.dead().is_empty(), "nothing is dead-lettered");
    // Each is sent again every 30 s on average, once its window is 60 s.
    assert!(sqs.sent_again() < 60 * 80, "{}", sqs.sent_again());
    assert!(posts <= 3 * (sqs.sent_again() + 60));
    assert!(late <= Duration::from_secs(65), "{late:?}");
    Ok(())
}

/// What a post takes, and a step.
const STEP: Duration = Duration::from_millis(20);
const STEPS: u64 = 50;

/// Hand-backs from here on have the same window.
const COUNTS: usize = 7;

/// Messages that are due at the same time, by how often they were handed back.
type Due = [u64; COUNTS];

/// One environment.
struct Environment {
    admission: Admission,
    /// What its monotonic clock shows.
    clock: Instant,
    /// Messages that wait for a post.
    waiting: Due,
    /// Posts in flight: the message's hand-backs, its tries, and the pass.
    in_flight: VecDeque<(usize, u32, Admitted)>,
    /// The second and third tries, which come a step or more later.
    again: VecDeque<(usize, u32)>,
}

struct Fleet {
    /// Whether the environments' clocks stand still while they have nothing to do.
    frozen: bool,
    environments: Vec<Environment>,
    due: BTreeMap<u64, Due>,
    posts: u64,
    sent_again: u64,
    delivered: BTreeMap<u64, u64>,
    /// What comes back in which second.
    returns: BTreeMap<u64, u64>,
}

impl Fleet {
    fn new(environments: usize, frozen: bool) -> Self {
        let environment = || Environment {
            admission: Admission::default(),
            clock: Instant::now(),
            waiting: [0; COUNTS],
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
        };
        Self {
            frozen,
            environments: (0..environments).map(|_| environment()).collect(),
            due: BTreeMap::new(),
            posts: 0,
            sent_again: 0,
            delivered: BTreeMap::new(),
            returns: BTreeMap::new(),
        }
    }

    /// Hands back messages, spread over the window.
    fn hand_back(&mut self, count: usize, number: u64, open: Duration, second: u64) {
        if number == 0 {
            return;
        }
        self.sent_again += number;
        let pieces = number.min(122);
        for piece in 0..pieces {
            let share = number / pieces + u64::from(piece < number % pieces);
            let random = (piece as f64 + fastrand::f64()) / pieces as f64;
            let delay = backoff::hand_back(count as u32, open, random);
            let at = second + 1 + u64::from(delay);
            *self.returns.entry(at).or_default() += share;
            let due = self.due.entry(at).or_default();
            due[(count + 1).min(COUNTS - 1)] += share;
        }
    }

    /// Runs one step. `answer` says what becomes of a post.
    fn step(&mut self, second: u64, now: Instant, answer: &mut impl FnMut() -> Health) {
        let first = fastrand::usize(..self.environments.len());
        for index in (first..self.environments.len()).chain(0..first) {
            let mut back: Vec<(usize, u64, Duration)> = Vec::new();
            let environment = &mut self.environments[index];
            let now = if self.frozen { environment.clock } else { now };
            for (count, tries, pass) in std::mem::take(&mut environment.in_flight) {
                let health = answer();
                let connection: ConnectionId = format!("c{}", fastrand::u32(..)).try_into().unwrap();
                environment.admission.record(pass, &connection, health, STEP, now);
                match health {
                    Health::Works => *self.delivered.entry(second).or_default() += 1,
                    Health::Fails if tries < backoff::MAX_POSTS => {
                        environment.again.push_back((count, tries + 1))
                    }
                    _ => back.push((count, 1, Duration::ZERO)),
                }
            }
            loop {
                let fresh = environment.waiting.iter().position(|number| *number > 0).map(|count| (count, 1));
                let again = environment.again.front().copied();
                let Some((count, tries)) = again.or(fresh) else { break };
                match environment.admission.admit(now) {
                    Decision::Admit(pass) => {
                        self.posts += 1;
                        environment.in_flight.push_back((count, tries, pass));
                        match again {
                            Some(_) => _ = environment.again.pop_front(),
                            None => environment.waiting[count] -= 1,
                        }
                    }
                    Decision::CircuitOpen(wait) => {
                        back.extend(environment.again.drain(..).map(|(count, _)| (count, 1, wait)));
                        let waiting = std::mem::take(&mut environment.waiting);
                        back.extend(
                            waiting.into_iter().enumerate().map(|(count, number)| (count, number, wait)),
                        );
                    }
                    Decision::LimitReached(_) | Decision::Paced(_) => break,
                }
            }
            if !environment.is_idle() {
                environment.clock += STEP;
            }
            for (count, number, open) in back {
                self.hand_back(count, number, open, second);
            }
        }
    }

    /// Gives what is due in this second to the environments, beside `new` messages.
    fn receive(&mut self, second: u64, new: u64) {
        let mut due = self.due.remove(&second).unwrap_or_default();
        due[0] += new;
        if self.frozen {
            let wall = epoch() + Duration::from_secs(second);
            self.environments.iter_mut().for_each(|one| one.admission.resume(wall, one.clock));
        }
        let environments = self.environments.len() as u64;
        for (count, number) in due.into_iter().enumerate() {
            for (index, environment) in self.environments.iter_mut().enumerate() {
                let extra = (index as u64 + second) % environments < number % environments;
                environment.waiting[count] += number / environments + u64::from(extra);
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty() && self.environments.iter().all(Environment::is_idle)
    }
}

impl Environment {
    fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.again.is_empty() && self.waiting == [0; COUNTS]
    }
}

#[test]
fn a_thousand_messages_a_second_for_an_hour_all_arrive_without_a_herd() {
    a_thousand_a_second(false);
    a_thousand_a_second(true);
}

fn a_thousand_a_second(frozen: bool) {
    fastrand::seed(7);
    let (mut fleet, began) = (Fleet::new(ENVIRONMENTS, frozen), Instant::now());
    let (mut second, down, rate) = (0, HOUR.as_secs(), 1000);
    let (mut posts_down, mut again_down) = (0, 0);
    while second < down || !fleet.is_idle() {
        assert!(second < down + 600, "not all has arrived");
        fleet.receive(second, if second < down { rate } else { 0 });
        for step in 0..STEPS {
            let now = began + Duration::from_secs(second) + STEP * step as u32;
            let health = if second < down { Health::Fails } else { Health::Works };
            fleet.step(second, now, &mut || health);
        }
        second += 1;
        if second == down {
            (posts_down, again_down) = (fleet.posts, fleet.sent_again);
        }
    }
    let total = rate * down;
    let delivered: u64 = fleet.delivered.values().sum();
    let in_tens = |of: &BTreeMap<u64, u64>, from: u64| -> Vec<u64> {
        (0..9)
            .map(|ten| of.range(from + ten * 10..from + ten * 10 + 10).map(|(_, number)| number).sum())
            .collect()
    };
    let (before, after) = (in_tens(&fleet.returns, down - 90), in_tens(&fleet.delivered, down));
    show!(
        "a thousand a second, simulated, frozen {frozen}: {total} messages, {posts_down} posts and {again_down} re-sends in the outage\n\
         coming back in each 10 s before its end: {before:?}\n\
         delivered in each 10 s after it: {after:?}, all after {} s",
        second - down
    );
    assert_eq!(delivered, total, "nothing is lost, and nothing is too old");
    // Opening takes up to the limit in flight, and then three probes each time the circuit tries again.
    let probes = ENVIRONMENTS as u64 * (3 * (HOUR.as_secs() / 60 + 4));
    assert!(posts_down <= ENVIRONMENTS as u64 * 3 * 128 + probes, "{posts_down}");
    assert!(again_down < total * 60, "each message waits for half a minute and more: {again_down}");
    let (least, most) = (before.iter().min().copied(), before.iter().max().copied());
    assert!(
        most.unwrap_or_default() < 2 * least.unwrap_or_default(),
        "what comes back is spread: {before:?}"
    );
    let most = after.iter().max().copied().unwrap_or_default();
    assert!(most < total / 3, "no ten seconds have it all: {after:?}");
    assert!(second - down <= 130);
}

#[test]
fn an_account_that_allows_a_tenth_of_the_demand_is_used_to_within_a_fifth() {
    fastrand::seed(7);
    let (mut fleet, began) = (Fleet::new(10, false), Instant::now());
    let (demand, allowed, throttled) = (1000, 100, 600);
    let (mut delivered, mut posts, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for second in 0..throttled + 300 {
        fleet.receive(second, if second < throttled { demand } else { 0 });
        let (before, posts_before) = (fleet.delivered.values().sum::<u64>(), fleet.posts);
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
        delivered.push(fleet.delivered.values().sum::<u64>() - before);
        posts.push(fleet.posts - posts_before);
        let limit = |environment: &Environment| environment.admission.limit();
        limits.push(fleet.environments.iter().map(limit).sum::<usize>() / 10);
    }
    let minutes =
        |of: &[u64]| -> Vec<u64> { of.chunks(60).map(|minute| minute.iter().sum::<u64>() / 60).collect() };
    let (delivered, posts) = (minutes(&delivered), minutes(&posts));
    let limits: Vec<_> = limits.iter().skip(59).step_by(60).collect();
    show!(
        "{demand} a second wanted, {allowed} allowed for 10 minutes, simulated, each minute's mean:\n\
         delivered {delivered:?}\nposts {posts:?}\nlimit of an environment {limits:?}"
    );
    let (during, after) = delivered.split_at(10);
    assert!(during.iter().all(|rate| (allowed * 4 / 5..=allowed).contains(rate)), "{during:?}");
    // Ten environments of 4 posts in flight begin 2 000 a second, which is the least that the limit allows.
    assert!(posts[2..10].iter().all(|posts| *posts < 2500), "{posts:?}");
    assert!(limits[2..10].iter().all(|limit| **limit < 16), "{limits:?}");
    assert!(after.iter().any(|rate| *rate > 2 * demand), "what waited is delivered: {after:?}");
    assert!(limits[10..].iter().any(|limit| **limit > 32), "the limit recovers: {limits:?}");
}
