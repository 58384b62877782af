//! Connections of another management endpoint in the same table, and aliases of the worker's own endpoint.

use std::{
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, SystemTime},
};

use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use streamer_connections::{Connection, Endpoints, TenantShards};
use streamer_queue::QueueKind;
use streamer_tests::{
    doubles::{QueueDouble, Row, TableDouble, connection},
    event::{EPOCH_MILLIS, batch, epoch, message},
    gateway::{MemoryGateway, status},
    worker::{ENDPOINT, Rig},
};

use crate::{ids, long_ago};

const OTHER: &str = "https://ws.example.com/production";
const MAX_AGE: Duration = Duration::from_secs(7800);

/// Builds a worker whose table has one connection: `x` of the user `anna`, at the other endpoint.
async fn rig(kind: QueueKind, answer: u16) -> anyhow::Result<Rig> {
    let taking = QueueDouble::taking;
    let rig =
        Rig::of(kind, MemoryGateway::always(status(answer)), TableDouble::default(), taking(), taking());
    let row = Connection { endpoint: OTHER.to_owned(), ..connection("x", long_ago()) };
    rig.table.client().put(&row).await?;
    Ok(rig)
}

fn message_to(audience: Value) -> String {
    json!({ "version": 1, "id": "m", "to": audience, "payload": 1 }).to_string()
}

fn message_to_user() -> String {
    message_to(json!({ "user": { "tenant": "acme", "user": "anna" } }))
}

/// Checks that the worker hands the message back at the time `at`, and makes it a dead letter once the connection
/// elsewhere has ended.
async fn waits_then_dies(body: String, at: SystemTime) -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200).await?;
    assert_eq!(rig.invoke_at(at, batch([body])).await?, ids([]));
    let back = rig.handed_back().remove(0);
    let cause = back.json()["retry"]["cause"].to_string();
    assert!(cause.contains(OTHER) && rig.dead().is_empty(), "{cause}");

    rig.table.client().delete(&"x".try_into().unwrap()).await?;
    assert_eq!(rig.invoke_at(epoch() + Duration::from_secs(7100), batch([back.body])).await?, ids([]));
    let dead = rig.dead();
    assert_eq!(dead[0].attribute("streamer.reason"), "exhausted");
    let detail = dead[0].attribute("streamer.detail");
    assert!(detail.contains(OTHER) && detail.contains("WEBSOCKET_ENDPOINT_ALIASES"), "{detail}");
    assert!(rig.worker.gateway.posts().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_waits_then_becomes_dead_letter() -> anyhow::Result<()> {
    for after in [0, 31, 600] {
        waits_then_dies(message_to_user(), epoch() + Duration::from_secs(after)).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn message_past_max_age_is_dead_letter() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200).await?;
    let row = Connection { endpoint: OTHER.to_owned(), ..connection("x", epoch() + Duration::from_secs(60)) };
    rig.table.client().put(&row).await?;
    rig.invoke_at(epoch() + MAX_AGE, batch([message_to_user()])).await?;
    assert!(rig.dead()[0].attribute("streamer.detail").contains(OTHER));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn reconnected_user_gets_message() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200).await?;
    rig.invoke_at(epoch(), batch([message_to_user()])).await?;
    rig.table.client().put(&connection("here", long_ago())).await?;
    let back = rig.handed_back().remove(0).body;
    rig.invoke_at(epoch() + Duration::from_secs(60), batch([back])).await?;
    assert_eq!(rig.worker.gateway.texts("here").len(), 1);
    assert!(rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn shard_waits_then_becomes_dead_letter() -> anyhow::Result<()> {
    let shard = TenantShards::DEFAULT.of(&"x".try_into().unwrap());
    waits_then_dies(message_to(json!({ "tenant": "acme", "shard": shard })), epoch()).await
}

#[tokio::test(start_paused = true)]
async fn large_audience_elsewhere_is_handed_back() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200).await?;
    for number in 0..250 {
        let row = Connection { endpoint: OTHER.to_owned(), ..connection(&format!("c{number}"), long_ago()) };
        rig.table.client().put(&row).await?;
    }
    rig.table = rig.table.with_pages_of(100);
    rig.worker.table = Some(rig.table.client());
    rig.invoke_at(epoch() + Duration::from_secs(60), batch([message_to_user()])).await?;
    let back = rig.handed_back();
    let cause = back[0].json()["retry"]["cause"].to_string();
    assert!(back.len() == 1 && cause.contains(OTHER), "{cause}");
    Ok(())
}

