//! A device: the client's core, its sockets and its storage.

use serde_json::Value;

use super::{
    mutants::Mutant,
    record::{Record, Violation},
    world::World,
};
use crate::client::{Client, Effect, Event, Stored};

/// A device of the user.
pub(crate) struct Device {
    client: Client,
    storage: Option<Stored>,
    /// The newest socket is the last one.
    sockets: Vec<u32>,
    /// When the device opens a socket.
    pub(crate) connects_at: Option<u64>,
    /// When the device notices that its sockets are dead.
    pub(crate) notices_at: Option<u64>,
    /// The id of the message that the handler works on.
    handling: Option<String>,
    pub(crate) record: Record,
    mutant: Option<Mutant>,
}

/// Something that a device can do now.
#[derive(Debug, Clone, Copy)]
enum Action {
    Connect,
    Notice,
    Receive(u32),
    Handle,
    Wake,
}

impl Device {
    pub(crate) fn new(connects_at: u64, mutant: Option<Mutant>) -> Self {
        Self {
            client: Client::new(None),
            storage: None,
            sockets: Vec::new(),
            connects_at: Some(connects_at),
            notices_at: None,
            handling: None,
            record: Record::default(),
            mutant,
        }
    }

    fn actions(&self, world: &World) -> Vec<Action> {
        let (now, is_due) = (world.millis(), |at: Option<u64>| at.is_some_and(|at| at <= world.millis()));
        let sockets = world.sockets.borrow();
        let has_frames = |socket: &&u32| sockets.get(*socket).is_some_and(|socket| !socket.inbox.is_empty());
        let mut actions: Vec<_> =
            self.sockets.iter().filter(has_frames).map(|socket| Action::Receive(*socket)).collect();
        actions.extend(is_due(self.connects_at).then_some(Action::Connect));
        let is_closed = self.sockets.last().is_some_and(|socket| !sockets.contains_key(socket));
        actions.extend((is_closed || is_due(self.notices_at)).then_some(Action::Notice));
        actions.extend(self.handling.is_some().then_some(Action::Handle));
        actions.extend(self.client.wake_at().is_some_and(|at| at <= now).then_some(Action::Wake));
        actions
    }

    /// Returns whether the device can do something now.
    pub(crate) fn is_ready(&self, world: &World) -> bool {
        !self.actions(world).is_empty()
    }

    /// Returns when the device can do something.
    pub(crate) fn next_at(&self) -> Option<u64> {
        [self.connects_at, self.notices_at, self.client.wake_at()].into_iter().flatten().min()
    }

    /// Does one thing at random. Returns the socket and the text of frames that it sends.
    pub(crate) fn act(&mut self, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        let actions = self.actions(world);
        if actions.is_empty() {
            return Ok(Vec::new());
        }
        match actions[fastrand::usize(..actions.len())] {
            Action::Connect => {
                self.connects_at = None;
                self.open(world)
            }
            Action::Notice => {
                self.disconnect(world);
                self.on(&Event::Closed, world)
            }
            Action::Receive(socket) => self.receive(socket, world),
            Action::Handle => {
                let id = self.handling.take().unwrap_or_default();
                self.record.handled(&id);
                self.on(&Event::Handled, world)
            }
            Action::Wake => self.on(&Event::Woken, world),
        }
    }

    /// Opens a socket beside the one that the device may have.
    pub(crate) fn open(&mut self, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        self.sockets.push(world.open_socket());
        self.on(&Event::Opened, world)
    }

    pub(crate) fn idle(&mut self, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        self.on(&Event::Idle, world)
    }

    pub(crate) fn is_connected(&self) -> bool {
        !self.sockets.is_empty() && self.notices_at.is_none()
    }

    /// Cuts the sockets. The device or API Gateway may notice it later.
    pub(crate) fn cut(&mut self, world: &World) {
        for socket in &self.sockets {
            match fastrand::bool() {
                true => world.close_socket(*socket),
                false => {
                    if let Some(socket) = world.sockets.borrow_mut().get_mut(socket) {
                        (socket.is_dead, socket.inbox) = (true, Vec::new());
                    }
                }
            }
        }
        self.notices_at = Some(world.millis() + fastrand::u64(..20_000));
    }

