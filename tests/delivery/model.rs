//! Random batches, compared with a reference model of the outcome table.
//!
//! **Modelled**: one invocation of the worker. The model has neither a clock nor queues. From the batch, the posts that
//! arrived at the gateway and their answers, it derives the outcome of each pair, and from the outcomes the hand-backs,
//! dead letters, hidden messages and reported records.
//!
//! **Random**: the kind of queue, the messages (audience, whether they are kept, size, expiry, age, earlier copies,
//! message group, request), the answers of the gateway and their times, the rows of the table, whether the table and the
//! mailbox fail, the time left, and whether each queue accepts each message.
//!
//! **Checked**:
//! - Each pair has exactly one outcome, by the answer to its last post.
//! - No pair is posted that is expired, behind a pair that was handed back, for a gone connection, or after the
//!   deadline.
//! - Each pair that may be posted is posted, without a delay, and transient failures are retried.
//! - Both queues receive exactly the messages that the outcomes need, with all other fields unchanged.
//! - The mailbox has each message that is to be kept, in order of arrival.
//! - Exactly the records whose needs are not confirmed are reported.
//!
//! `case.rs` generates the cases, `outcomes.rs` is the model, and `check.rs` compares.

mod case;
mod check;
mod outcomes;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::Value;
use streamer_events::SqsEvent;
use streamer_queue::QueueKind;
use streamer_tests::{
    cases,
    doubles::{Entry, MailboxDouble, MailboxFault, QueueDouble, TableDouble},
    event::{EPOCH_MILLIS, batch, epoch},
    gateway::MemoryGateway,
    worker::{ENDPOINT, Rig},
};
use tokio::{runtime::Builder, time::Instant};

use self::{
    case::{CONNECTIONS, Case, Message, case},
    check::check,
    outcomes::Model,
};

const HOUR: Duration = Duration::from_secs(3600);

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_global_rejects: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// Every pair ends in exactly one outcome, and the queues get what the outcomes need.
    #[test]
    fn queues_match_outcome_of_each_pair(case in case()) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(run(&case))?;
    }
}

/// Invokes a worker on the batch, and compares the result with the model.
async fn run(case: &Case) -> Result<(), TestCaseError> {
    fastrand::seed(case.seed);
    let mailbox = mailbox(case);
    let rig = rig(case, &mailbox);
    let started = Instant::now();
    let timeout = Duration::from_millis(case.lambda_millis);
    let reserve = Duration::from_secs(3).min(timeout * 3 / 8);
    let (deadline, cutoff) = (started + timeout - reserve, started + timeout - reserve / 2);
    let reported = rig.invoke_within(epoch(), timeout, event(case)).await.unwrap();

    let posts = rig.worker.gateway.posts();
    for post in &posts {
        let ended = post.ended_at.unwrap();
        prop_assert!(post.at < deadline && ended <= cutoff, "a post after the deadline");
        prop_assert!(ended - post.at <= Duration::from_secs(5), "a post of {:?}", ended - post.at);
    }
    let outcomes = Model { case, posts: &posts, started, deadline, cutoff }.outcomes()?;
    check(case, &rig, &mailbox, &reported, &outcomes)
}

/// Creates a mailbox in which each connection with a row is a device.
fn mailbox(case: &Case) -> MailboxDouble {
    let fault = if case.mailbox_fails { MailboxFault::Refused } else { MailboxFault::None };
    let mailbox = MailboxDouble::failing(move |_| fault);
    for (connection, row) in CONNECTIONS.into_iter().zip(case.rows) {
        if row.is_some() {
            mailbox.register("anna", connection, ENDPOINT, epoch() + HOUR);
        }
    }
    mailbox
}

fn rig(case: &Case, mailbox: &MailboxDouble) -> Rig {
    let (script, next) = (case.clone(), AtomicUsize::new(0));
    let gateway =
        MemoryGateway::scripted(move |_, _| script.nth_answer(next.fetch_add(1, Ordering::Relaxed)));
    // A row within the connect grace stays there during the whole invocation.
    let connected_at = |young: bool| if young { epoch() + HOUR / 2 } else { epoch() - HOUR };
    let rows = CONNECTIONS.into_iter().zip(case.rows);
    let rows = rows.filter_map(|(id, young)| Some((id, connected_at(young?))));
    let works = !case.table_fails;
    let table = TableDouble::of_user(rows, move || works);
    let outbound = queue(&case.messages, |message| message.hand_back_accepted);
    let dead_letters = queue(&case.messages, |message| message.dead_letter_accepted);
    let order = if case.fifo { QueueKind::Fifo } else { QueueKind::Standard };
    let mut rig = Rig::of(order, gateway, table, outbound, dead_letters);
    rig.worker.mailbox = Some(mailbox.mailbox());
    rig
}

/// Builds a queue that accepts the outgoing messages of the messages for which `accepts` is true.
fn queue(messages: &[Message], accepts: fn(&Message) -> bool) -> QueueDouble {
    let accepted: Vec<_> = messages.iter().map(accepts).collect();
    QueueDouble::new(move |entry| {
        let body: Value = serde_json::from_str(entry.message_body()).unwrap();
        let index: usize = body["id"].as_str().unwrap().parse().unwrap();
        if accepted[index] { Entry::Taken } else { Entry::NotTaken }
    })
}

fn event(case: &Case) -> SqsEvent {
    let bodies = case.messages.iter().enumerate().map(|(index, message)| message.body(index).to_string());
    let mut event = batch(bodies);
    for (record, message) in event.records.iter_mut().zip(&case.messages) {
        let first_received = (EPOCH_MILLIS - message.age).to_string();
        let attributes = [
            ("MessageGroupId", message.group.to_string()),
            ("ApproximateReceiveCount", message.receives.to_string()),
            ("ApproximateFirstReceiveTimestamp", first_received),
        ];
        record.attributes.extend(attributes.map(|(name, value)| (name.to_owned(), value)));
    }
    event
}
