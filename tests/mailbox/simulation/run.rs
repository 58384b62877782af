//! One run of a case.

use std::rc::Rc;

use super::{
    case::{Case, Rates},
    device::Device,
    handler::answer,
    mutants::Mutant,
    record::Violation,
    worker::{Received, work},
    world::World,
};
use crate::{at, id, stream, tasks::Task};

/// Milliseconds for which a Lambda function may run.
const INVOCATION_MILLIS: u64 = 15 * 60 * 1000;

/// Steps after which everything must be at rest.
const MAX_STEPS: u64 = 4000;

/// A message on the queue.
pub(crate) struct Queued {
    pub(crate) received: Received,
    step: u64,
    visible_at: u64,
    is_busy: bool,
    is_done: bool,
    first_receive: Option<u64>,
}

/// A running function.
struct Running {
    task: Task<'static, bool>,
    /// The queue's messages that it handles.
    batch: Vec<usize>,
    began: u64,
    /// Slow tasks take every eighth of their turns.
    is_slow: bool,
    is_erasure: bool,
}

/// A case while it runs.
pub(crate) struct Run<'a> {
    pub(crate) case: &'a Case,
    pub(crate) world: Rc<World>,
    pub(crate) queue: Vec<Queued>,
    running: Vec<Running>,
    pub(crate) devices: Vec<Device>,
    step: u64,
    is_idle_synced: bool,
}

/// Runs a case. Fails with the first property that does not hold.
pub(crate) fn run(case: &Case, mutant: Option<Mutant>) -> Result<Run<'_>, Violation> {
    fastrand::seed(case.seed);
    let mut run = Run::new(case, mutant);
    run.prefill();
    run.world.inject_faults(case.rates.fault);
    while !run.is_at_rest()? {
        run.step()?;
        if run.step > MAX_STEPS {
            return Err(Violation::new("rest", "the devices never come to rest"));
        }
    }
    run.check()?;
    Ok(run)
}

/// An id with the time of its producer's clock, which may be some seconds off.
fn id_of(index: usize, step: u64) -> String {
    format!("m{index}-{}", (1000 + step * 10 + fastrand::u64(..60)) * 100 + index as u64)
}

impl<'a> Run<'a> {
    fn new(case: &'a Case, mutant: Option<Mutant>) -> Self {
        let mut queue = Vec::new();
        for (index, sent) in case.messages.iter().enumerate() {
            let received = Received {
                index: 0,
                id: id(&id_of(index, sent.step)),
                until: at(sent.step / 30 + sent.keep),
                tried_since: None,
            };
            for _ in 0..if sent.twice { 2 } else { 1 } {
                queue.push(Queued {
                    received: Received { index: queue.len(), ..received.clone() },
                    step: sent.step,
                    visible_at: 0,
                    is_busy: false,
                    is_done: false,
                    first_receive: None,
                });
            }
        }
        let devices = (0..case.devices).map(|_| Device::new(fastrand::u64(..3000), mutant)).collect();
        let world = Rc::new(World::new(case, mutant));
        Self { case, world, queue, running: Vec::new(), devices, step: 0, is_idle_synced: false }
    }

    /// Stores the messages that are there before the devices come.
    fn prefill(&mut self) {
        let batch: Vec<_> = (0..self.case.prefilled)
            .map(|index| Received {
                index,
                id: id(&format!("p{index}-{}", index + 1)),
                until: at(7 * 24 * 3600),
                tried_since: None,
            })
            .collect();
        Task::new(work(Rc::clone(&self.world), batch)).finish();
    }

    fn is_calm(&self) -> bool {
        self.step >= self.case.chaos
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.step += 1;
        if !self.is_calm() {
            self.disturb()?;
        } else if self.step == self.case.chaos {
            self.world.inject_faults(0);
        }
        self.end_long_invocations();
        self.receive();
        let ready: Vec<_> =
            (0..self.devices.len()).filter(|device| self.devices[*device].is_ready(&self.world)).collect();
        let actors = self.running.len() + ready.len();
        if actors == 0 {
            self.skip();
            return Ok(());
        }
        self.world.pass(fastrand::u64(1..20));
        match fastrand::usize(..actors) {
            task if task < self.running.len() => self.poll(task),
            device => {
                let device = ready[device - self.running.len()];
                let frames = self.devices[device].act(&self.world)?;
                self.send(frames);
            }
        }
        Ok(())
    }

    /// Starts a handler for each frame that a device sends.
    fn send(&mut self, frames: Vec<(u32, String)>) {
        for (socket, text) in frames {
            let world = Rc::clone(&self.world);
            let is_there = world.sockets.borrow().get(&socket).is_some_and(|socket| !socket.is_dead);
            if is_there {
                self.spawn(Vec::new(), async move {
                    answer(world, socket, text).await;
                    true
                });
            }
        }
    }

