//! Peak memory and CPU time of `delivery-worker` by the shape of its batches: `cargo bench -p streamer-tests -- shapes`.
//!
//! The worker runs as a process behind a stub of the Runtime API. A stub of API Gateway, SQS and DynamoDB answers each
//! request over TLS after 20 ms, so that as many posts are in flight as the worker allows.

pub(crate) mod aws;

use std::{path::Path, process::Child, time::Duration};

use serde_json::{Value, json};
use streamer_tests::{event::batch_json, worker::ENDPOINT};

use crate::{
    lambda, place,
    process::{CLIENT, cpu, peak, pinned},
    server::Stub,
    table::Table,
};

/// Maximum size of an invocation's event.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>.
const EVENT_BYTES: usize = 6 * 1024 * 1024;

/// Bytes of a usual payload.
const SMALL: usize = 300;

/// Bytes of the largest payload that API Gateway delivers.
const LARGE: usize = 128 * 1024;

/// Bytes of the largest payload that a mailbox keeps.
const LARGE_KEPT: usize = 127 * 1024;

/// Bytes of a payload whose message has nearly 1 MiB.
const HUGE: usize = 1024 * 1024 - 512;

/// Invocations after the first one, which opens the connections.
const INVOCATIONS: u32 = 3;

/// The recipients of a message.
#[derive(Clone, Copy)]
enum To {
    /// This many connections, which differ from message to message.
    Connections(usize),
    /// A user with one connection.
    User,
    /// A tenant's shard, which has connections without end.
    Shard,
}

/// A batch of equal messages.
struct Shape {
    name: &'static str,
    /// As many messages as this, or as fit into an event.
    messages: usize,
    payload: usize,
    to: To,
    /// Further fields of the messages.
    more: fn() -> Value,
    /// The status of API Gateway's answers.
    status: u16,
}

const ONE: Shape = Shape {
    name: "1 message for a connection",
    messages: 1,
    payload: SMALL,
    to: To::Connections(1),
    more: || json!({}),
    status: 200,
};

const SHAPES: [Shape; 19] = [
    ONE,
    Shape { name: "10 for a connection each", messages: 10, ..ONE },
    Shape { name: "100 for a connection each", messages: 100, ..ONE },
    Shape { name: "1 000 for a connection each", messages: 1000, ..ONE },
    Shape { name: "10 000 for a connection each, 6 MB", messages: 10_000, payload: 32, ..ONE },
    Shape { name: "the same, with receipts", messages: 10_000, payload: 16, more: receipt, ..ONE },
    Shape { name: "the same, all handed back", messages: 10_000, payload: 32, status: 503, ..ONE },
    Shape { name: "1 000 for a user each", messages: 1000, to: To::User, ..ONE },
    Shape { name: "1 000 kept for a user each", messages: 1000, to: To::User, more: keep, ..ONE },
    Shape { name: "10 for 100 connections each", messages: 10, to: To::Connections(100), ..ONE },
    Shape { name: "1 000 for 100 connections each", messages: 1000, to: To::Connections(100), ..ONE },
    Shape { name: "the same, all handed back", messages: 1000, to: To::Connections(100), status: 503, ..ONE },
    Shape {
        name: "10 of 128 KiB for 100 connections each",
        messages: 10,
        payload: LARGE,
        to: To::Connections(100),
        ..ONE
    },
    Shape {
        name: "6 MB of 128 KiB for 100 connections each",
        messages: 100,
        payload: LARGE,
        to: To::Connections(100),
        ..ONE
    },
    Shape {
        name: "the same, all handed back",
        messages: 100,
        payload: LARGE,
        to: To::Connections(100),
        status: 503,
        ..ONE
    },
    Shape {
        name: "6 MB of 127 KiB kept for a user each",
        messages: 100,
        payload: LARGE_KEPT,
        to: To::User,
        more: keep,
        ..ONE
    },
    Shape { name: "6 MB of 1 MiB, rejected", messages: 10, payload: HUGE, ..ONE },
    Shape { name: "10 for an endless shard each", messages: 10, to: To::Shard, ..ONE },
    Shape {
        name: "6 MB of 128 KiB for an endless shard each",
        messages: 100,
        payload: LARGE,
        to: To::Shard,
        ..ONE
    },
];

