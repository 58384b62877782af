//! Many invocations of workers that crash, around a queue that loses confirmations and a gateway that fails.
//!
//! **Modelled**: a standard or a FIFO queue with its dead-letter queue and event source mapping, the connection
//! table, the mailbox, API Gateway and five clients. Workers are invoked until the queue is empty. Their clock may stop between
//! invocations, as in a frozen environment.
//!
//! **Random**: the messages, the state of each client, the faults of the first posts, of the first calls to the mailbox
//! and of the first messages that workers send, and the call before which a worker crashes, for up to five invocations.
//!
//! **Checked** after each invocation: every message that has not arrived is on the outbound queue or the dead-letter
//! queue, for each of its connections, or is superseded by such a message.
//!
//! Every message that is to be kept is in the mailbox or on a queue.
//!
//! **Checked** at the end:
//! - The mailbox has every message that is to be kept once, whether its user's clients are there or not, and no number
//!   up to `top` is free. On a FIFO queue, the messages of a group are in order.
//! - Every message has arrived at every connected client, is superseded, or is a dead letter after a rejection or
//!   panic.
//! - Without a fault that loses an answer, nothing arrives twice on a standard queue.
//! - On a FIFO queue, no message of a group overtakes another one for the same client.
//! - The receipts of every message that asks for one are complete, and count every connection that the message names,
//!   or every client that is there, once.
//!
//! `case.rs` generates the cases; `world.rs` has the clients and the crashes.

mod case;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use proptest::prelude::*;
use streamer_message::{Receipt, ReceiptOutcome, ReceiptTally};
use streamer_queue::QueueKind;
use streamer_tests::{
    cases,
    doubles::{Entry, MailboxDouble, MailboxFault, QueueDouble, TableDouble},
    event::epoch,
    sqs::Sqs,
    worker::{ENDPOINT, Rig},
};
use tokio::runtime::Builder;

use self::{
    case::{CONNECTIONS, Case, Client, Message, PostFault, SendFault, To, addresses, case},
    world::{Clients, Crash},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A connection that no `done` names.
const NO_CONNECTION: &str = "none";

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// However workers crash, no message is ever lost, and in the end every message has arrived.
    #[test]
    fn crashes_lose_no_message(case in case()) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let simulation = Simulation::new(&case);
            simulation.run().await?;
            simulation.check_dead_letters()?;
            simulation.check_arrivals()?;
            simulation.check_duplicates()?;
            simulation.check_order()?;
            simulation.check_mailbox()?;
            simulation.check_receipts()
        })?;
    }
}

struct Simulation<'a> {
    case: &'a Case,
    sqs: Sqs,
    crash: Crash,
    mailbox: MailboxDouble,
    receipts: Receipts,
    rig: Rig<Clients>,
}

/// The receipts that the receipts queue has accepted.
type Receipts = Arc<Mutex<Vec<Receipt>>>;

impl<'a> Simulation<'a> {
    /// Sets up the world, with all messages on the queue.
    fn new(case: &'a Case) -> Self {
        fastrand::seed(case.seed);
        let (sqs, crash) = (Sqs::new(case.fifo), Crash::default());
        crash.schedule(None);
        let (outbound, dead_letters, receipts_queue, receipts) = queues(case, &sqs, &crash);
        let rows = CONNECTIONS
            .into_iter()
            .zip(case.clients)
            .map(|(id, client)| (id, if client == Client::Connecting { epoch() } else { epoch() - HOUR }));
        let query = crash.clone();
        let table = TableDouble::of_user(rows, move || query.survives_call());
        let clients = Clients::new(case, sqs.clone(), crash.clone());
        let order = if case.fifo { QueueKind::Fifo } else { QueueKind::Standard };
        let mailbox = mailbox(case, &crash);
        let mut rig = Rig::of(order, clients, table, outbound, dead_letters);
        rig.worker.mailbox = Some(mailbox.mailbox());
        rig.set_receipts(receipts_queue);
        for (index, message) in case.messages.iter().enumerate() {
            let group = if message.group { "g" } else { "h" };
            sqs.send(message.body(index), Some(group), Duration::ZERO);
        }
        Self { case, sqs, crash, mailbox, receipts, rig }
    }

