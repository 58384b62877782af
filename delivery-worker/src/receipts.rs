//! Decides from the outcomes of a batch which receipts are due.
//!
//! A record that ends has one receipt, over all its attempts: a message that is handed back carries the counts of the
//! connections that have settled. A record whose audience became parts has a receipt that names them. The rest of such
//! an audience, if it could not be read to its end, is a part of its own.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;
use streamer_message::{
    Audience, ConnectionId, MessageId, OutcomeCounts, Parts, Receipt, ReceiptOutcome, ReceiptRequest,
    Request, Version, is_part_name,
};

use crate::{
    decode::{Pair, Poison, Record},
    outcome::{Completed, Outcome},
    outgoing::clean,
};

/// The accounts of the records whose producers asked for a receipt, by the record's index.
pub type Accounts = BTreeMap<usize, Account>;

/// The outcomes of one record's message, over all attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    asked: Asked,
    /// The connections that have settled, this time and before.
    settled: OutcomeCounts,
    /// The connections of a user that are counted as gone.
    gone: BTreeSet<ConnectionId>,
    /// The best outcome of this time and before. `None` if nothing has settled.
    outcome: Option<ReceiptOutcome>,
    cause: Option<String>,
    /// The parts that the audience became this time.
    parts: Option<Parts>,
    /// The outcome of what is left of the audience behind its parts. `None` if it is handed back.
    rest: Option<ReceiptOutcome>,
    /// Whether the message, or its rest, is handed back.
    is_handed_back: bool,
}

/// A message whose producer asked for a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Asked {
    id: MessageId,
    to: Option<Audience>,
    request: Option<Request>,
    notes: ReceiptRequest,
}

impl Asked {
    fn of(record: &Record) -> Option<Self> {
        match &record.content {
            Ok(message) => {
                let envelope = &message.envelope;
                let notes = envelope.receipt.clone()?;
                let (id, to, request) = (envelope.id.clone(), envelope.to.clone(), envelope.request.clone());
                Some(Self { id, to: Some(to), request, notes })
            }
            Err(Poison::Body(_)) => Self::of_poison(record.text()),
            Err(Poison::NoBody) => None,
        }
    }

    /// Reads the fields of a body that is not a valid message, as far as they are valid.
    fn of_poison(body: &str) -> Option<Self> {
        let body: Value = serde_json::from_str(body).ok()?;
        let field = |name| body.get(name).cloned().unwrap_or_default();
        let part = body.pointer("/receipt/part").and_then(Value::as_str);
        let part = part.filter(|part| is_part_name(part)).map(str::to_owned);
        let is_asked = field("receipt") == true || part.is_some();
        Some(Self {
            id: serde_json::from_value(field("id")).ok().filter(|_| is_asked)?,
            to: serde_json::from_value(field("to")).ok(),
            request: serde_json::from_value(field("request")).ok(),
            notes: ReceiptRequest { part, ..ReceiptRequest::default() },
        })
    }
}

