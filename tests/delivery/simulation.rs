//! Many invocations of workers that are killed between any two of their calls, around a queue that loses
//! answers and a gateway that fails: in the end everything has arrived, and at no moment is anything lost.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use delivery_worker::{classify::PostResult, gateway::Gateway, queue_kind::QueueKind};
use proptest::prelude::*;
use serde_json::{Value, json};
use streamer_connections::shard_of;
use streamer_message::ConnectionId;
use streamer_tests::{
    cases,
    doubles::{Entry, TableDouble},
    event::epoch,
    gateway::status,
    sqs::Sqs,
    worker::Rig,
};
use tokio::time::{Instant, sleep};

const HOUR: Duration = Duration::from_secs(3600);

const CONNECTIONS: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What stands in the way of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Status(u16),
    /// It arrives, but the answer does not.
    AnswerLost,
    /// It arrives, but the answer takes too long.
    Slow,
    Panic,
}

/// What stands in the way of a message that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SendFault {
    None,
    NotTaken,
    /// The queue has it, but does not say so.
    AnswerLost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Client {
    Connected,
    Gone,
    /// API Gateway does not know it for its first 3 seconds.
    Connecting,
}

#[derive(Debug, Clone)]
enum To {
    Connections(Vec<usize>),
    User,
    Tenant,
    Poison,
}

#[derive(Debug, Clone)]
struct Sent {
    to: To,
    group: bool,
    /// Whether it may be dropped for a later message of the one request; `seq` is its place among all messages.
    supersedable: bool,
}

#[derive(Debug, Clone)]
struct Case {
    fifo: bool,
    /// Whether the workers' clock stands still between invocations.
    frozen: bool,
    clients: [Client; 5],
    messages: Vec<Sent>,
    posts: Vec<Fault>,
    sends: Vec<SendFault>,
    /// Of each of the first invocations, before which of its calls the worker is killed.
    kills: Vec<Option<usize>>,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let client =
        prop_oneof![6 => Just(Client::Connected), 1 => Just(Client::Gone), 1 => Just(Client::Connecting)];
    let to = prop_oneof![
        8 => prop::collection::vec(0..5_usize, 1..4).prop_map(To::Connections),
        2 => Just(To::User),
        2 => Just(To::Tenant),
        1 => Just(To::Poison),
    ];
    let sent = (to, any::<bool>(), prop::bool::weighted(0.3));
    let sent = sent.prop_map(|(to, group, supersedable)| Sent { to, group, supersedable });
    let fault = prop_oneof![
        4 => Just(Fault::None),
        3 => prop::sample::select(vec![302, 403, 429, 500, 503]).prop_map(Fault::Status),
        1 => Just(Fault::AnswerLost),
        1 => Just(Fault::Slow),
        1 => Just(Fault::Status(413)),
    ];
    let fault = prop_oneof![
        30 => fault,
        1 => Just(Fault::Panic),
    ];
    let send_fault = prop_oneof![4 => Just(SendFault::None), 1 => Just(SendFault::NotTaken), 1 => Just(SendFault::AnswerLost)];
    (
        (prop::bool::weighted(0.3), any::<bool>()),
        prop::array::uniform5(client),
        prop::collection::vec(sent, 1..13),
        prop::collection::vec(fault, 0..40),
        prop::collection::vec(send_fault, 0..12),
        prop::collection::vec(prop::option::of(0..80_usize), 0..6),
        any::<u64>(),
    )
        .prop_map(|((fifo, frozen), clients, mut messages, posts, sends, kills, seed)| {
            // A FIFO queue takes none for a tenant.
            let tenants = messages.iter_mut().filter(|sent| fifo && matches!(sent.to, To::Tenant));
            tenants.for_each(|sent| sent.to = To::User);
            Case { fifo, frozen, clients, messages, posts, sends, kills, seed }
        })
}

impl Sent {
    fn body(&self, place: usize) -> String {
        let to = match &self.to {
            To::Connections(places) => {
                json!({ "connections": places.iter().map(|place| CONNECTIONS[*place]).collect::<Vec<_>>() })
            }
            To::User => json!({ "user": { "tenant": "acme", "user": "anna" } }),
            To::Tenant => json!({ "tenant": "acme" }),
            To::Poison => return format!("poison {place}"),
        };
        let request = json!({ "id": "r", "seq": place });
        let id = place.to_string();
        json!({
            "version": 1, "id": id, "to": to, "payload": place, "request": request, "supersedable": self.supersedable,
        })
        .to_string()
    }

    /// The connections that it is for.
    fn connections(&self) -> BTreeSet<usize> {
        match &self.to {
            To::Connections(places) => places.iter().copied().collect(),
            To::User | To::Tenant => (0..5).collect(),
            To::Poison => BTreeSet::new(),
        }
    }
}

/// Kills a worker before its n-th call: that call and all later ones have no effect.
#[derive(Clone)]
struct Fuse(Arc<AtomicUsize>);

impl Fuse {
    fn set(&self, calls: Option<usize>) {
        self.0.store(calls.map_or(usize::MAX, |calls| calls + 1), Ordering::Relaxed);
    }

