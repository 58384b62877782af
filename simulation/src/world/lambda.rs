//! Lambda: event source mappings that poll the queues, and the execution environments of the worker.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use delivery_worker::time::Time;
use streamer_tests::worker::Rig;
use tokio::time::sleep;

use super::{Clock, Line, Meter, Queue};
use crate::model::{COLD_START, EVENT_CPU, MAX_POLLERS, POLLERS, PROVISIONED, Setup, TIMEOUT};

/// An environment's share of a CPU, or several environments' shares.
#[derive(Debug, Clone)]
pub struct Cpu {
    clock: Clock,
    share: f64,
    meter: Meter,
    /// When all charged work is done, in milliseconds.
    free_at: Arc<Mutex<f64>>,
}

impl Cpu {
    /// Creates an idle CPU.
    #[must_use]
    pub fn new(clock: Clock, share: f64, meter: Meter) -> Self {
        Self { clock, share, meter, free_at: Arc::default() }
    }

    /// Charges work that begins when all earlier work is done, and returns when it is done, in milliseconds.
    pub fn charge(&self, work: Duration) -> f64 {
        let millis = work.as_secs_f64() * 1000.0;
        self.meter.figures().cpu += millis;
        let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
        *free_at = free_at.max(self.clock.millis() as f64) + millis / self.share;
        *free_at
    }
}

/// An execution environment of the worker.
pub(crate) struct Environment {
    rig: Rc<Rig<Line>>,
    cpu: Cpu,
}

/// All execution environments.
pub struct Fleet {
    clock: Clock,
    create: Box<dyn Fn() -> (Rc<Rig<Line>>, Cpu)>,
    /// Environments without an invocation, of which the one used last is used first.
    idle: RefCell<Vec<Rc<Environment>>>,
    /// The bill.
    pub usage: RefCell<Usage>,
}

/// The usage that Lambda bills.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Usage {
    /// Invocations.
    pub invocations: u64,
    /// Execution environments that were created.
    pub environments: u64,
    /// Time of invocations and cold starts, in milliseconds.
    pub billed: u64,
    /// Time of the invocation that ended last, in milliseconds.
    pub last: u64,
}

impl Fleet {
    /// Creates a fleet without environments.
    pub fn new(clock: Clock, create: impl Fn() -> (Rc<Rig<Line>>, Cpu) + 'static) -> Self {
        let (idle, usage) = (RefCell::default(), RefCell::default());
        Self { clock, create: Box::new(create), idle, usage }
    }

    /// Returns an idle environment, after a cold start where there is none.
    async fn environment(&self) -> Rc<Environment> {
        let idle = self.idle.borrow_mut().pop();
        if let Some(environment) = idle {
            return environment;
        }
        let (rig, cpu) = (self.create)();
        {
            let mut usage = self.usage.borrow_mut();
            usage.environments += 1;
            usage.billed += COLD_START.as_millis() as u64;
        }
        sleep(COLD_START).await;
        Rc::new(Environment { rig, cpu })
    }
}

/// The mapping of a queue to the worker.
pub struct Mapping {
    queue: Queue,
    setup: Arc<Setup>,
    fleet: Rc<Fleet>,
    most: usize,
    active: Cell<usize>,
    ramp: RefCell<Ramp>,
    /// The highest number of concurrent invocations, and the milliseconds for which messages waited for the ramp and
    /// for the maximum concurrency.
    pub load: Cell<Load>,
}

/// How far a mapping was used.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// The highest number of concurrent invocations.
    pub peak: usize,
    /// Milliseconds for which messages waited for more pollers.
    pub ramp: u64,
    /// Milliseconds for which messages waited at the maximum concurrency.
    pub full: u64,
}

/// The concurrent batches that a mapping makes, which grow while messages wait.
#[derive(Debug)]
struct Ramp {
    allowed: f64,
    per_minute: f64,
    at: u64,
    /// Whether messages have waited since `at`.
    waits: bool,
}