fn receipt() -> Value {
    json!({ "receipt": true })
}

fn keep() -> Value {
    json!({ "keep": 3600 })
}

/// The cost of an invocation.
struct Cost {
    /// Peak of the process's resident memory, in KiB.
    peak: u64,
    cpu: Duration,
    wall: Duration,
}

impl Shape {
    /// Returns the event, and the number of its messages.
    fn event(&self) -> (String, usize) {
        let body = |nth: usize| {
            let mut message = json!({ "version": 1, "id": format!("m{nth}"), "to": self.to.of(nth) });
            message["payload"] = "x".repeat(self.payload - 2).into();
            if let (Some(message), Value::Object(more)) = (message.as_object_mut(), (self.more)()) {
                message.extend(more);
            }
            message.to_string()
        };
        let empty = batch_json([String::new()]).to_string().len();
        let each = empty + json!(body(self.messages)).to_string().len();
        let messages = self.messages.min(EVENT_BYTES / each);
        (batch_json((0..messages).map(body)).to_string(), messages)
    }

    /// Measures a new process.
    async fn measure(&self, worker: &Path, event: &str) -> anyhow::Result<Cost> {
        let stub = Stub::run(["aws", &self.status.to_string(), "tls"], true)?;
        let (endpoint, queue) = (format!("{}/stage", stub.origin), format!("{}/queue", stub.origin));
        let trusted = place("certificate.pem");
        let variables = [
            ("AWS_ENDPOINT_URL", stub.origin.as_str()),
            ("SSL_CERT_FILE", trusted.to_str().unwrap_or_default()),
            ("WEBSOCKET_ENDPOINT", &endpoint),
            ("WEBSOCKET_ENDPOINT_ALIASES", ENDPOINT),
            ("QUEUE_URL", &queue),
            ("DEAD_LETTER_QUEUE_URL", &queue),
            ("RECEIPTS_QUEUE_URL", &queue),
            ("CONNECTIONS_TABLE", "connections"),
            ("MAILBOX_TABLE", "mailbox"),
        ];
        let (mut api, mut child) = lambda::started(pinned(CLIENT, worker), &variables).await?;
        let measured = measure(&mut api, &child, event).await;
        child.kill()?;
        child.wait()?;
        measured
    }
}

async fn measure(api: &mut lambda::RuntimeApi, child: &Child, event: &str) -> anyhow::Result<Cost> {
    lambda::invoke(api, event).await?;
    let (before, started) = (cpu(child.id())?, std::time::Instant::now());
    for _ in 0..INVOCATIONS {
        lambda::invoke(api, event).await?;
    }
    let (cpu, wall) = (cpu(child.id())? - before, started.elapsed());
    Ok(Cost { peak: peak(child.id())?, cpu: cpu / INVOCATIONS, wall: wall / INVOCATIONS })
}

impl To {
    fn of(self, nth: usize) -> Value {
        match self {
            Self::Connections(1) => json!({ "connection": format!("C{nth:06}") }),
            Self::Connections(number) => {
                let ids: Vec<_> = (0..number).map(|id| format!("L0SM9c{nth:05}{id:04}=")).collect();
                json!({ "connections": ids })
            }
            Self::User => json!({ "user": { "tenant": "acme", "user": format!("user-{nth}") } }),
            Self::Shard => json!({ "tenant": "acme", "shard": nth % 8 }),
        }
    }
}

/// Measures all shapes, and prints a table.
pub(crate) async fn run(worker: &Path) -> anyhow::Result<()> {
    let mut table = Table::new(
        "memory of delivery-worker by batch, as a process: TLS, each call answered after 20 ms",
        &["messages", "event", "peak", "CPU", "wall"],
    );
    for shape in SHAPES {
        let (event, messages) = shape.event();
        let Cost { peak, cpu, wall } = shape.measure(worker, &event).await?;
        table.row(
            shape.name,
            &[
                messages.to_string(),
                format!("{:.2} MiB", event.len() as f64 / 1024.0 / 1024.0),
                format!("{:.1} MiB", peak as f64 / 1024.0),
                format!("{:.1} ms", cpu.as_secs_f64() * 1e3),
                format!("{:.0} ms", wall.as_secs_f64() * 1e3),
            ],
        );
    }
    table.print();
    Ok(())
}
