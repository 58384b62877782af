//! Numbers of shards: a message for a tenant reaches each of its connections once, whatever numbers their rows were
//! written with, as long as the worker's is not less than any of them.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use streamer_connections::TenantShards;
use streamer_message::{Receipt, ReceiptOutcome, ReceiptTally};
use streamer_tests::{
    doubles::{QueueDouble, TableDouble, connection},
    event::batch,
    gateway::{MemoryGateway, status},
    worker::Rig,
};

use super::{event, to_tenant};
use crate::{ids, long_ago};

fn shards(count: u16) -> TenantShards {
    TenantShards::new(count).unwrap()
}

/// Writes rows with a number of shards, as `$connect` does.
async fn write(table: &TableDouble, count: u16, connections: impl IntoIterator<Item = String>) {
    let table = table.client().with_shards(shards(count));
    for id in connections {
        table.put(&connection(&id, long_ago())).await.unwrap();
    }
}

/// Builds a worker that splits tenants into so many shards.
fn rig(table: &TableDouble, count: u16, outbound: QueueDouble) -> Rig {
    let gateway = MemoryGateway::always(status(200));
    let mut rig = Rig::on(gateway, table.clone(), outbound, QueueDouble::taking());
    rig.worker.table = Some(table.client().with_shards(shards(count)));
    rig
}

/// Delivers a message for the tenant and all that becomes of it. Returns how often each connection got it.
async fn broadcast(table: &TableDouble, count: u16) -> anyhow::Result<BTreeMap<String, usize>> {
    let rig = rig(table, count, QueueDouble::taking());
    assert_eq!(rig.invoke(batch([to_tenant()])).await?, ids([]));
    let parts: Vec<_> = rig.handed_back().into_iter().map(|sent| sent.body).collect();
    assert_eq!(parts.len(), usize::from(count));
    for parts in parts.chunks(10) {
        assert_eq!(rig.invoke(batch(parts.iter().cloned())).await?, ids([]));
    }
    let mut posts = BTreeMap::new();
    for post in rig.worker.gateway.posts() {
        *posts.entry(post.connection).or_default() += 1;
    }
    Ok(posts)
}

fn names(prefix: &str, count: usize) -> impl Iterator<Item = String> {
    (0..count).map(move |number| format!("{prefix}{number:03}"))
}

/// From 8 to 64 shards, and back while rows of both numbers exist.
#[tokio::test(start_paused = true)]
async fn changed_number_loses_no_recipient() -> anyhow::Result<()> {
    let table = TableDouble::default();
    write(&table, 8, names("before", 60)).await;
    let mut all: BTreeMap<_, _> = names("before", 60).map(|id| (id, 1)).collect();
    assert_eq!(broadcast(&table, 64).await?, all, "the worker grows first");

    write(&table, 64, names("grown", 60)).await;
    all.extend(names("grown", 60).map(|id| (id, 1)));
    assert_eq!(broadcast(&table, 64).await?, all);

    write(&table, 8, names("shrunk", 60)).await;
    all.extend(names("shrunk", 60).map(|id| (id, 1)));
    assert_eq!(broadcast(&table, 64).await?, all, "the worker keeps the former number");
    let reached = broadcast(&table, 8).await?;
    assert!(reached.len() < all.len(), "rows of the former number are still there");

    for id in names("grown", 60) {
        table.client().delete(&id.as_str().try_into()?).await?;
        all.remove(&id);
    }
    assert_eq!(broadcast(&table, 8).await?, all, "the rows of the former number have ended");
    Ok(())
}

