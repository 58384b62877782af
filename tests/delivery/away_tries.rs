//! When a message for a user who is away is received, on queues that deliver it again after the delay that the worker
//! asks for.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::Value;
use streamer_connections::Connection;
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{QueueDouble, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch},
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use crate::{answering, connect, long_ago, message_to_anna};

const KINDS: [QueueKind; 2] = [QueueKind::Standard, QueueKind::Fifo];

/// Seeds of the jitter.
const SEEDS: std::ops::Range<u64> = 0..20;

/// Receives after which a message counts as tried for ever.
const MAX_RECEIVES: usize = 1000;

/// A queue with one message for the user, whose worker reads an empty table.
struct Waiting {
    rig: Rig,
    queries: Arc<AtomicUsize>,
}

impl Waiting {
    fn new(kind: QueueKind, away_grace: u64, seed: u64) -> Self {
        Self::on(kind, away_grace, seed, MemoryGateway::always(status(200)))
    }

    fn on(kind: QueueKind, away_grace: u64, seed: u64, gateway: MemoryGateway) -> Self {
        fastrand::seed(seed);
        let queries = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&queries);
        let table = TableDouble::of_user([], move || {
            counter.fetch_add(1, Ordering::Relaxed);
            true
        });
        let mut rig = Rig::of(kind, gateway, table, QueueDouble::taking(), QueueDouble::taking());
        rig.worker.policy.away_grace = Duration::from_secs(away_grace);
        Self { rig, queries }
    }

    /// Delivers a message until it is acknowledged, and calls `before` with the age of each receive. Returns these ages
    /// in seconds.
    async fn drain(&self, message: &Value, mut before: impl AsyncFnMut(u64)) -> anyhow::Result<Vec<u64>> {
        let (mut body, mut age, mut ages) = (message.to_string(), 0, Vec::new());
        loop {
            before(age).await;
            ages.push(age);
            let mut event = batch([body.clone()]);
            let receives = (ages.len(), self.rig.worker.policy.queue_kind);
            if let (receives, QueueKind::Fifo) = receives {
                let attributes = &mut event.records[0].attributes;
                attributes.insert("MessageGroupId".to_owned(), "g".to_owned());
                attributes.insert("ApproximateReceiveCount".to_owned(), receives.to_string());
            }
            let (back, hidden) = (self.rig.handed_back().len(), self.rig.outbound.waits().len());
            self.rig.invoke_at(epoch() + Duration::from_secs(age), event).await?;
            let back = self.rig.handed_back().get(back).cloned();
            let hidden = self.rig.outbound.waits().get(hidden).map(|(_, seconds)| *seconds);
            if let Some(back) = &back {
                body.clone_from(&back.body);
            }
            let Some(delay) = hidden.or(back.map(|back| back.delay.unwrap_or_default())) else {
                return Ok(ages);
            };
            age += u64::try_from(delay)?;
            anyhow::ensure!(ages.len() < MAX_RECEIVES, "the message is tried for ever: {ages:?}");
        }
    }
}