/// Counts the pairs of the records whose producers asked for a receipt.
#[must_use]
pub fn count_pairs(records: &[Record], pairs: &[Pair<'_>]) -> HashMap<usize, u64> {
    let mut counts = HashMap::new();
    if records.iter().any(asks) {
        for pair in pairs.iter().filter(|pair| asks(&records[pair.index])) {
            *counts.entry(pair.index).or_default() += 1;
        }
    }
    counts
}

/// Returns the accounts of all records whose producers asked for a receipt. `pairs` are the numbers of pairs from
/// [`count_pairs`]. On a FIFO queue, a pair without an outcome was delivered by an earlier invocation.
#[must_use]
pub fn accounts(records: &[Record], completed: &[Completed], pairs: &HashMap<usize, u64>) -> Accounts {
    let asked = records.iter().enumerate().filter(|(_, record)| may_ask(record));
    let mut accounts: Accounts =
        asked.filter_map(|(index, record)| Some((index, Account::new(Asked::of(record)?)))).collect();
    if accounts.is_empty() {
        return accounts;
    }
    let mut unserved: HashMap<usize, u64> = HashMap::new();
    for pair in completed {
        if let Some(account) = accounts.get_mut(&pair.index) {
            account.add(pair);
            *unserved.entry(pair.index).or_default() += u64::from(pair.connection.is_some());
        }
    }
    for (index, account) in &mut accounts {
        let number = |counts: &HashMap<usize, u64>| counts.get(index).copied().unwrap_or_default();
        account.settle(ReceiptOutcome::Delivered, number(pairs).saturating_sub(number(&unserved)));
    }
    accounts
}

fn asks(record: &Record) -> bool {
    record.content.as_ref().is_ok_and(|message| message.envelope.receipt.is_some())
}

fn may_ask(record: &Record) -> bool {
    asks(record) || (record.content.is_err() && record.due.is_none())
}

impl Account {
    fn new(asked: Asked) -> Self {
        let ReceiptRequest { settled, gone, cause, .. } = asked.notes.clone();
        let outcome = settled.keys().min().copied();
        Self { asked, settled, gone, outcome, cause, parts: None, rest: None, is_handed_back: false }
    }

    fn add(&mut self, pair: &Completed) {
        let Some(outcome) = receipt_outcome(&pair.outcome) else {
            self.is_handed_back = true;
            self.parts = self.parts.take().or_else(|| pair.parts.clone());
            return;
        };
        self.cause = self.cause.take().or_else(|| cause(&pair.outcome));
        if let Some(parts) = &pair.parts {
            self.parts = Some(parts.clone());
            self.rest = Some(outcome).filter(|outcome| *outcome != ReceiptOutcome::Expanded);
            return;
        }
        if let Some(connection) = &pair.connection {
            self.count(outcome, connection);
        }
        self.improve(outcome);
    }

    /// Counts a connection. A user's connection that was gone may be tried again: it counts once, with its last outcome.
    fn count(&mut self, outcome: ReceiptOutcome, connection: &ConnectionId) {
        if let Some(Audience::User { .. }) = self.asked.to {
            let is_gone = outcome == ReceiptOutcome::Gone;
            let was_gone = match is_gone {
                true => !self.gone.insert(connection.clone()),
                false => self.gone.remove(connection),
            };
            if was_gone && is_gone {
                return;
            }
            if was_gone {
                self.uncount_gone();
            }
        }
        self.settle(outcome, 1);
    }

    /// Takes back the count of a connection that was gone.
    fn uncount_gone(&mut self) {
        let gone = self.settled.entry(ReceiptOutcome::Gone).or_default();
        *gone = gone.saturating_sub(1);
        if *gone == 0 {
            self.settled.remove(&ReceiptOutcome::Gone);
            self.outcome = self.outcome.filter(|outcome| *outcome != ReceiptOutcome::Gone);
        }
    }

    /// Counts connections with an outcome.
    fn settle(&mut self, outcome: ReceiptOutcome, connections: u64) {
        if connections > 0 {
            *self.settled.entry(outcome).or_default() += connections;
            self.improve(outcome);
        }
    }

    /// Notes an outcome, of which the best one stays.
    fn improve(&mut self, outcome: ReceiptOutcome) {
        self.outcome = Some(self.outcome.map_or(outcome, |best| best.min(outcome)));
    }

    /// Returns the parts, with the rest of the audience if there is one.
    fn all_parts(&self) -> Option<Parts> {
        let has_rest = self.is_handed_back || self.rest.is_some();
        self.parts.clone().map(|parts| Parts { rest: has_rest, ..parts })
    }

    /// Returns the name of the rest of the audience, if the message became parts.
    fn rest_name(&self) -> Option<String> {
        self.parts.as_ref().map(Parts::rest_name)
    }

    /// Returns the notes for the message that is handed back.
    #[must_use]
    pub fn notes_of_hand_back(&self) -> ReceiptRequest {
        match self.rest_name() {
            Some(name) => ReceiptRequest { part: Some(name), ..ReceiptRequest::default() },
            None => {
                let part = self.asked.notes.part.clone();
                let (settled, gone) = (self.settled.clone(), self.gone.clone());
                ReceiptRequest { part, settled, gone, cause: self.cause.clone() }
            }
        }
    }

    /// Returns the notes for a dead letter with so many connections of this outcome, so that the receipt of the
    /// redriven message counts all connections that had settled by then. A redrive of a user's message posts to all
    /// connections of the user again.
    #[must_use]
    pub fn notes_of_dead_letter(&self, outcome: &Outcome, connections: usize) -> ReceiptRequest {
        let part = self.asked.notes.part.clone();
        if let Some(Audience::User { .. }) = self.asked.to {
            return ReceiptRequest { part, ..ReceiptRequest::default() };
        }
        if let Some(name) = self.rest_name() {
            return ReceiptRequest { part: Some(name), ..ReceiptRequest::default() };
        }
        let mut settled = self.settled.clone();
        if let Some(outcome) = receipt_outcome(outcome) {
            let connections = u64::try_from(connections).unwrap_or(u64::MAX);
            let others = settled.get(&outcome).copied().unwrap_or_default().saturating_sub(connections);
            settled.insert(outcome, others);
            settled.retain(|_, number| *number > 0);
        }
        ReceiptRequest { part, settled, ..ReceiptRequest::default() }
    }

    /// Returns the receipts that are due once the record is settled at `at`, in milliseconds since the epoch: none
    /// while the message goes on as it is, and two if a rest behind parts has ended, too.
    pub fn receipts(&self, record: &Record, at: u64) -> Vec<Receipt> {
        let receipt = |outcome, connections: &OutcomeCounts, part, parts| Receipt {
            version: Version,
            id: self.asked.id.clone(),
            at,
            outcome,
            to: self.asked.to.clone().map(whole),
            connections: connections.clone(),
            connection: None,
            kept: record.position().cloned(),
            attempts: Some(record.attempts()),
            cause: self.cause.as_deref().map(clean),
            request: self.asked.request.clone(),
            part,
            parts,
        };
        let part = self.asked.notes.part.clone();
        if let Some(parts) = self.all_parts() {
            let expanded = receipt(ReceiptOutcome::Expanded, &self.settled, part, Some(parts));
            let expanded = Receipt { cause: None, ..expanded };
            let rest = self.rest.map(|rest| receipt(rest, &OutcomeCounts::new(), self.rest_name(), None));
            return [expanded].into_iter().chain(rest).collect();
        }
        let outcome = self.outcome.filter(|_| !self.is_handed_back);
        outcome.map(|outcome| receipt(outcome, &self.settled, part, None)).into_iter().collect()
    }
}

/// Returns the audience as producers write it.
fn whole(to: Audience) -> Audience {
    match to {
        Audience::Shard { tenant, .. } => Audience::Tenant(tenant),
        to => to,
    }
}

/// Returns the outcome in a receipt. `None` if the pair has not settled.
fn receipt_outcome(outcome: &Outcome) -> Option<ReceiptOutcome> {
    Some(match outcome {
        Outcome::Delivered => ReceiptOutcome::Delivered,
        Outcome::Gone => ReceiptOutcome::Gone,
        Outcome::Expired => ReceiptOutcome::Expired,
        Outcome::Superseded => ReceiptOutcome::Superseded,
        Outcome::NoRecipient => ReceiptOutcome::NoRecipient,
        Outcome::Kept => ReceiptOutcome::Kept,
        Outcome::Expanded => ReceiptOutcome::Expanded,
        Outcome::Rejected(_) => ReceiptOutcome::Rejected,
        Outcome::Poison(_) => ReceiptOutcome::Poison,
        Outcome::Exhausted(_) => ReceiptOutcome::Exhausted,
        Outcome::HandedBack(_) => return None,
    })
}

/// Returns the cause of an outcome, without the body of API Gateway's answer.
fn cause(outcome: &Outcome) -> Option<String> {
    match outcome {
        Outcome::Rejected(cause) => Some(cause.to_string()),
        Outcome::Poison(cause) => Some(cause.to_string()),
        Outcome::Exhausted(cause) => Some(cause.to_string()),
        _ => None,
    }
}