    /// Invokes workers until the queue is empty.
    async fn run(&self) -> Result<(), TestCaseError> {
        let mut crashes = self.case.crashes.iter().copied();
        let mut invocations = 0;
        while let Some(next) = self.sqs.next() {
            self.sqs.wait(next, self.case.frozen).await;
            let event = self.sqs.receive();
            if event.records.is_empty() {
                // The groups of a FIFO queue wait for their first messages.
                self.sqs.wait(self.sqs.instant() + Duration::from_secs(1), self.case.frozen).await;
                continue;
            }
            invocations += 1;
            prop_assert!(invocations < 200, "still on the queue after 200: {:?}", self.sqs.bodies());
            self.crash.schedule(crashes.next().flatten());
            let report = self.rig.invoke_at(self.sqs.now(), event.clone()).await.unwrap();
            if !self.crash.has_happened() {
                self.sqs.acknowledge(&event, &report);
            }
            self.check_nothing_is_lost()?;
        }
        Ok(())
    }

    /// Checks that every message that has not arrived is on one of the queues.
    fn check_nothing_is_lost(&self) -> Result<(), TestCaseError> {
        let arrived: BTreeSet<_> = self.arrived().into_iter().collect();
        let queued: Vec<_> = self.sqs.bodies().into_iter().chain(self.sqs.dead()).collect();
        let is_safe = |message: usize, connection: usize| {
            arrived.contains(&(message, connection))
                || queued.iter().any(|body| addresses(body, message, CONNECTIONS[connection]))
        };
        for (index, message) in self.case.messages.iter().enumerate() {
            if matches!(message.to, To::Poison) {
                let body = message.body(index);
                prop_assert!(queued.contains(&body), "{} is lost", body);
            }
            if message.keep {
                let is_queued = queued.iter().any(|body| addresses(body, index, NO_CONNECTION));
                prop_assert!(is_queued || self.seq(index).is_some(), "{} is not kept", index);
            }
            for connection in message.recipients().into_iter().filter(|one| self.is_there(message, *one)) {
                let is_superseded = self.is_superseded(index, connection, is_safe);
                prop_assert!(
                    is_safe(index, connection) || is_superseded,
                    "{} to {} is lost",
                    index,
                    connection
                );
            }
        }
        Ok(())
    }

    /// Checks that poison became dead letters, and other messages only after a rejection or a panic.
    fn check_dead_letters(&self) -> Result<(), TestCaseError> {
        let dead = self.sqs.dead();
        let bodies = self.case.messages.iter().enumerate().map(|(index, message)| message.body(index));
        let poison: BTreeSet<_> = bodies.filter(|body| body.starts_with("poison")).collect();
        let others = dead.iter().filter(|body| !poison.contains(*body)).count();
        prop_assert!(self.case.allows_dead_letters() || others == 0, "only poison may be dead: {:?}", dead);
        prop_assert!(poison.iter().all(|body| dead.contains(body)));
        Ok(())
    }

    /// Checks that every message arrived at the clients that are there, and only at them. A superseded message and one
    /// that may be a dead letter need not arrive.
    fn check_arrivals(&self) -> Result<(), TestCaseError> {
        let dead = self.sqs.dead();
        let dead_letters_allowed = self.case.allows_dead_letters();
        let arrived: BTreeSet<_> = self.arrived().into_iter().collect();
        for (index, message) in self.case.messages.iter().enumerate() {
            for connection in message.recipients() {
                let is_there = self.is_there(message, connection);
                let is_dead = dead.iter().any(|body| addresses(body, index, CONNECTIONS[connection]));
                let is_superseded = self.is_superseded(index, connection, |later, connection| {
                    arrived.contains(&(later, connection)) || dead_letters_allowed
                });
                let need_not_arrive = is_superseded || (dead_letters_allowed && is_dead);
                let has_arrived = arrived.contains(&(index, connection));
                let is_right = has_arrived == is_there || (is_there && need_not_arrive);
                prop_assert!(is_right, "{} to {}: arrived {}", index, connection, has_arrived);
            }
        }
        Ok(())
    }