/// Each receive has one query. The last comes at the end of the grace, and drops the message.
#[tokio::test(start_paused = true)]
async fn grace_takes_few_receives_and_queries() -> anyhow::Result<()> {
    for (grace, most) in [(0, 1), (1, 2), (5, 2), (30, 3), (120, 5), (3600, 18)] {
        for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
            let waiting = Waiting::new(kind, grace, seed);
            let ages = waiting.drain(&message_to_anna("m"), async |_| ()).await?;
            assert!(ages.len() <= most, "{kind:?}, {grace} s: {ages:?}");
            assert_eq!(waiting.queries.load(Ordering::Relaxed), ages.len());
            let last = ages.last().copied().unwrap_or_default();
            assert!(
                (grace..=grace + grace.div_ceil(10).min(30)).contains(&last),
                "{kind:?}, {grace} s: {ages:?}"
            );
            assert!(waiting.rig.dead().is_empty() && waiting.rig.worker.gateway.posts().is_empty());
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn client_back_within_5_s_is_served_second() -> anyhow::Result<()> {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let waiting = Waiting::new(kind, 30, seed);
        let returns = async |age| {
            if age >= 5 {
                connect(&waiting.rig, &["back"]).await;
            }
        };
        let ages = waiting.drain(&message_to_anna("m"), returns).await?;
        assert!(matches!(ages[..], [0, 5..=6]), "{kind:?}: {ages:?}");
        assert_eq!(waiting.rig.worker.gateway.texts("back").len(), 1);
    }
    Ok(())
}

/// It waits until the end of a short grace, and up to 5 min and a tenth in a long one.
#[tokio::test(start_paused = true)]
async fn client_back_later_waits_for_next_try() -> anyhow::Result<()> {
    for (grace, returns_at, longest) in [(30, 10, 23), (3600, 10, 29), (3600, 1000, 330), (3600, 3590, 40)] {
        for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
            let waiting = Waiting::new(kind, grace, seed);
            let returns = async |age| {
                if age >= returns_at {
                    connect(&waiting.rig, &["back"]).await;
                }
            };
            let ages = waiting.drain(&message_to_anna("m"), returns).await?;
            let waited = ages.last().copied().unwrap_or_default() - returns_at;
            assert!(waited <= longest, "{kind:?}, {grace} s: {ages:?}");
            assert_eq!(waiting.rig.worker.gateway.texts("back").len(), 1, "{kind:?}, {grace} s: {ages:?}");
        }
    }
    Ok(())
}

/// All connections that the table shows are gone.
#[tokio::test(start_paused = true)]
async fn gone_user_is_tried_three_times() -> anyhow::Result<()> {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let waiting = Waiting::on(kind, 30, seed, MemoryGateway::always(status(410)));
        connect(&waiting.rig, &["gone"]).await;
        let ages = waiting.drain(&message_to_anna("m"), async |_| ()).await?;
        assert!(matches!(ages[..], [0, 5..=6, 30..=33]), "{kind:?}: {ages:?}");
    }
    Ok(())
}

/// The connection elsewhere ends during the grace, so the message is exhausted at its end.
#[tokio::test(start_paused = true)]
async fn user_elsewhere_is_tried_three_times() -> anyhow::Result<()> {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let waiting = Waiting::new(kind, 30, seed);
        let row =
            Connection { endpoint: "https://ws.example.com/other".to_owned(), ..connection("x", long_ago()) };
        waiting.rig.table.client().put(&row).await?;
        let leaves = async |age| {
            if age >= 30 {
                let removed = waiting.rig.table.client().delete(&row.connection_id).await;
                assert!(removed.is_ok());
            }
        };
        let ages = waiting.drain(&message_to_anna("m"), leaves).await?;
        assert!(matches!(ages[..], [0, 5..=6, 30..=33]), "{kind:?}: {ages:?}");
        // A FIFO queue keeps no note of the connection elsewhere.
        assert_eq!(waiting.rig.dead().len(), usize::from(kind == QueueKind::Standard), "{kind:?}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn expired_message_waits_no_longer() -> anyhow::Result<()> {
    for (kind, seed) in KINDS.into_iter().flat_map(|kind| SEEDS.map(move |seed| (kind, seed))) {
        let waiting = Waiting::new(kind, 3600, seed);
        let mut message = message_to_anna("m");
        message["expires_at"] = (EPOCH_MILLIS + 20_000).into();
        let ages = waiting.drain(&message, async |_| ()).await?;
        assert!(matches!(ages[..], [0, 5..=6, 20..=22]), "{kind:?}: {ages:?}");
    }
    Ok(())
}

/// A fault of a post has the usual backoff, beside a connection that is gone.
#[tokio::test(start_paused = true)]
async fn throttled_user_is_retried_soon() -> anyhow::Result<()> {
    let mut delays = BTreeSet::new();
    for seed in SEEDS {
        let gateway = answering(|connection| status(if connection == "gone" { 410 } else { 429 }));
        let waiting = Waiting::on(QueueKind::Standard, 30, seed, gateway);
        connect(&waiting.rig, &["gone", "slow"]).await;
        waiting.rig.invoke(batch([message_to_anna("m").to_string()])).await?;
        delays.extend(waiting.rig.handed_back()[0].delay);
    }
    assert!(delays.iter().all(|delay| *delay <= 1), "{delays:?}");
    Ok(())
}
