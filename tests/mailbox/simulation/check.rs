//! The properties of a case that is at rest.

use std::collections::{BTreeMap, BTreeSet};

use super::{device::Device, mutants::Mutant, record::Violation, run::Run};
use crate::stream;

impl Run<'_> {
    /// P1 without an idle sync: each device has the messages that have not expired. An erasure removes devices too.
    pub(crate) fn check_live(&self) -> Result<(), Violation> {
        let now = self.world.now();
        let live = || self.queue.iter().map(|queued| &queued.received).filter(|message| message.until > now);
        for device in self.devices.iter().filter(|_| !self.world.was_erased()) {
            if let Some(lost) = live().find(|message| !device.record.has_or_knows(message.id.as_str())) {
                return Err(Violation::new("P1", format!("a device never got {}", lost.id)));
            }
        }
        Ok(())
    }

    /// Checks the properties of a case that is at rest.
    pub(crate) fn check(&self) -> Result<(), Violation> {
        let Some(head) = self.world.table.peek(&stream()) else { return Ok(()) };
        let epoch = format!("{}.0", head.epoch);
        self.check_numbers(&epoch, head.top)?;
        for device in &self.devices {
            if let Some(seq) = device.record.first_missing(&epoch, head.top, &self.world) {
                return Err(Violation::new("P1", format!("a device never got {seq}")));
            }
        }
        self.check_order()
    }

    /// P5: every number up to `top` had a message. P7: without removals, a message has one number.
    fn check_numbers(&self, epoch: &str, top: u64) -> Result<(), Violation> {
        if self.world.mutant == Some(Mutant::OrderById) {
            return Ok(());
        }
        let messages = self.world.messages();
        let mut ids = BTreeSet::new();
        let may_repeat = self.world.was_erased() || self.case.rates.leap > 0 || self.case.max_messages < 100;
        for seq in 1..=top {
            let Some(message) = messages.get(&(epoch.to_owned(), seq)) else {
                return Err(Violation::new("P5", format!("{seq} never had a message")));
            };
            let copies = self.queue.iter().filter(|queued| queued.received.id == message.id).count();
            if !ids.insert(&message.id) && copies == 1 && !may_repeat {
                return Err(Violation::new("P7", format!("{} is stored again at {seq}", message.id)));
            }
        }
        Ok(())
    }

    /// P3: any two devices were shown their common messages in the same order, and the same message at each number
    /// unless the stream was erased. A message that has two numbers, or had another before an erasure, is left out.
    fn check_order(&self) -> Result<(), Violation> {
        let stored = self.world.messages();
        let stored = stored.iter().map(|(number, message)| (number.clone(), message.id.as_str().to_owned()));
        let shown = self.devices.iter().flat_map(|device| device.record.shown.iter().cloned());
        let (mut numbers, mut ids) = (BTreeMap::<_, BTreeSet<_>>::new(), BTreeMap::new());
        for (number, id) in stored.chain(shown.map(|(epoch, seq, id)| ((epoch, seq), id))) {
            numbers.entry(id.clone()).or_default().insert(number.clone());
            let first = ids.entry(number).or_insert_with(|| id.clone());
            if *first != id && !self.world.was_erased() {
                return Err(Violation::new("P3", format!("{first} and {id} have the same number")));
            }
        }
        let order = |device: &Device| {
            let mut seen = BTreeSet::new();
            let ids = device.record.shown.iter().map(|(_, _, id)| id.clone());
            ids.filter(|id| numbers[id].len() == 1 && seen.insert(id.clone())).collect::<Vec<_>>()
        };
        let orders: Vec<_> = self.devices.iter().map(order).collect();
        for (index, first) in orders.iter().enumerate() {
            for second in &orders[index + 1..] {
                let common = |of: &[String], other: &[String]| {
                    of.iter().filter(|id| other.contains(id)).cloned().collect::<Vec<_>>()
                };
                if common(first, second) != common(second, first) {
                    return Err(Violation::new("P3", format!("{first:?} and {second:?}")));
                }
            }
        }
        Ok(())
    }
}