    /// Checks that nothing arrived twice, unless a fault of the case lost an answer.
    fn check_duplicates(&self) -> Result<(), TestCaseError> {
        let arrived = self.arrived();
        let distinct: BTreeSet<_> = arrived.iter().collect();
        let duplicates_allowed = !self.case.allows_no_duplicates();
        prop_assert!(duplicates_allowed || arrived.len() == distinct.len(), "{:?}", arrived);
        Ok(())
    }

    /// Checks that on a FIFO queue the first copies of a group's messages arrived in order. A client drops a
    /// supersedable message that is older than one it has, so such a message may come late.
    fn check_order(&self) -> Result<(), TestCaseError> {
        if !self.case.fifo {
            return Ok(());
        }
        let mut latest: BTreeMap<(bool, usize), usize> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (index, connection) in self.arrived().into_iter().filter(|pair| seen.insert(*pair)) {
            let message = &self.case.messages[index];
            let latest = latest.entry((message.group, connection)).or_default();
            let overtaken = *latest > index && !message.supersedable;
            prop_assert!(!overtaken, "{} overtook {} to {}", *latest, index, connection);
            *latest = index.max(*latest);
        }
        Ok(())
    }

    /// Whether a later message that `is_safe` may supersede the message for a connection.
    fn is_superseded(
        &self,
        message: usize,
        connection: usize,
        is_safe: impl Fn(usize, usize) -> bool,
    ) -> bool {
        let mut later = message + 1..self.case.messages.len();
        later.any(|later| self.case.may_supersede(later, message, connection) && is_safe(later, connection))
    }

    /// Checks that the mailbox has every message that is to be kept once, that no number up to `top` is free, and that on
    /// a FIFO queue the messages of a group are in order.
    fn check_mailbox(&self) -> Result<(), TestCaseError> {
        let top = self.mailbox.top("anna");
        let seqs = self.mailbox.messages("anna").into_iter().map(|(seq, _)| seq);
        prop_assert!(seqs.take_while(|seq| *seq <= top).eq(1..=top), "a hole below {}", top);
        let mut latest: BTreeMap<bool, u64> = BTreeMap::new();
        for (index, message) in self.case.messages.iter().enumerate().filter(|(_, message)| message.keep) {
            let copies = self.mailbox.messages("anna").into_iter().filter(|(_, id)| *id == index.to_string());
            prop_assert_eq!(copies.count(), 1, "copies of {}", index);
            let seq = self.seq(index);
            prop_assert!(seq.is_some(), "{} is beyond top", index);
            let latest = latest.entry(message.group).or_default();
            prop_assert!(!self.case.fifo || seq > Some(*latest), "{} was overtaken", index);
            *latest = seq.unwrap_or_default();
        }
        Ok(())
    }

    /// Checks that receipts add up to the pairs of each message that asks for one, and that no other message has any. A
    /// message that panics workers ends without a receipt.
    fn check_receipts(&self) -> Result<(), TestCaseError> {
        let receipts = self.receipts.lock().unwrap();
        let dead = self.sqs.dead();
        for (index, message) in self.case.messages.iter().enumerate() {
            let id = index.to_string();
            let of_message: Vec<_> = receipts.iter().filter(|receipt| receipt.id.as_str() == id).collect();
            let (mut tally, mut backwards) = (ReceiptTally::default(), ReceiptTally::default());
            of_message.iter().for_each(|receipt| tally.add(Receipt::clone(receipt)));
            of_message.iter().rev().for_each(|receipt| backwards.add(Receipt::clone(receipt)));
            prop_assert_eq!(&tally, &backwards, "{}", index);
            if !message.receipt || matches!(message.to, To::Poison) {
                prop_assert!(of_message.is_empty(), "{} asks for no receipt: {:?}", index, of_message);
                continue;
            }
            let panics = self.case.post_faults.contains(&PostFault::Panic);
            let is_dead = CONNECTIONS.iter().any(|one| dead.iter().any(|body| addresses(body, index, one)));
            if panics && is_dead {
                continue;
            }
            prop_assert!(tally.is_complete(), "{}: {:?}", index, of_message);
            let counts = tally.connections();
            let count = |outcome| counts.get(&outcome).copied().unwrap_or_default();
            let (all, delivered) = (counts.values().sum::<u64>(), count(ReceiptOutcome::Delivered));
            let reached = all - count(ReceiptOutcome::Gone);
            let recipients = message.recipients();
            let there = recipients.iter().filter(|one| self.is_there(message, **one)).count() as u64;
            let is_right = match message.to {
                To::Connections(_) => all == recipients.len() as u64,
                // A connection that is gone may be superseded or rejected.
                _ => delivered <= there && there <= reached && all <= recipients.len() as u64,
            };
            prop_assert!(is_right, "{}: {} clients are there: {:?}", index, there, of_message);
        }
        Ok(())
    }

