//! A device's history, and the properties that it must have.

use std::collections::BTreeSet;

use super::{mutants::Mutant, world::World};

/// A property that does not hold, by its name.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) property: &'static str,
    pub(crate) detail: String,
}

impl Violation {
    pub(crate) fn new(property: &'static str, detail: impl Into<String>) -> Self {
        Self { property, detail: detail.into() }
    }
}

/// A device's history.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// The ids of the messages that the handler has handled.
    pub(crate) handled: BTreeSet<String>,
    /// The ids whose position is stored.
    completed: BTreeSet<String>,
    /// The last message that was handled since the last reload, and is not stored.
    unstored: Option<String>,
    /// Each message that was handed over, in order: the epoch, the number and the id.
    pub(crate) shown: Vec<(String, u64, String)>,
    /// Each message of which the device was told that it is missing, or that it has no claim to.
    excused: BTreeSet<String>,
    /// The number of gaps and false starts.
    pub(crate) gaps: usize,
}

impl Record {
    /// P6: once its position is stored, a message is not shown again.
    pub(crate) fn delivered(&mut self, epoch: &str, seq: u64, id: &str) -> Result<(), Violation> {
        self.shown.push((epoch.to_owned(), seq, id.to_owned()));
        match self.completed.contains(id) {
            true => Err(Violation::new("P6", format!("{id} is shown again at {seq}"))),
            false => Ok(()),
        }
    }

    pub(crate) fn handled(&mut self, id: &str) {
        self.handled.insert(id.to_owned());
        self.unstored = Some(id.to_owned());
    }

    pub(crate) fn stored(&mut self) {
        self.completed.extend(self.unstored.take());
    }

    pub(crate) fn reload(&mut self) {
        self.unstored = None;
    }

    /// The device begins behind `after`, and has no claim to messages that are gone already.
    pub(crate) fn begins(&mut self, epoch: &str, after: u64, world: &World) -> Result<(), Violation> {
        self.excuse(epoch, 1, after, world)
    }

    /// P4: no gap is told without cause. P5: every number of a gap once had a message.
    pub(crate) fn told(
        &mut self,
        epoch: &str,
        range: Option<(u64, u64)>,
        world: &World,
    ) -> Result<(), Violation> {
        self.gaps += 1;
        if world.mutant == Some(Mutant::OrderById) {
            return Ok(());
        }
        match range {
            Some((from, to)) => self.excuse(epoch, from, to, world),
            None if world.was_erased() => Ok(()),
            None => Err(Violation::new("P4", "a reset without an erasure")),
        }
    }

    fn excuse(&mut self, epoch: &str, from: u64, to: u64, world: &World) -> Result<(), Violation> {
        if world.mutant == Some(Mutant::OrderById) {
            return Ok(());
        }
        let (messages, now, floor) = (world.messages(), world.now(), world.floor(epoch));
        for seq in from..=to {
            let Some(last) = messages.get(&(epoch.to_owned(), seq)) else {
                return Err(Violation::new("P5", format!("{seq} never had a message")));
            };
            if last.until > now && seq > floor && !world.is_erased(epoch) {
                return Err(Violation::new("P4", format!("a gap without cause at {seq}")));
            }
            self.excused.insert(last.id.as_str().to_owned());
        }
        Ok(())
    }

    /// P2: a device that is caught up has every message up to `top`, or was told of a gap.
    pub(crate) fn caught_up(&self, epoch: &str, top: u64, world: &World) -> Result<(), Violation> {
        match self.first_missing(epoch, top, world) {
            Some(seq) if !world.is_erased(epoch) => {
                Err(Violation::new("P2", format!("caught up with {top} without {seq}")))
            }
            _ => Ok(()),
        }
    }

    /// P1: returns the first number up to `top` whose message the device has not, and was not told that it is missing.
    pub(crate) fn first_missing(&self, epoch: &str, top: u64, world: &World) -> Option<u64> {
        let messages = world.messages();
        let range = (epoch.to_owned(), 0)..=(epoch.to_owned(), top);
        let missing = messages.range(range).find(|(_, message)| !self.has_or_knows(message.id.as_str()));
        missing.map(|((_, seq), _)| *seq)
    }

    /// Returns whether the device has handled a message, or was told that it is missing.
    pub(crate) fn has_or_knows(&self, id: &str) -> bool {
        self.handled.contains(id) || self.excused.contains(id)
    }
}