    /// Ends the device's program and starts it again with what it has stored. Its handler may have had its effect.
    pub(crate) fn reload(&mut self, world: &World) {
        if let Some(id) = self.handling.take().filter(|_| fastrand::bool()) {
            self.record.handled(&id);
        }
        self.disconnect(world);
        self.client = Client::new(self.storage.clone());
        self.record.reload();
    }

    fn disconnect(&mut self, world: &World) {
        self.sockets.drain(..).for_each(|socket| world.close_socket(socket));
        self.notices_at = None;
        self.connects_at = Some(world.millis() + fastrand::u64(..3000));
    }

    /// Receives one of the first frames on a socket: frames may overtake each other.
    fn receive(&mut self, socket: u32, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        let text = {
            let mut sockets = world.sockets.borrow_mut();
            let Some(socket) = sockets.get_mut(&socket) else { return Ok(Vec::new()) };
            let index = fastrand::usize(..socket.inbox.len().min(4));
            socket.inbox.remove(index)
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        self.jump(&frame);
        let before = self.client.position.clone();
        let event = Event::Frame { text };
        let effects = self.client.handle(&event, world.millis());
        let epoch = |position: &Option<(String, u64)>| position.as_ref().map(|(epoch, _)| epoch.clone());
        if epoch(&self.client.position) != epoch(&before) {
            let (epoch, after) = (frame["epoch"].as_str().unwrap(), frame["after"].as_u64().unwrap());
            self.record.begins(epoch, after, world)?;
        }
        self.apply(effects, world)
    }

    /// Moves the position of a wrong client to just before a frame that is ahead.
    fn jump(&mut self, frame: &Value) {
        let Some((epoch, position)) = &mut self.client.position else { return };
        let ahead = frame["seq"].as_u64().map(|seq| seq - 1);
        if let Some(ahead) = ahead
            && self.mutant.is_some_and(Mutant::jumps)
            && frame["epoch"] == **epoch
        {
            *position = ahead.max(*position);
        }
    }

    fn on(&mut self, event: &Event, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        let effects = self.client.handle(event, world.millis());
        self.apply(effects, world)
    }

    fn apply(&mut self, effects: Vec<Effect>, world: &World) -> Result<Vec<(u32, String)>, Violation> {
        let mut frames = Vec::new();
        for effect in effects {
            match effect {
                Effect::Send { text } => frames.extend(self.sockets.last().map(|socket| (*socket, text))),
                Effect::Deliver { epoch, seq, id, .. } => {
                    self.record.delivered(&epoch, seq, &id)?;
                    self.handling = Some(id);
                    if self.mutant == Some(Mutant::StoredAtHandOver) {
                        let ids = self.storage.take().map_or_else(Vec::new, |stored| stored.ids);
                        self.storage = Some(Stored { epoch, seq, ids });
                    }
                }
                Effect::Gap { epoch, range, .. } => self.record.told(&epoch, range, world)?,
                Effect::CaughtUp { epoch, top } => self.record.caught_up(&epoch, top, world)?,
                Effect::Store(stored) => {
                    self.record.stored();
                    let keeps_ids = self.mutant != Some(Mutant::IdsNotStored);
                    let ids = if keeps_ids { stored.ids } else { Vec::new() };
                    self.storage = Some(Stored { ids, ..stored });
                }
                Effect::Registered => {
                    let newest = self.sockets.split_off(self.sockets.len().saturating_sub(1));
                    let old = std::mem::replace(&mut self.sockets, newest);
                    old.into_iter().for_each(|socket| world.close_socket(socket));
                }
                Effect::Reconnect => {
                    self.disconnect(world);
                    self.client.handle(&Event::Closed, world.millis());
                }
            }
        }
        Ok(frames)
    }
}
