//! The modelled world around the worker: SQS, Lambda, API Gateway and DynamoDB, in virtual time.
//!
//! ```text
//! load ─▶ Queue ─▶ Mapping ─▶ Environment: Worker::handle ─▶ Line ─▶ Account
//!           ▲                        │      ▲
//!           └── hand-backs, parts ───┘      ├── Crowd: generated rows
//!                                           └── Streams: kept messages
//! ```

mod clock;
mod gateway;
mod lambda;
mod mailbox;
mod meter;
mod note;
mod queue;

use std::{rc::Rc, sync::Arc, time::Duration};

use delivery_worker::admission::Gate;
use streamer_queue::Queue as WorkerQueue;
use streamer_tests::{
    doubles::{Answer, CallsDouble, Crowd, QueueDouble, SentEntry, TableDouble, Told},
    event::OUTBOUND_ARN,
    worker::{PARTS_ARN, Rig},
};
use tokio::{runtime::Builder, task::LocalSet, time::sleep};

pub use self::{
    clock::Clock,
    gateway::{Account, Line},
    lambda::{Cpu, Fleet, Load, Mapping, Usage},
    mailbox::{Kept, Streams, USER, is_away},
    meter::{Figures, Meter},
    note::{Kind, Note},
    queue::{Counts, Queue},
};
use crate::{
    model::{QUERY, QUERY_CPU, SQS_CALL, Setup},
    report::Report,
};

/// The URLs of the queues whose ARNs the harness names.
const OUTBOUND_URL: &str = "https://sqs.example.com/123456789012/outbound";
const PARTS_URL: &str = "https://sqs.example.com/123456789012/parts";

/// The tenant of all simulated connections.
pub const TENANT: &str = "acme";

/// The producers' side of the world.
#[derive(Clone)]
pub struct Producers {
    /// The world's clock.
    pub clock: Clock,
    outbound: Queue,
    parts: Option<Queue>,
}

impl Producers {
    /// Puts a message on the outbound queue.
    pub fn send(&self, body: String) {
        self.outbound.send(body, 0);
    }

    fn queues(&self) -> impl Iterator<Item = &Queue> {
        std::iter::once(&self.outbound).chain(&self.parts)
    }
}

/// Returns a double of a queue behind the worker's calls.
fn double(queue: &Queue, latency: Duration) -> CallsDouble {
    let queue = queue.clone();
    let script = move |_: usize, entries: &[SentEntry]| {
        queue.count_call();
        for entry in entries {
            let seconds = entry.seconds.unwrap_or(0);
            match &entry.receipt {
                // A standard queue's records are hidden only if SQS accepts no hand-back, which it does here.
                Some(receipt) => queue.hide(receipt, seconds),
                None => queue.send(entry.body.clone(), seconds),
            }
        }
        Answer { after: latency, what: Told::Entries(Vec::new()) }
    };
    CallsDouble::new(script).forgetting()
}

/// Runs a load on a deployment with so many connections of [`TENANT`], until every message has completed.
///
/// # Panics
/// When the runtime cannot start.
pub fn run<Load: Future<Output = ()>>(
    setup: &Setup,
    connections: usize,
    seed: u64,
    load: impl FnOnce(Producers) -> Load,
) -> Report {
    fastrand::seed(seed);
    let mut runtime = Builder::new_current_thread();
    #[expect(clippy::expect_used, reason = "it has no I/O driver that could fail")]
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    LocalSet::new().block_on(&runtime, simulate(setup, connections, seed, load))
}