impl Mapping {
    /// Creates the mapping of a queue with a maximum concurrency.
    #[must_use]
    pub fn new(queue: Queue, setup: Arc<Setup>, fleet: Rc<Fleet>, concurrency: usize) -> Rc<Self> {
        let (first, per_minute) = match setup.provisioned {
            Some(pollers) => (pollers as f64 * PROVISIONED.0, PROVISIONED.1),
            None => POLLERS,
        };
        let ramp = Ramp { allowed: first, per_minute, at: 0, waits: false };
        let most = concurrency.min(MAX_POLLERS);
        Rc::new(Self {
            queue,
            setup,
            fleet,
            most,
            active: Cell::new(0),
            ramp: RefCell::new(ramp),
            load: Cell::default(),
        })
    }

    /// Polls the queue and invokes the worker, until the task is dropped.
    pub async fn run(self: Rc<Self>) {
        loop {
            while self.is_batch_due() && self.active.get() < self.allowed() {
                let event = self.queue.receive(self.setup.batch);
                self.active.set(self.active.get() + 1);
                let load = self.load.get();
                self.load.set(Load { peak: load.peak.max(self.active.get()), ..load });
                tokio::task::spawn_local(Rc::clone(&self).invoke(event));
            }
            self.ramp.borrow_mut().waits = self.is_batch_due();
            let wake = self.wake();
            tokio::select! {
                () = self.queue.changed.notified() => {}
                () = self.fleet.clock.wait_until(wake) => {}
            }
        }
    }

    /// Whether a batch is complete, or has waited for the window.
    fn is_batch_due(&self) -> bool {
        let visible = self.queue.visible();
        let window = self.setup.window.as_millis() as u64;
        let now = self.fleet.clock.millis();
        visible >= self.setup.batch
            || (visible > 0 && self.queue.oldest().is_some_and(|oldest| oldest + window <= now))
    }

    /// Returns the concurrent invocations that are allowed now.
    fn allowed(&self) -> usize {
        let now = self.fleet.clock.millis();
        let mut ramp = self.ramp.borrow_mut();
        let waited = if ramp.waits { now - ramp.at } else { 0 };
        let mut load = self.load.get();
        match ramp.allowed as usize >= self.most {
            true => load.full += waited,
            false => load.ramp += waited,
        }
        self.load.set(load);
        ramp.allowed = (ramp.allowed + waited as f64 * ramp.per_minute / 60_000.0).min(self.most as f64);
        ramp.at = now;
        (ramp.allowed as usize).min(self.most)
    }

    /// Returns when to look again without a notification, in milliseconds.
    fn wake(&self) -> f64 {
        let now = self.fleet.clock.millis();
        let ramp = self.ramp.borrow();
        let more = (ramp.waits && (ramp.allowed as usize) < self.most).then(|| {
            let missing = ramp.allowed.floor() + 1.0 - ramp.allowed;
            now + (missing * 60_000.0 / ramp.per_minute).ceil().max(1.0) as u64
        });
        let window = self.setup.window.as_millis() as u64;
        let window = self.queue.oldest().map(|oldest| oldest + window).filter(|due| *due > now);
        let next = self.queue.next().into_iter().chain(more).chain(window).min();
        next.map_or(now + 60_000, |at| at.max(now + 1)) as f64
    }

    async fn invoke(self: Rc<Self>, event: streamer_events::SqsEvent) {
        let (clock, fleet) = (self.fleet.clock, &self.fleet);
        let ids: Vec<_> = event.records.iter().filter_map(|record| record.message_id.clone()).collect();
        let environment = fleet.environment().await;
        let began = clock.millis();
        let time = Time::start(clock.wall(), clock.wall() + TIMEOUT, TIMEOUT);
        if let Some(emulator) = &self.setup.emulator {
            sleep(emulator.dispatch).await;
        }
        clock.wait_until(environment.cpu.charge(EVENT_CPU)).await;
        let reported: BTreeSet<_> = match environment.rig.worker.handle(event, time).await {
            Ok(response) => {
                response.batch_item_failures.into_iter().map(|failure| failure.item_identifier).collect()
            }
            Err(_) => ids.iter().cloned().collect(),
        };
        if let Some(emulator) = &self.setup.emulator {
            sleep(emulator.rest).await;
        }
        {
            let mut usage = fleet.usage.borrow_mut();
            usage.invocations += 1;
            usage.last = (clock.millis() - began).max(1);
            usage.billed += usage.last;
        }
        self.queue.acknowledge(&ids, &reported);
        fleet.idle.borrow_mut().push(environment);
        self.active.set(self.active.get() - 1);
        self.queue.changed.notify_one();
    }
}