    /// Whether the worker lives to see this call.
    fn burns(&self) -> bool {
        let less = |left: usize| Some(if left == usize::MAX { left } else { left.saturating_sub(1) });
        let before = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).unwrap_or_default();
        before > 1
    }

    fn is_burnt(&self) -> bool {
        self.0.load(Ordering::Relaxed) <= 1
    }
}

/// The clients, behind a gateway that fails.
struct Clients {
    clients: [Client; 5],
    clock: Sqs,
    began: Instant,
    fuse: Fuse,
    faults: Mutex<std::vec::IntoIter<Fault>>,
    arrived: Mutex<Vec<(usize, usize)>>,
}

impl Gateway for Clients {
    async fn post(&self, connection: &ConnectionId, payload: bytes::Bytes) -> PostResult {
        if !self.fuse.burns() {
            return std::future::pending().await;
        }
        let place = CONNECTIONS.iter().position(|known| *known == connection.as_str()).unwrap();
        let fault = self.faults.lock().unwrap().next().unwrap_or(Fault::None);
        match fault {
            Fault::Status(code) => return status(code),
            Fault::Panic => panic!("the gateway in memory panics as it is told"),
            Fault::None | Fault::AnswerLost | Fault::Slow => {}
        }
        let connecting = self.clock.instant() < self.began + Duration::from_secs(3);
        match self.clients[place] {
            Client::Gone => return status(410),
            Client::Connecting if connecting => return status(410),
            Client::Connecting | Client::Connected => {}
        }
        let message: usize = str::from_utf8(&payload).unwrap().parse().unwrap();
        self.arrived.lock().unwrap().push((message, place));
        match fault {
            Fault::AnswerLost => PostResult::Broken("lost".to_owned()),
            Fault::Slow => {
                sleep(Duration::from_secs(7)).await;
                status(200)
            }
            Fault::None | Fault::Status(_) | Fault::Panic => status(200),
        }
    }
}

struct Simulation<'a> {
    case: &'a Case,
    sqs: Sqs,
    fuse: Fuse,
    rig: Rig<Clients>,
}

impl<'a> Simulation<'a> {
    fn new(case: &'a Case) -> Self {
        fastrand::seed(case.seed);
        let (sqs, fuse) = (Sqs::new(case.fifo), Fuse(Arc::default()));
        fuse.set(None);
        let faults = Arc::new(Mutex::new(case.sends.clone().into_iter()));
        let deciding = |fuse: Fuse| {
            let faults = Arc::clone(&faults);
            move |_: &_| {
                if !fuse.burns() {
                    return (false, Entry::Unmentioned);
                }
                match faults.lock().unwrap().next().unwrap_or(SendFault::None) {
                    SendFault::None => (true, Entry::Taken),
                    SendFault::NotTaken => (false, Entry::NotTaken),
                    SendFault::AnswerLost => (true, Entry::Unmentioned),
                }
            }
        };
        let clients = Clients {
            clients: case.clients,
            clock: sqs.clone(),
            began: sqs.instant(),
            fuse: fuse.clone(),
            faults: Mutex::new(case.posts.clone().into_iter()),
            arrived: Mutex::default(),
        };
        let made = |client| if client == Client::Connecting { epoch() } else { epoch() - HOUR };
        let rows = CONNECTIONS.into_iter().zip(case.clients).map(|(id, client)| (id, made(client)));
        let (works, hides) = (fuse.clone(), fuse.clone());
        let table = TableDouble::of_user(rows, move || works.burns());
        let outbound = sqs.outbound(deciding(fuse.clone()), move || hides.burns());
        let dead_letters = sqs.dead_letters(deciding(fuse.clone()));
        let order = if case.fifo { QueueKind::Fifo } else { QueueKind::Standard };
        let rig = Rig::of(order, clients, table, outbound, dead_letters);
        for (place, sent) in case.messages.iter().enumerate() {
            sqs.send(sent.body(place), Some(if sent.group { "g" } else { "h" }), Duration::ZERO);
        }
        Self { case, sqs, fuse, rig }
    }

    /// Runs until the queue is empty.
    async fn run(&self) -> Result<(), TestCaseError> {
        let mut kills = self.case.kills.iter().copied();
        let mut rounds = 0;
        loop {
            let Some(next) = self.sqs.next() else { return Ok(()) };
            self.sqs.wait(next, self.case.frozen).await;
            let event = self.sqs.receive();
            if event.records.is_empty() {
                // A FIFO queue's group waits for its first message.
                self.sqs.wait(self.sqs.instant() + Duration::from_secs(1), self.case.frozen).await;
                continue;
            }
            rounds += 1;
            prop_assert!(rounds < 200, "the queue does not get empty: {:?}", self.sqs.bodies());
            self.fuse.set(kills.next().flatten());
            let report = self.rig.invoke_at(self.sqs.now(), event.clone()).await.unwrap();
            if !self.fuse.is_burnt() {
                self.sqs.acknowledge(&event, &report);
            }
            self.nothing_is_lost()?;
        }
    }

