//! The cost of kept messages and of receipts: batches of ten messages on test doubles, in one process and in turn, so that the machine's
//! speed affects all alike.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use delivery_worker::time::Time;
use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
use streamer_queue::ReceiptsQueue;
use streamer_tests::{
    doubles::{MailboxDouble, QueueDouble, TableDouble},
    event::batch,
    gateway::status,
    worker::{ENDPOINT, Rig},
};

use crate::{client::PAYLOAD, table::Table};

/// Rounds over all cases. The median counts.
const ROUNDS: usize = 41;

/// Batches of a case in a round.
const BATCHES: u32 = 50;

/// Accepts every post at once.
struct Accepting;

impl Gateway for Accepting {
    async fn post(&self, _: &ConnectionId, _: Bytes) -> PostResult {
        status(200)
    }
}

/// A batch of ten messages for one recipient each, and the worker that gets it.
struct Case {
    name: &'static str,
    has_mailbox: bool,
    has_receipts_queue: bool,
    message: fn(usize) -> Value,
}

const PLAIN: Case = Case { name: "", has_mailbox: false, has_receipts_queue: false, message: to_connection };

const CASES: [Case; 7] = [
    Case { name: "for connections", ..PLAIN },
    Case { name: "the same, with a receipts queue", has_receipts_queue: true, ..PLAIN },
    Case {
        name: "the same, each asks for a receipt",
        has_receipts_queue: true,
        message: |nth| json!({ "to": { "connection": connection(nth) }, "receipt": true }),
        ..PLAIN
    },
    Case { name: "for connections, with a mailbox", has_mailbox: true, ..PLAIN },
    Case { name: "for ten users", has_mailbox: true, message: |nth| to_user(nth, None), ..PLAIN },
    Case { name: "kept, for ten users", has_mailbox: true, message: |nth| to_user(nth, Some(3600)), ..PLAIN },
    Case { name: "kept, for one user", has_mailbox: true, message: |_| to_user(0, Some(3600)), ..PLAIN },
];

fn to_connection(nth: usize) -> Value {
    json!({ "to": { "connection": connection(nth) } })
}

fn to_user(nth: usize, keep: Option<u32>) -> Value {
    json!({ "to": { "user": { "tenant": "acme", "user": user(nth) } }, "keep": keep })
}

fn connection(nth: usize) -> String {
    format!("L0SM9cOFvHc{nth:04}=")
}

fn user(nth: usize) -> String {
    format!("user-{nth}")
}

impl Case {
    fn event(&self) -> SqsEvent {
        let payload = "x".repeat(PAYLOAD - 2);
        batch((0..10).map(|nth| {
            let mut body = (self.message)(nth);
            body["version"] = 1.into();
            body["id"] = format!("m{nth}").into();
            body["payload"] = payload.as_str().into();
            body.to_string()
        }))
    }

    /// Creates a worker with ten users, each with a connection that is a device, too.
    async fn rig(&self, now: SystemTime) -> anyhow::Result<Rig<Accepting>> {
        let table = TableDouble::default();
        let mut rig = Rig::on(Accepting, table, QueueDouble::taking(), QueueDouble::taking());
        let mailbox = MailboxDouble::default();
        let hour = Duration::from_secs(3600);
        for nth in 0..10 {
            let mut row = streamer_tests::doubles::connection(&connection(nth), now - hour);
            row.user_id = user(nth).as_str().try_into()?;
            rig.table.client().put(&row).await?;
            mailbox.register(&user(nth), &connection(nth), ENDPOINT, now + hour);
        }
        if self.has_mailbox {
            rig.worker.mailbox = Some(mailbox.mailbox());
        }
        if !self.has_receipts_queue {
            rig.worker.receipts = ReceiptsQueue::new(None, "bench");
        }
        Ok(rig)
    }

    /// Returns the mean time of a batch.
    async fn measure(&self) -> anyhow::Result<Duration> {
        let now = SystemTime::now();
        let (rig, event) = (self.rig(now).await?, self.event());
        let mut elapsed = Duration::ZERO;
        // The first batch sets up the clients, and warms the caches that the case before has used.
        for nth in 0..=BATCHES {
            let (event, timeout) = (event.clone(), Duration::from_secs(30));
            let began = Instant::now();
            let response = rig.worker.handle(event, Time::start(now, now + timeout, timeout)).await?;
            if nth > 0 {
                elapsed += began.elapsed();
            }
            anyhow::ensure!(response.batch_item_failures.is_empty(), "a message was not delivered");
        }
        Ok(elapsed / BATCHES)
    }
}

/// Measures all cases, and prints their times and ratios.
pub(crate) async fn run() -> anyhow::Result<()> {
    let mut times = [const { Vec::new() }; CASES.len()];
    for _ in 0..ROUNDS {
        for (case, times) in CASES.iter().zip(&mut times) {
            times.push(case.measure().await?);
        }
    }
    let medians = times.map(|mut times| {
        times.sort_unstable();
        times[times.len() / 2].as_secs_f64() * 1e6
    });
    let mut table = Table::new(
        "a batch of ten messages on test doubles: the calls' serialization, not their network",
        &["µs", "ratio"],
    );
    for (case, median) in CASES.iter().zip(medians) {
        table.row(case.name, &[format!("{median:.0}"), format!("{:.3}", median / medians[0])]);
    }
    table.print();
    Ok(())
}
