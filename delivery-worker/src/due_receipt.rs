//! Receipts that the receipts queue has not confirmed.
//!
//! They travel on the queue that their messages came from, so that nothing waits for the receipts queue: the worker that
//! receives one has only to send it.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use streamer_message::{ReceiptEvent, Retry, dead_letter::Reason, encode_receipt};
use streamer_queue::{Outgoing, QueueKind, VisibilityChange};

use crate::{
    admission::OpenCircuit,
    backoff::{self, Tries},
    decode::{Record, millis},
    outgoing::{DeadLetter, Unfinished, about, dead_letter},
    policy::Policy,
    settle::Settlement,
};

/// The cause for a receipt, or its message, that stays on the queue.
pub(crate) const UNCONFIRMED_RECEIPT: &str = "the receipts queue did not confirm the receipt";

/// A receipt on a queue of messages: its event, with a worker's note.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DueReceipt {
    /// The event.
    #[serde(flatten)]
    pub event: ReceiptEvent,
    /// The note of the worker that handed it back. Absent after a redrive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
}

impl DueReceipt {
    /// Reads a body that is no message. `None` if it is no receipt either.
    pub(crate) fn read(body: &str) -> Option<Box<Self>> {
        serde_json::from_str(body).ok()
    }
}

/// Decides what becomes of receipts that the receipts queue did not confirm. Each comes with the index of its record.
///
/// The receipt of a message is handed back alone. One that was handed back before waits longer each time, and becomes a
/// dead letter once it is too old.
#[must_use]
pub fn hand_back_receipts(
    policy: &Policy,
    records: &[Record],
    unconfirmed: Vec<(usize, ReceiptEvent)>,
    now: SystemTime,
    mut random: impl FnMut() -> f64,
) -> Settlement {
    let mut settlement = Settlement::default();
    for (index, event) in unconfirmed {
        let record = &records[index];
        let is_fifo = policy.queue_kind == QueueKind::Fifo;
        if record.due.is_some() && policy.gives_up(record, now) {
            let why = DeadLetter { reason: Reason::Exhausted.as_str(), detail: UNCONFIRMED_RECEIPT };
            let letter = dead_letter(index, record, Unfinished::default(), why, None, now);
            settlement.dead_letters.push(letter);
            let message_id = event.receipt.id.as_str();
            tracing::error!(message_id, cause = UNCONFIRMED_RECEIPT, "a receipt becomes a dead letter");
        } else if record.due.is_some() && is_fifo {
            let seconds = delay(record.receives, random());
            let change = |receipt_handle| VisibilityChange { receipt_handle, seconds };
            settlement.visibility_changes.extend(record.receipt_handle.clone().map(change));
            settlement.reported.insert(index);
        } else {
            settlement.handed_back.push(hand_back(index, record, event, is_fifo, now, random()));
        }
    }
    settlement
}

fn hand_back(
    index: usize,
    record: &Record,
    event: ReceiptEvent,
    is_fifo: bool,
    now: SystemTime,
    random: f64,
) -> Outgoing {
    let before = record.retry().filter(|_| record.due.is_some());
    let count = before.map_or(0, |retry| retry.count);
    let retry = Retry {
        count: count.saturating_add(1),
        receives: if record.due.is_some() { record.suspicious_receives().saturating_sub(1) } else { 0 },
        since: before.map_or(millis(now), |retry| retry.since),
        cause: UNCONFIRMED_RECEIPT.to_owned(),
        done: Vec::new(),
        after: None,
        kept: None,
    };
    let group = format!("receipt.{}", event.event_id);
    let body = encode_receipt(&DueReceipt { event, retry: Some(retry) });
    let message = Outgoing { body, ..about(index, record) };
    match is_fifo {
        // A group of its own, so that no message waits behind it. A FIFO queue takes no delay for one message.
        true => Outgoing { group: Some(group), ..message },
        false => Outgoing { delay: delay(count, random), ..message },
    }
}

/// Returns the delay of a receipt, in seconds. It stays below that of a long fault, since an alarm counts the minutes in
/// which receipts are handed back.
fn delay(count: u32, random: f64) -> u32 {
    backoff::hand_back(Tries { count, ..Tries::default() }, OpenCircuit::default(), random)
}