    /// What has not arrived is on the queue, or on the dead-letter queue.
    fn nothing_is_lost(&self) -> Result<(), TestCaseError> {
        let arrived: BTreeSet<_> = self.arrived().into_iter().collect();
        let somewhere: Vec<_> = self.sqs.bodies().into_iter().chain(self.sqs.dead()).collect();
        let is_known = |message: usize, place: usize| {
            arrived.contains(&(message, place))
                || somewhere.iter().any(|body| names(body, message, CONNECTIONS[place]))
        };
        for (message, sent) in self.case.messages.iter().enumerate() {
            if matches!(sent.to, To::Poison) {
                let body = sent.body(message);
                prop_assert!(somewhere.contains(&body), "{} is lost", body);
            }
            for place in
                sent.connections().into_iter().filter(|place| self.case.clients[*place] != Client::Gone)
            {
                let successor =
                    |later: usize| self.case.succeeds(message, later, place) && is_known(later, place);
                let superseded = (message + 1..self.case.messages.len()).any(successor);
                prop_assert!(is_known(message, place) || superseded, "{} to {} is lost", message, place);
            }
        }
        Ok(())
    }

    fn arrived(&self) -> Vec<(usize, usize)> {
        self.rig.worker.gateway.arrived.lock().unwrap().clone()
    }
}

impl Case {
    /// Whether a message may be dropped for a later one, as far as this connection is concerned.
    fn succeeds(&self, message: usize, later: usize, place: usize) -> bool {
        let (message, later) = (&self.messages[message], &self.messages[later]);
        let waits = matches!(message.to, To::User) && !matches!(later.to, To::User);
        message.supersedable && !waits && later.connections().contains(&place)
    }
}

/// Whether a body is that message, still for that connection.
fn names(body: &str, message: usize, connection: &str) -> bool {
    let Ok(body) = serde_json::from_str::<Value>(body) else { return false };
    let (to, done) = (&body["to"], &body["retry"]["done"]);
    let among = |ids: &Value| ids.as_array().is_some_and(|ids| ids.contains(&json!(connection)));
    let shard = shard_of(&connection.try_into().unwrap());
    let addressed = to["connection"] == connection
        || (to["tenant"] == "acme" && (to["shard"].is_null() || to["shard"] == shard))
        || among(&to["connections"])
        || (to["user"].is_object() && !among(done));
    body["payload"] == message && addressed
}

fn check(simulation: &Simulation<'_>) -> Result<(), TestCaseError> {
    let Simulation { case, sqs, .. } = simulation;
    let arrived = simulation.arrived();
    let mut times: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    arrived.iter().for_each(|pair| *times.entry(*pair).or_default() += 1);

    // A message is given up only where it was refused, or where workers panicked or were killed again and again.
    let refused = case.posts.contains(&Fault::Status(413)) || case.posts.contains(&Fault::Panic);
    let dead = sqs.dead();
    let bodies = case.messages.iter().enumerate().map(|(place, sent)| sent.body(place));
    let poison: BTreeSet<_> = bodies.filter(|body| body.starts_with("poison")).collect();
    let others = dead.iter().filter(|body| !poison.contains(*body)).count();
    prop_assert!(refused || others == 0, "nothing else is given up: {:?}", dead);
    prop_assert!(poison.iter().all(|body| dead.contains(body)));
    for (message, sent) in case.messages.iter().enumerate() {
        for place in sent.connections() {
            let there = case.clients[place] != Client::Gone;
            let given_up = dead.iter().any(|body| names(body, message, CONNECTIONS[place]));
            let arrived = |message: usize| times.contains_key(&(message, place));
            let successor =
                |later: usize| case.succeeds(message, later, place) && (arrived(later) || refused);
            let superseded = (message + 1..case.messages.len()).any(successor);
            let ends_well = arrived(message) == there || (there && (superseded || (refused && given_up)));
            prop_assert!(ends_well, "{} to {}", message, place);
        }
    }
    let lossless = case.kills.iter().all(Option::is_none)
        && case.sends.iter().all(|fault| *fault == SendFault::None)
        && case.posts.iter().all(|fault| !matches!(fault, Fault::AnswerLost | Fault::Slow | Fault::Panic));
    if lossless && !case.fifo {
        prop_assert!(times.values().all(|times| *times == 1), "without a fault nobody gets anything twice");
    }
    if case.fifo {
        let mut last: BTreeMap<(bool, usize), usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (message, place) in arrived.into_iter().filter(|pair| seen.insert(*pair)) {
            let last = last.entry((case.messages[message].group, place)).or_default();
            // A client drops a supersedable message that is older than what it has seen.
            let overtaken = *last > message && !case.messages[message].supersedable;
            prop_assert!(!overtaken, "{} overtook {} to {}", *last, message, place);
            *last = message.max(*last);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn however_workers_are_killed_nothing_is_lost_and_all_arrives(case in case()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let simulation = Simulation::new(&case);
            simulation.run().await?;
            check(&simulation)
        })?;
    }
}