    fn spawn(&mut self, batch: Vec<usize>, future: impl Future<Output = bool> + 'static) {
        let (began, is_slow) = (self.world.millis(), fastrand::u8(..4) == 0);
        self.running.push(Running { task: Task::new(future), batch, began, is_slow, is_erasure: false });
    }

    /// Lets a worker receive up to three messages.
    fn receive(&mut self) {
        let (now, step) = (self.world.millis(), self.step);
        let is_visible = |queued: &&mut Queued| {
            !queued.is_busy && !queued.is_done && queued.step <= step && queued.visible_at <= now
        };
        let mut batch = Vec::new();
        for queued in self.queue.iter_mut().filter(is_visible).take(fastrand::usize(1..4)) {
            queued.is_busy = true;
            let tried_since = queued.first_receive.map(|millis| at(millis / 1000));
            queued.first_receive.get_or_insert(now);
            batch.push(Received { tried_since, ..queued.received.clone() });
        }
        if !batch.is_empty() {
            let indexes = batch.iter().map(|received| received.index).collect();
            self.spawn(indexes, work(Rc::clone(&self.world), batch));
        }
    }

    fn poll(&mut self, task: usize) {
        if self.running[task].is_slow && fastrand::u8(..8) > 0 {
            return;
        }
        if let Some(done) = self.running[task].task.step() {
            self.end(task, done);
        }
    }

    /// Ends a task. Its messages are visible again after a while if it is not done.
    fn end(&mut self, task: usize, is_done: bool) {
        let ended = self.running.swap_remove(task);
        for index in ended.batch {
            let queued = &mut self.queue[index];
            (queued.is_busy, queued.is_done) = (false, is_done);
            queued.visible_at = self.world.millis() + fastrand::u64(1000..30_000);
        }
    }

    fn end_long_invocations(&mut self) {
        let now = self.world.millis();
        while let Some(task) = self
            .running
            .iter()
            .position(|running| !running.is_erasure && running.began + INVOCATION_MILLIS < now)
        {
            self.end(task, false);
        }
    }

    /// Passes the time until something can happen.
    fn skip(&mut self) {
        let queued = self.queue.iter().filter(|queued| !queued.is_done && queued.step <= self.step);
        let times = queued.map(|queued| queued.visible_at);
        let next = times.chain(self.devices.iter().filter_map(Device::next_at)).min();
        self.world.pass(next.unwrap_or_default().saturating_sub(self.world.millis()));
    }

    /// Lets something go wrong.
    fn disturb(&mut self) -> Result<(), Violation> {
        let Rates { kill, cut, reload, rotate, leap, ttl, .. } = self.case.rates;
        let happens = |rate: u32| fastrand::u32(..1000) < rate;
        let device = fastrand::usize(..self.devices.len());
        if happens(kill) && !self.running.is_empty() {
            let task = fastrand::usize(..self.running.len());
            if !self.running[task].is_erasure {
                self.end(task, false);
            }
        }
        if happens(cut) && self.devices[device].is_connected() {
            self.devices[device].cut(&self.world);
        }
        if happens(reload) {
            self.devices[device].reload(&self.world);
        }
        if happens(rotate) && self.devices[device].is_connected() {
            let frames = self.devices[device].open(&self.world)?;
            self.send(frames);
        }
        if happens(leap) && self.step < self.case.leaps_end {
            self.world.pass(fastrand::u64(60_000..3 * 3600 * 1000));
            self.world.close_old_sockets();
        }
        if happens(ttl) {
            self.world.table.remove_expired(self.world.now(), |key| key.starts_with('m') && fastrand::bool());
        }
        if self.case.erased && self.step == self.case.chaos / 2 {
            self.erase();
        }
        Ok(())
    }

    fn erase(&mut self) {
        self.world.begin_erasure();
        let (world, mailbox) = (Rc::clone(&self.world), self.world.mailbox(None));
        self.spawn(Vec::new(), async move {
            // An operator runs a failed erasure again.
            while mailbox.erase(&stream()).await.is_err() {}
            world.end_erasure();
            true
        });
        self.running.last_mut().unwrap().is_erasure = true;
    }

    /// Returns whether nothing more will happen. Each device then syncs once more, as idle ones do.
    fn is_at_rest(&mut self) -> Result<bool, Violation> {
        let is_quiet = self.is_calm()
            && self.running.is_empty()
            && self.queue.iter().all(|queued| queued.is_done)
            && self.devices.iter().all(|device| {
                device.is_connected() && device.next_at().is_none() && !device.is_ready(&self.world)
            });
        if is_quiet && !self.is_idle_synced {
            self.is_idle_synced = true;
            self.check_live()?;
            for device in 0..self.devices.len() {
                let frames = self.devices[device].idle(&self.world)?;
                self.send(frames);
            }
            return Ok(false);
        }
        Ok(is_quiet)
    }
}
