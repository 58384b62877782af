//! The cost of kept messages: batches of ten messages on test doubles, in one process and in turn, so that the machine's
//! speed affects all alike.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use delivery_worker::time::Time;
use serde_json::{Value, json};
use streamer_events::SqsEvent;
use streamer_gateway::{Gateway, PostResult};
use streamer_message::ConnectionId;
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
    message: fn(usize) -> Value,
}

const CASES: [Case; 5] = [
    Case { name: "for connections, no mailbox configured", has_mailbox: false, message: to_connection },
    Case { name: "for connections, mailbox configured", has_mailbox: true, message: to_connection },
    Case { name: "for ten users", has_mailbox: true, message: |nth| to_user(nth, None) },
    Case { name: "kept, for ten users", has_mailbox: true, message: |nth| to_user(nth, Some(3600)) },
    Case { name: "kept, for one user", has_mailbox: true, message: |_| to_user(0, Some(3600)) },
];

fn to_connection(nth: usize) -> Value {
    json!({ "connection": connection(nth) })
}

fn to_user(nth: usize, keep: Option<u32>) -> Value {
    json!({ "user": { "tenant": "acme", "user": user(nth) }, "keep": keep })
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
            let mut to = (self.message)(nth);
            let keep = to.as_object_mut().and_then(|to| to.remove("keep")).unwrap_or_default();
            let mut body = json!({ "version": 1, "id": format!("m{nth}"), "to": to, "payload": payload });
            if !keep.is_null() {
                body["keep"] = keep;
            }
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
        Ok(rig)
    }

    /// Returns the mean time of a batch.
    async fn measure(&self) -> anyhow::Result<Duration> {
        let now = SystemTime::now();
        let (rig, event) = (self.rig(now).await?, self.event());
        let mut elapsed = Duration::ZERO;
        for _ in 0..BATCHES {
            let (event, timeout) = (event.clone(), Duration::from_secs(30));
            let began = Instant::now();
            let response = rig.worker.handle(event, Time::start(now, now + timeout, timeout)).await?;
            elapsed += began.elapsed();
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