/// The invocation reads only the first pages, and the cursor skips their connections in the next one.
#[tokio::test(start_paused = true)]
async fn endpoint_is_remembered_past_cursor() -> anyhow::Result<()> {
    let shard = TenantShards::DEFAULT.of(&"x".try_into().unwrap());
    let body = message_to(json!({ "tenant": "acme", "shard": shard }));
    let row = |number: usize| {
        let millis = (EPOCH_MILLIS - 60_000).to_string();
        let texts =
            [("connection_id", format!("c{number:04}")), ("user_id", "u".into()), ("endpoint", OTHER.into())];
        let mut row: Row = texts.map(|(name, value)| (name.to_owned(), AttributeValue::S(value))).into();
        row.insert("connected_at".to_owned(), AttributeValue::N(millis));
        row.insert("expires_at".to_owned(), AttributeValue::N((EPOCH_MILLIS / 1000 + 7000).to_string()));
        row
    };
    let pages: Vec<Vec<_>> =
        (0..6).map(|page| (0..10).map(|number| row(page * 10 + number)).collect()).collect();
    let mut rig = Rig::new(MemoryGateway::always(status(200)));
    let failing = Arc::new(AtomicUsize::new(4));
    rig.worker.table = Some(TableDouble::paged_until(pages, Arc::clone(&failing)));
    rig.invoke(batch([body])).await?;
    let back = rig.handed_back().remove(0);
    let sent = back.json();
    assert!(sent["retry"]["cause"].as_str().is_some_and(|cause| cause.contains(OTHER)), "{sent}");
    assert!(sent["to"]["after"].is_string(), "the next invocation skips the pages that were read: {sent}");

    rig.worker.table = Some(TableDouble::default().client());
    rig.invoke_at(epoch() + Duration::from_secs(60), batch([back.body])).await?;
    assert!(rig.dead()[0].attribute("streamer.detail").contains(OTHER));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn endpoint_is_remembered_after_later_cause() -> anyhow::Result<()> {
    let mut rig = rig(QueueKind::Standard, 200).await?;
    rig.invoke(batch([message_to_user()])).await?;
    rig.worker.table = Some(TableDouble::failing().client());
    let back = rig.handed_back().remove(0).body;
    rig.invoke_at(epoch() + Duration::from_secs(60), batch([back])).await?;
    let back = rig.handed_back().remove(1);
    let cause = back.json()["retry"]["cause"].to_string();
    assert!(cause.contains("Query") && cause.contains(OTHER), "{cause}");

    rig.worker.table = Some(TableDouble::default().client());
    rig.invoke_at(epoch() + Duration::from_secs(120), batch([back.body])).await?;
    assert!(rig.dead()[0].attribute("streamer.detail").contains(OTHER));
    Ok(())
}

/// One connection here has the message, and the user's other connection is elsewhere.
#[tokio::test(start_paused = true)]
async fn user_reached_here_ignores_other_endpoint() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 200).await?;
    rig.table.client().put(&connection("here", long_ago())).await?;
    let mut body: Value = serde_json::from_str(&message_to_user())?;
    body["retry"] = json!({ "count": 1, "receives": 0, "since": 0, "cause": "503", "done": ["here"] });
    assert_eq!(rig.invoke(batch([body.to_string()])).await?, ids([]));
    assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn fifo_message_waits_then_becomes_dead_letter() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Fifo, 200).await?;
    // A recent connection: its row outlives the message.
    let row = Connection { endpoint: OTHER.to_owned(), ..connection("x", epoch() + Duration::from_secs(60)) };
    rig.table.client().put(&row).await?;
    let event = || {
        let mut event = batch([message_to_user()]);
        event.records[0].attributes.insert("MessageGroupId".to_owned(), "g".to_owned());
        event
    };
    let reported = rig.invoke_at(epoch() + Duration::from_secs(60), event()).await?;
    assert_eq!(reported, ids(["record-0"]));
    assert_eq!(rig.invoke_at(epoch() + MAX_AGE, event()).await?, ids([]));
    let dead = rig.dead();
    assert!(dead[0].attribute("streamer.detail").contains(OTHER), "{dead:?}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn row_of_another_endpoint_stays() -> anyhow::Result<()> {
    let rig = rig(QueueKind::Standard, 410).await?;
    assert_eq!(rig.invoke(batch([message("m", &["x"]).to_string()])).await?, ids([]));
    assert_eq!(rig.table.connections(), ["x"]);
    let cause = rig.handed_back()[0].json()["retry"]["cause"].to_string();
    assert!(cause.contains(OTHER), "{cause}");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn alias_is_the_same_endpoint() -> anyhow::Result<()> {
    for (answer, posts, left) in [(200, 1, 1), (410, 1, 0)] {
        let mut rig = rig(QueueKind::Standard, answer).await?;
        rig.worker.endpoints = Endpoints::new(ENDPOINT, [OTHER.to_owned()]);
        rig.invoke_at(epoch() + Duration::from_secs(31), batch([message_to_user()])).await?;
        assert_eq!((rig.worker.gateway.posts().len(), rig.table.connections().len()), (posts, left));
        assert!(rig.handed_back().is_empty() && rig.dead().is_empty());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn young_row_under_alias_stays() -> anyhow::Result<()> {
    let mut rig = Rig::new(MemoryGateway::always(status(410)));
    rig.worker.endpoints = Endpoints::new(ENDPOINT, [OTHER.to_owned()]);
    let row = Connection { endpoint: OTHER.to_owned(), ..connection("x", epoch()) };
    rig.table.client().put(&row).await?;
    rig.invoke(batch([message("m", &["x"]).to_string()])).await?;
    assert_eq!(rig.table.connections(), ["x"]);
    assert_eq!(rig.handed_back()[0].json()["retry"]["cause"], "410 within the connect grace");
    Ok(())
}

/// The row has no `connected_at`.
#[tokio::test(start_paused = true)]
async fn row_without_time_under_alias_is_removed() -> anyhow::Result<()> {
    let row = Row::from([("endpoint".to_owned(), AttributeValue::S(OTHER.to_owned()))]);
    let table = TableDouble::of([("x", row)], || true);
    let mut rig =
        Rig::on(MemoryGateway::always(status(410)), table, QueueDouble::taking(), QueueDouble::taking());
    rig.worker.endpoints = Endpoints::new(ENDPOINT, [OTHER.to_owned()]);
    rig.invoke(batch([message("m", &["x"]).to_string()])).await?;
    assert!(rig.table.connections().is_empty() && rig.handed_back().is_empty());
    Ok(())
}

/// The row has no `connected_at`.
#[tokio::test(start_paused = true)]
async fn row_without_time_is_removed() -> anyhow::Result<()> {
    let table = TableDouble::of([("x", Row::new())], || true);
    let rig =
        Rig::on(MemoryGateway::always(status(410)), table, QueueDouble::taking(), QueueDouble::taking());
    assert_eq!(rig.invoke(batch([message("m", &["x"]).to_string()])).await?, ids([]));
    assert!(rig.table.connections().is_empty() && rig.handed_back().is_empty());
    Ok(())
}
