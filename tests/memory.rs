//! The worker's memory does not grow with an audience. Alone in its process, which counts what is allocated.

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

/// What reaching a tenant takes, from its one message to the last post.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Cost {
    queries: usize,
    rows: usize,
    /// Messages that producer and workers put on the queue, and the calls for them.
    messages: usize,
    calls: usize,
    /// Invocations of the worker, ten messages each.
    invocations: usize,
}

/// What is on the queue: shards are kept, messages for connections counted and their recipients ticked off.
#[derive(Default)]
struct Seen {
    shards: Vec<String>,
    parts: usize,
    /// By row and shard.
    ticked: Vec<[u8; 8]>,
}

impl Seen {
    fn tick(&mut self, id: &str) {
        let (shard, row) = id.rsplit_once('#').unwrap().1.split_once('-').unwrap();
        let (shard, row): (usize, usize) = (shard.parse().unwrap(), row.parse().unwrap());
        self.ticked[row][shard] += 1;
    }

    fn take(&mut self, body: &str) {
        let message = OutboundMessage::decode(body).unwrap();
        match message.to {
            Audience::Shard { .. } => return self.shards.push(body.to_owned()),
            Audience::Connection(id) => self.tick(id.as_str()),
            Audience::Connections(ids) => ids.as_slice().iter().for_each(|id| self.tick(id.as_str())),
            other => panic!("{other:?}"),
        }
        self.parts += 1;
    }
}

/// Expands a tenant's message and all that comes of it, ten messages in an invocation as the mapping delivers them, and
/// returns what it costs, and the most bytes that were allocated at the same time.
async fn reach(number: usize, payload: usize) -> (Cost, usize) {
    let crowd = Crowd::new([("acme", number)]);
    let seen = Arc::new(Mutex::new(Seen { ticked: vec![[0; 8]; number.div_ceil(8)], ..Seen::default() }));
    let message =
        json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": "x".repeat(payload) });
    let mut todo = vec![message.to_string()];
    let mut cost = Cost { messages: 1, calls: 1, ..Cost::default() };
    // Of the test's own: what grows with the audience.
    let own = number.div_ceil(8) * 8;
    ALLOCATED.reset_peak_usage();
    while !todo.is_empty() {
        let taking = Arc::clone(&seen);
        let outbound = QueueDouble::new(move |entry| {
            taking.lock().unwrap().take(entry.message_body());
            Entry::Taken
        });
        let gateway = MemoryGateway::always(status(200));
        let mut rig = Rig::on(gateway, TableDouble::default(), outbound.forgetting(), QueueDouble::taking());
        rig.worker.table = crowd.client();
        let now: Vec<_> = todo.drain(..todo.len().min(10)).collect();
        assert!(rig.invoke(batch(now)).await.unwrap().is_empty(), "all are acknowledged");
        let mut seen = seen.lock().unwrap();
        rig.worker.gateway.posts().iter().for_each(|post| seen.tick(&post.connection));
        cost.invocations += 1;
        cost.calls += rig.outbound.calls();
        cost.messages += seen.shards.len();
        todo.append(&mut seen.shards);
    }
    let peak = ALLOCATED.peak_usage().saturating_sub(own);
    let seen = seen.lock().unwrap();
    let served: Vec<_> = seen.ticked.iter().flatten().copied().collect();
    assert_eq!(served.iter().map(|times| usize::from(*times)).sum::<usize>(), number);
    assert!(served.iter().all(|times| *times <= 1), "nobody is named twice");
    cost.messages += seen.parts;
    cost.invocations += seen.parts.div_ceil(10);
    (cost.queries, cost.rows) = crowd.read();
    (cost, peak)
}

#[test]
fn memory_does_not_grow_with_the_audience_and_nobody_is_named_twice() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        // What is allocated once and for ever.
        reach(1000, 300).await;
        let (_, of_1000) = reach(1000, 300).await;
        let (_, of_100_000) = reach(100_000, 300).await;
        let ratio = of_100_000 as f64 / of_1000 as f64;
        println!("at the most {} KiB for 1 000, {} KiB for 100 000", of_1000 / 1024, of_100_000 / 1024);
        assert!(ratio <= 1.1, "{ratio:.2} times the memory");
        // The largest payload, of which ten copies are on their way at the same time.
        let (_, large) = reach(100_000, 128 * 1024 - 2).await;
        println!("with 128 KiB: {} KiB", large / 1024);
        assert!(large < 64 * 1024 * 1024);

        println!("recipients  queries      rows  messages  calls  invocations");
        let most = if full() { 1_000_000 } else { 10_000 };
        for number in [1, 100, 10_000, 1_000_000].into_iter().filter(|number| *number <= most) {
            let (Cost { queries, rows, messages, calls, invocations }, _) = reach(number, 300).await;
            println!("{number:>10}  {queries:>7}  {rows:>8}  {messages:>8}  {calls:>5}  {invocations:>11}");
        }
    });
}