    /// Returns the number of a message that clients see in the mailbox.
    fn seq(&self, message: usize) -> Option<u64> {
        let (top, id) = (self.mailbox.top("anna"), message.to_string());
        let messages = self.mailbox.messages("anna").into_iter();
        messages.filter(|(seq, _)| *seq <= top).find(|(_, stored)| *stored == id).map(|(seq, _)| seq)
    }

    /// Whether a client gets a message that is posted to it. A client that has not sent a sync is no device.
    fn is_there(&self, message: &Message, connection: usize) -> bool {
        match self.case.clients[connection] {
            Client::Connected => true,
            Client::Connecting => !message.keep,
            Client::Gone => false,
        }
    }

    fn arrived(&self) -> Vec<(usize, usize)> {
        self.rig.worker.gateway.arrived()
    }
}

/// Creates a mailbox with the faults of the case, in which the clients that are connected or gone are devices.
fn mailbox(case: &Case, crash: &Crash) -> MailboxDouble {
    let (faults, crash) = (Mutex::new(case.mailbox_faults.clone().into_iter()), crash.clone());
    let mailbox = MailboxDouble::failing(move |_| match crash.survives_call() {
        true => faults.lock().unwrap().next().unwrap_or(MailboxFault::None),
        false => MailboxFault::Refused,
    });
    for (connection, client) in CONNECTIONS.into_iter().zip(case.clients) {
        if client != Client::Connecting {
            mailbox.register("anna", connection, ENDPOINT, epoch() + 24 * HOUR);
        }
    }
    mailbox
}

/// Returns the outbound, the dead-letter and the receipts queue as the worker sees them, with the faults of the case, and
/// the receipts.
fn queues(case: &Case, sqs: &Sqs, crash: &Crash) -> (QueueDouble, QueueDouble, QueueDouble, Receipts) {
    let faults = Arc::new(Mutex::new(case.send_faults.clone().into_iter()));
    let decide = || {
        let (faults, crash) = (Arc::clone(&faults), crash.clone());
        move |_: &_| {
            if !crash.survives_call() {
                return (false, Entry::Unmentioned);
            }
            match faults.lock().unwrap().next().unwrap_or(SendFault::None) {
                SendFault::None => (true, Entry::Taken),
                SendFault::NotAccepted => (false, Entry::NotTaken),
                SendFault::ConfirmationLost => (true, Entry::Unmentioned),
            }
        }
    };
    let hide = crash.clone();
    let (receipts, decide_receipt) = (Receipts::default(), decide());
    let accepted = Arc::clone(&receipts);
    let receipts_queue = QueueDouble::new(move |entry| {
        let (is_accepted, answer) = decide_receipt(entry);
        if is_accepted {
            accepted.lock().unwrap().push(Receipt::decode(entry.message_body()).unwrap());
        }
        answer
    });
    let outbound = sqs.outbound(decide(), move || hide.survives_call());
    (outbound, sqs.dead_letters(decide()), receipts_queue, receipts)
}