async fn simulate<Load: Future<Output = ()>>(
    setup: &Setup,
    connections: usize,
    seed: u64,
    load: impl FnOnce(Producers) -> Load,
) -> Report {
    let (clock, setup, meter) = (Clock::start(), Arc::new(setup.clone()), Meter::default());
    let account = Account::new(clock, Arc::clone(&setup), meter.clone(), seed);
    let query = QUERY + QUERY_CPU.div_f64(setup.cpu());
    let query = setup.emulator.map_or(query, |emulator| emulator.query);
    let crowd = Crowd::new([(TENANT, connections)]).paged(usize::MAX, query);
    let outbound = Queue::new(clock, OUTBOUND_ARN, seed + 1, setup.emulator.is_some());
    let parts = setup.parts_concurrency;
    let parts = parts.map(|_| Queue::new(clock, PARTS_ARN, seed + 2, setup.emulator.is_some()));
    let producers = Producers { clock, outbound, parts };

    let streams = setup.away.map(|away| Streams::new(clock, away));
    let environments = environments(clock, &setup, &account, &meter, &producers, (&crowd, streams.as_ref()));
    let fleet = Rc::new(Fleet::new(clock, environments));
    let limits = std::iter::once(setup.concurrency).chain(setup.parts_concurrency);
    let mappings: Vec<_> = producers.queues().zip(limits).collect();
    let mappings = mappings
        .into_iter()
        .map(|(queue, limit)| Mapping::new(queue.clone(), Arc::clone(&setup), Rc::clone(&fleet), limit));
    let mappings: Vec<_> = mappings.collect();
    let polls: Vec<_> = mappings.iter().map(|one| tokio::task::spawn_local(Rc::clone(one).run())).collect();
    let depth = tokio::task::spawn_local(watch(producers.clone(), meter.clone()));

    load(producers.clone()).await;
    let is_idle = || producers.queues().all(|queue| queue.depth() == 0);
    while !is_idle() {
        sleep(Duration::from_millis(50)).await;
    }
    polls.iter().chain([&depth]).for_each(tokio::task::JoinHandle::abort);
    let counts = producers.queues().map(Queue::counts);
    let loads = mappings.iter().map(|mapping| mapping.load.get());
    let figures = std::mem::take(&mut *meter.figures());
    let usage = *fleet.usage.borrow();
    let report = Report::new(&setup, clock.millis(), figures, usage, counts, loads, crowd.read());
    Report { kept: streams.as_ref().map(Streams::kept).unwrap_or_default(), ..report }
}

/// Returns a function that creates the worker of an environment, or gives all environments the same one.
fn environments(
    clock: Clock,
    setup: &Arc<Setup>,
    account: &Account,
    meter: &Meter,
    producers: &Producers,
    (crowd, streams): (&Crowd, Option<&Streams>),
) -> impl Fn() -> (Rc<Rig<Line>>, Cpu) + 'static + use<> {
    let (table, streams) = (crowd.client(), streams.cloned());
    let latency = setup.emulator.map_or(SQS_CALL, |emulator| emulator.send);
    let worker_queue = |queue: &Queue, url| WorkerQueue::new(double(queue, latency).client(), url);
    let outbound = worker_queue(&producers.outbound, OUTBOUND_URL);
    let parts = producers.parts.as_ref().map(|parts| worker_queue(parts, PARTS_URL));
    let (setup, account, meter) = (Arc::clone(setup), account.clone(), meter.clone());
    let create = move |share: f64, pace: Option<u32>| {
        let cpu = Cpu::new(clock, share, meter.clone());
        let line = Line { account: account.clone(), cpu: cpu.clone() };
        let mut rig = Rig::on(line, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking());
        rig.worker.table = Some(table.clone());
        rig.worker.mailbox = streams.as_ref().map(|streams| streams.of(&cpu).mailbox());
        rig.worker.outbound = outbound.clone();
        rig.worker.parts = parts.clone();
        rig.worker.gate = Gate::new(pace);
        (Rc::new(rig), cpu)
    };
    let number = setup.environments() as u32;
    let shared = setup
        .shares
        .then(|| create(setup.cpu() * f64::from(number), setup.pace.map(|pace| pace.saturating_mul(number))));
    move || shared.clone().unwrap_or_else(|| create(setup.cpu(), setup.pace))
}

/// Records the messages on the queues at the end of each second.
async fn watch(producers: Producers, meter: Meter) {
    loop {
        sleep(Duration::from_secs(1)).await;
        let depth = producers.queues().map(Queue::depth).sum();
        meter.figures().depth.push(depth);
    }
}
