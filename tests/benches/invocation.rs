//! CPU time of whole invocations of `delivery-worker`, beside the bare client's posts:
//! `cargo bench -p streamer-tests -- invocations`.
//!
//! The worker runs as a process behind a stub of the Runtime API. The bare client has as many posts in flight as the
//! shape of the batch allows, since a post that waits alone pays for the kernel's work of waking up by itself.

use std::{
    env,
    path::{Path, PathBuf},
};

use delivery_worker::admission::concurrency;
use serde_json::json;
use streamer_tests::event;

use crate::{client, figures, lambda, ours, place, server::Stub, table::Table};

/// A batch of messages.
struct Shape {
    name: &'static str,
    messages: usize,
    /// Connections of each message.
    connections: usize,
    /// Whether all messages are for the same connections, so that their posts are in order.
    same: bool,
    invocations: u32,
}

const SMALL: Shape = Shape {
    name: "10 messages × 1 connection",
    messages: 10,
    connections: 1,
    same: false,
    invocations: 1000,
};

/// Messages in order.
const LANE: Shape =
    Shape { name: "100 messages for one connection", messages: 100, same: true, invocations: 100, ..SMALL };

const SHAPES: [Shape; 4] = [
    SMALL,
    Shape { name: "10 messages × 100 connections", connections: 100, invocations: 100, ..SMALL },
    LANE,
    Shape { name: "100 messages for 10 connections", connections: 10, ..LANE },
];

/// Measures each shape over plain HTTP and over TLS, also with another build of the worker.
pub(crate) async fn run(worker: &Path) -> anyhow::Result<()> {
    let other = env::var_os("OTHER_WORKER").map(PathBuf::from);
    let others = other.iter().map(|path| (", OTHER_WORKER", path.as_path()));
    let binaries: Vec<_> = [("", worker)].into_iter().chain(others).collect();
    for tls in [false, true] {
        let over = if tls { "TLS" } else { "plain HTTP" };
        let mut table = Table::new(
            &format!("invocation of delivery-worker over {over}, as a process"),
            &["CPU µs/post", "client alone", "worker/client", "CPU ms", "wall ms"],
        );
        let stub = Stub::start(0, tls)?;
        for shape in &SHAPES {
            measure(&stub, shape, &binaries, &mut table).await?;
        }
        table.print();
    }
    Ok(())
}

/// Measures a shape with each of the binaries, beside the bare client.
async fn measure(
    stub: &Stub,
    shape: &Shape,
    binaries: &[(&str, &Path)],
    table: &mut Table,
) -> anyhow::Result<()> {
    let (endpoint, queue) = (format!("{}/stage", stub.origin), format!("{}/queue", stub.origin));
    let certificate = place("certificate.pem").display().to_string();
    let variables = [
        ("AWS_ENDPOINT_URL", stub.origin.as_str()),
        ("SSL_CERT_FILE", &certificate),
        ("WEBSOCKET_ENDPOINT", &endpoint),
        ("QUEUE_URL", &queue),
        ("DEAD_LETTER_QUEUE_URL", &queue),
    ];
    let in_flight = shape.in_flight().to_string();
    let client = figures(ours(["client", "posts-streamer", &endpoint, &in_flight]))?[1];
    let paths: Vec<_> = binaries.iter().map(|(_, path)| *path).collect();
    let costs = lambda::costs(&paths, &variables, &shape.event(), shape.invocations).await?;
    for ((which, _), cost) in binaries.iter().zip(costs) {
        let post = cost.cpu.as_secs_f64() * 1e6 / (shape.messages * shape.connections) as f64;
        table.row(
            &format!("{}{which}", shape.name),
            &[
                format!("{post:.1}"),
                format!("{client:.1}"),
                format!("{:.2}", post / client),
                format!("{:.2}", cost.cpu.as_secs_f64() * 1e3),
                format!("{:.2}", cost.wall.as_secs_f64() * 1e3),
            ],
        );
    }
    Ok(())
}

impl Shape {
    /// Returns the posts that may be in flight at the same time: one for each connection, up to the worker's first limit.
    fn in_flight(&self) -> usize {
        let connections = if self.same { self.connections } else { self.messages * self.connections };
        connections.min(concurrency::Settings::DEFAULT.initial)
    }

    /// Returns the invocation's event.
    fn event(&self) -> String {
        let payload = json!("x".repeat(client::PAYLOAD - 2)).to_string();
        let bodies = (0..self.messages).map(|message| {
            let first = if self.same { 0 } else { message };
            let ids: Vec<_> = (0..self.connections).map(|id| format!("L0SM9cOFv{first}{id:05}=")).collect();
            let to = json!({ "connections": ids });
            format!(r#"{{"version":1,"id":"m{message}","to":{to},"payload":{payload}}}"#)
        });
        event::batch_json(bodies).to_string()
    }
}