/// The messages that workers with 8 shards left on the queue name the keys that they mean.
#[tokio::test(start_paused = true)]
async fn queued_messages_outlive_a_change() -> anyhow::Result<()> {
    let table = TableDouble::default();
    write(&table, 8, names("c", 60)).await;
    let before = rig(&table, 8, QueueDouble::taking());
    before.invoke(batch([to_tenant()])).await?;
    let parts: Vec<_> = before.handed_back().into_iter().map(|sent| sent.body).collect();
    for count in [1, 256] {
        let rig = rig(&table, count, QueueDouble::taking());
        assert_eq!(rig.invoke(batch(parts.clone())).await?, ids([]));
        let reached: BTreeSet<_> =
            rig.worker.gateway.posts().into_iter().map(|post| post.connection).collect();
        assert_eq!(reached, names("c", 60).collect(), "{count} shards");
    }
    Ok(())
}

/// SQS takes 10 messages a call.
#[tokio::test(start_paused = true)]
async fn large_number_takes_several_calls() -> anyhow::Result<()> {
    for (count, calls) in [(1, 1), (10, 1), (11, 2), (256, 26)] {
        let rig = rig(&TableDouble::default(), count, QueueDouble::taking());
        assert_eq!(rig.invoke(event(to_tenant())).await?, ids([]));
        let sent: Vec<_> = rig.handed_back().into_iter().map(|sent| sent.json()["to"].clone()).collect();
        let expected: Vec<_> = (0..count).map(|shard| json!({ "tenant": "acme", "shard": shard })).collect();
        assert_eq!((sent, rig.outbound.calls()), (expected, calls));
    }
    Ok(())
}

/// The last of them is not confirmed, so the whole tenant is split again.
#[tokio::test(start_paused = true)]
async fn unconfirmed_last_shard_hands_tenant_back() -> anyhow::Result<()> {
    let outbound = QueueDouble::new(|entry| match entry.message_body().contains(r#""shard":255"#) {
        true => streamer_tests::doubles::Entry::NotTaken,
        false => streamer_tests::doubles::Entry::Taken,
    });
    let rig = rig(&TableDouble::default(), 256, outbound);
    assert_eq!(rig.invoke(event(to_tenant())).await?, ids([]));
    assert_eq!(rig.handed_back().pop().unwrap().json()["to"], json!({ "tenant": "acme" }));
    Ok(())
}

/// The receipt of the tenant's message names as many parts as there are, and the receipts add up.
#[tokio::test(start_paused = true)]
async fn receipts_of_many_shards_add_up() -> anyhow::Result<()> {
    let table = TableDouble::default();
    write(&table, 200, names("c", 60)).await;
    let rig = rig(&table, 256, QueueDouble::taking());
    let message =
        json!({ "version": 1, "id": "m", "to": { "tenant": "acme" }, "payload": 1, "receipt": true });
    rig.invoke(batch([message.to_string()])).await?;
    let [Receipt { outcome: ReceiptOutcome::Expanded, parts: Some(parts), .. }] = &rig.receipts()[..] else {
        panic!("{:?}", rig.receipts())
    };
    assert_eq!((parts.count, parts.rest), (256, false));
    let parts: Vec<_> = rig.handed_back().into_iter().map(|sent| sent.body).collect();
    for parts in parts.chunks(10) {
        rig.invoke(batch(parts.iter().cloned())).await?;
    }
    let mut tally = ReceiptTally::default();
    rig.receipts().into_iter().for_each(|receipt| tally.add(receipt));
    assert!(tally.is_complete(), "{:?}", rig.receipts());
    assert_eq!(tally.connections(), [(ReceiptOutcome::Delivered, 60)].into());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Model: the set of all connections, each of which gets the message once.
    #[test]
    fn every_row_is_reached_once(
        writers in prop::collection::vec((1_u16..=256, 1_usize..20), 1..5),
        more in 0_u16..256,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (table, mut model) = (TableDouble::default(), BTreeMap::new());
            for (number, (count, connections)) in writers.iter().enumerate() {
                write(&table, *count, names(&format!("{number}-"), *connections)).await;
                model.extend(names(&format!("{number}-"), *connections).map(|id| (id, 1)));
            }
            let largest = writers.iter().map(|(count, _)| *count).max().unwrap_or(1);
            assert_eq!(broadcast(&table, largest.saturating_add(more).min(256)).await.unwrap(), model);
        });
    }
}
