//! The calls that a table has served and the units that DynamoDB would charge for them.

use std::collections::BTreeMap;

/// An operation on the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "they are the methods of `Table`")]
pub enum Call {
    Head,
    CreateHead,
    PutMessage,
    HoldMessage,
    RaiseTop,
    RaiseFloor,
    RenewHead,
    Messages,
    NewestIds,
    PutDevice,
    DeleteDevice,
    Devices,
    ItemKeys,
    DeleteItems,
}

/// Calls and their units.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of calls.
    pub calls: usize,
    /// Read units: 4 KB of consistent reads each.
    pub reads: usize,
    /// Write units: 1 KB each.
    pub writes: usize,
}

/// The usage by operation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bill(BTreeMap<Call, Usage>);

impl Bill {
    /// Returns the usage of one operation.
    #[must_use]
    pub fn of(&self, call: Call) -> Usage {
        self.0.get(&call).copied().unwrap_or_default()
    }

    /// Returns the usage of all operations.
    #[must_use]
    pub fn total(&self) -> Usage {
        self.0.values().fold(Usage::default(), |total, usage| Usage {
            calls: total.calls + usage.calls,
            reads: total.reads + usage.reads,
            writes: total.writes + usage.writes,
        })
    }

    pub(super) fn count(&mut self, call: Call) {
        self.0.entry(call).or_default().calls += 1;
    }

    /// Charges a consistent read of so many bytes. One without a result costs a unit too.
    pub(super) fn read(&mut self, call: Call, bytes: usize) {
        self.0.entry(call).or_default().reads += bytes.div_ceil(4096).max(1);
    }

    /// Charges a write of an item of so many bytes. A refused one costs as much.
    pub(super) fn write(&mut self, call: Call, bytes: usize) {
        self.0.entry(call).or_default().writes += bytes.div_ceil(1024).max(1);
    }
}
