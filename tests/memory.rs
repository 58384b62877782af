//! The worker's memory does not grow with the audience. The test is alone in its process, because the allocator
//! counts every allocation.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};

use peak_alloc::PeakAlloc;
use serde_json::json;
use streamer_message::{Audience, OutboundMessage};
use streamer_tests::{
    doubles::{Crowd, Entry, QueueDouble, TableDouble},
    event::batch,
    full,
    gateway::{MemoryGateway, status},
    worker::Rig,
};
use tokio::runtime::Builder;

#[global_allocator]
static ALLOCATED: PeakAlloc = PeakAlloc;

/// Cost of a message for a tenant, from its one outbound message to the last post.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Cost {
    queries: usize,
    rows: usize,
    /// Messages that the producer and the workers put on the queue, and the calls that send them.
    messages: usize,
    calls: usize,
    /// Invocations of the worker, with ten messages each.
    invocations: usize,
}

/// The outbound queue. It keeps messages for shards; of messages for connections it keeps only their number and
/// how often each recipient was named.
#[derive(Default)]
struct Outbound {
    shards: Vec<String>,
    pages: usize,
    /// How often each connection was named, by row and shard.
    named: Vec<[u8; 8]>,
}

impl Outbound {
    fn count(&mut self, id: &str) {
        let (shard, row) = id.rsplit_once('#').unwrap().1.split_once('-').unwrap();
        let (shard, row): (usize, usize) = (shard.parse().unwrap(), row.parse().unwrap());
        self.named[row][shard] += 1;
    }

    fn accept(&mut self, body: &str) {
        let message = OutboundMessage::decode(body).unwrap();
        match message.to {
            Audience::Shard { .. } => return self.shards.push(body.to_owned()),
            Audience::Connection(id) => self.count(id.as_str()),
            Audience::Connections(ids) => ids.as_slice().iter().for_each(|id| self.count(id.as_str())),
            other => panic!("{other:?}"),
        }
        self.pages += 1;
    }
}

/// Fans out a message for a tenant until no message for a shard is left, ten messages an invocation as the event
/// source mapping delivers them. Returns the cost, and the peak of allocated bytes.
async fn fan_out(connections: usize, payload: usize) -> (Cost, usize) {
    let crowd = Crowd::new([("acme", connections)]);
    let named = vec![[0; 8]; connections.div_ceil(8)];
    let queued = Arc::new(Mutex::new(Outbound { named, ..Outbound::default() }));
    let message =
        json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": "x".repeat(payload) });
    let mut unread = vec![message.to_string()];
    let mut cost = Cost { messages: 1, calls: 1, ..Cost::default() };
    // The test's own counters, which grow with the audience.
    let own = connections.div_ceil(8) * 8;
    ALLOCATED.reset_peak_usage();
    while !unread.is_empty() {
        let queue = Arc::clone(&queued);
        let outbound = QueueDouble::new(move |entry| {
            queue.lock().unwrap().accept(entry.message_body());
            Entry::Taken
        });
        let gateway = MemoryGateway::always(status(200));
        let mut rig = Rig::on(gateway, TableDouble::default(), outbound.forgetting(), QueueDouble::taking());
        rig.worker.table = Some(crowd.client());
        let bodies: Vec<_> = unread.drain(..unread.len().min(10)).collect();
        assert!(rig.invoke(batch(bodies)).await.unwrap().is_empty(), "every record is acknowledged");
        let mut queued = queued.lock().unwrap();
        rig.worker.gateway.posts().iter().for_each(|post| queued.count(&post.connection));
        cost.invocations += 1;
        cost.calls += rig.outbound.calls();
        cost.messages += queued.shards.len();
        unread.append(&mut queued.shards);
    }
    let peak = ALLOCATED.peak_usage().saturating_sub(own);
    let queued = queued.lock().unwrap();
    let named: Vec<_> = queued.named.iter().flatten().copied().collect();
    assert_eq!(named.iter().map(|times| usize::from(*times)).sum::<usize>(), connections);
    assert!(named.iter().all(|times| *times <= 1), "no connection is named twice");
    cost.messages += queued.pages;
    cost.invocations += queued.pages.div_ceil(10);
    (cost.queries, cost.rows) = crowd.read();
    (cost, peak)
}

/// Each connection is also named at most once.
#[test]
fn memory_is_independent_of_audience_size() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // Warms up: lazy statics are allocated once and never freed.
        fan_out(1000, 300).await;
        // Each shard fills a send of parts.
        let (_, peak_10_000) = fan_out(10_000, 300).await;
        let (_, peak_100_000) = fan_out(100_000, 300).await;
        let ratio = peak_100_000 as f64 / peak_10_000 as f64;
        println!("peak {} KiB for 10 000, {} KiB for 100 000", peak_10_000 / 1024, peak_100_000 / 1024);
        assert!(ratio <= 1.1, "{ratio:.2} times the memory");
        // The largest payload; ten copies are in memory at the same time.
        let (_, peak_large) = fan_out(100_000, 128 * 1024 - 2).await;
        println!("peak {} KiB with payloads of 128 KiB", peak_large / 1024);
        assert!(peak_large < 64 * 1024 * 1024);

        println!("recipients  queries      rows  messages  calls  invocations");
        let largest = if full() { 1_000_000 } else { 10_000 };
        for recipients in [1, 100, 10_000, 1_000_000].into_iter().filter(|number| *number <= largest) {
            let (Cost { queries, rows, messages, calls, invocations }, _) = fan_out(recipients, 300).await;
            println!(
                "{recipients:>10}  {queries:>7}  {rows:>8}  {messages:>8}  {calls:>5}  {invocations:>11}"
            );
        }
    });
}
