//! The whole path on the emulator: real clients, real queues, our real Lambda binaries.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use streamer_cli::stack::{Stack, socket::Socket};
use streamer_connections::IndexedConnection;
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{emulator::stack, eventually};

const LIMIT: Duration = Duration::from_secs(30);
const TENANT: &str = "path";

/// The live connections of a user.
async fn rows(stack: &Stack, user: &str) -> anyhow::Result<Vec<IndexedConnection>> {
    let (tenant, user) = (TenantId::new(TENANT)?, UserId::new(user)?);
    Ok(stack.table().by_user(&tenant, &user, None, SystemTime::now()).await?.connections)
}

/// A connected client of a user of its own.
async fn connected(stack: &Stack, user: &str) -> anyhow::Result<(Socket, ConnectionId)> {
    let socket = stack.connect(TENANT, user).await?;
    let mut rows = rows(stack, user).await?;
    anyhow::ensure!(rows.len() == 1, "rows: {rows:?}");
    Ok((socket, rows.remove(0).connection_id))
}

#[tokio::test]
async fn a_connection_lives_from_its_row_to_its_rows_end() -> anyhow::Result<()> {
    let stack = stack().await?;
    let before = SystemTime::now();
    let (mut socket, id) = connected(&stack, "life").await?;

    let row = stack.table().get(&id, SystemTime::now()).await?.unwrap();
    assert_eq!((row.user_id.as_str(), row.tenant_id.as_str()), ("life", TENANT));
    assert_eq!(row.endpoint, stack.deployed.management_endpoint);
    assert_eq!(row.source_ip.as_deref(), Some("127.0.0.1"));
    assert!(row.connected_at >= before - Duration::from_millis(1) && row.connected_at <= SystemTime::now());
    let lifetime = row.expires_at.duration_since(row.connected_at)?.as_secs_f64().ceil() as u64;
    assert_eq!(lifetime, 2 * 3600 + 600);

    socket.send(&json!({ "type": "echo", "request_id": "r", "text": "hello" })).await?;
    let frame = socket.next(LIMIT).await?.json()?;
    assert_eq!(
        (&frame["type"], &frame["data"], &frame["request_id"]),
        (&json!("response"), &json!("hello"), &json!("r"))
    );

    socket.close().await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await?;
    assert!(rows(&stack, "life").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_report_is_acknowledged_progresses_and_completes() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected(&stack, "report").await?;
    socket.send(&json!({ "type": "report", "request_id": "r" })).await?;
    let mut frames = Vec::new();
    while frames.len() < 12 {
        let frame = socket.next(LIMIT).await?.json()?;
        assert_eq!(frame["request_id"], "r");
        frames.push(frame);
    }
    frames.sort_by_key(|frame| frame["seq"].as_u64());
    let types: Vec<_> = frames.iter().map(|frame| frame["type"].as_str().unwrap()).collect();
    assert_eq!((types[0], types[11]), ("acknowledgment", "complete"));
    let percent: Vec<_> = frames[1..11].iter().map(|frame| frame["progress"].as_u64().unwrap()).collect();
    assert_eq!(percent, (1..=10).map(|ten| ten * 10).collect::<Vec<_>>());
    Ok(())
}

#[tokio::test]
async fn a_request_that_nobody_understands_is_answered_with_an_error() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected(&stack, "errors").await?;
    for (request, code) in [
        (json!({ "type": "dance", "request_id": "r" }), "unknown_type"),
        (json!({ "type": "echo" }), "invalid_request"),
    ] {
        socket.send(&request).await?;
        let frame = socket.next(LIMIT).await?.json()?;
        assert_eq!((&frame["type"], &frame["error"]["code"]), (&json!("error"), &json!(code)));
    }
    Ok(())
}

#[tokio::test]
async fn a_frame_arrives_byte_for_byte() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, id) = connected(&stack, "bytes").await?;
    let payloads = [
        "null",
        "true",
        "0",
        "-0.0",
        "1e400",
        "12345678901234567890123",
        "0.10",
        "\"\"",
        "[]",
        "{}",
        "[ 1 ,\t[2,[3, {\"a\":[]}]]\n]",
        "{\"b\":1, \"a\":2, \"a\" : 3}",
        r#""escapes \" \\ \/ \b \f \n \r \t \u00e9 \ud83d\ude00 \u0000 \u001f \ud800""#,
        "\"quotes ' and ` and <tags> & %25 $body {0} \u{7f}\u{85}\u{2028}\u{a0}\"",
        "\"Ελληνικά, русский, العربية, עברית, हिन्दी, ไทย, 한국어, 日本語, 简体中文, Ünïcödé\"",
        "\"👩‍👩‍👧‍👦 🏳️‍🌈 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 \u{10FFFD}\"",
    ];
    let long = serde_json::to_string(&"ß".repeat(60_000))?;
    let sent: Vec<_> = payloads.into_iter().chain([long.as_str()]).collect();
    let messages = sent.iter().map(|payload| Message::connection(&id).json(*payload));
    stack.producer().send_all(messages.collect::<Result<Vec<_>, _>>()?).await?;

    let mut missing: Vec<_> = sent.iter().map(|payload| (*payload).to_owned()).collect();
    while !missing.is_empty() {
        let frame = socket.next(LIMIT).await?.text;
        let place = missing.iter().position(|payload| *payload == frame);
        missing.swap_remove(place.unwrap_or_else(|| panic!("nobody sent {frame:?}")));
    }
    Ok(())
}

#[tokio::test]
async fn a_frame_is_equal_as_a_value_where_sqs_refuses_a_character() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, id) = connected(&stack, "values").await?;
    let refused = "\u{FFFE} \u{FFFF} \u{0} \u{b} \u{1f}";
    let value = json!({ refused: [refused] });
    stack.producer().send(Message::connection(&id).payload(&value)?).await?;
    let frame = socket.next(LIMIT).await?;
    assert_eq!(serde_json::from_str::<Value>(&frame.text)?, value);
    assert!(!frame.text.contains(['\u{FFFE}', '\u{FFFF}']), "SQS would have refused it");
    Ok(())
}

#[tokio::test]
async fn the_table_answers_by_id_by_user_and_by_tenant_and_leaves_out_what_has_expired() -> anyhow::Result<()>
{
    let stack = stack().await?;
    let (_one, first) = connected(&stack, "lists").await?;
    let _other = stack.connect(TENANT, "lists").await?;
    let (table, now) = (stack.table(), SystemTime::now());
    let row = table.get(&first, now).await?.unwrap();

    let (tenant, user) = (TenantId::new(TENANT)?, UserId::new("lists")?);
    assert_eq!(table.by_user(&tenant, &user, None, now).await?.connections.len(), 2);
    let shard = streamer_connections::shard_of(&first);
    let in_shard = table.by_tenant(&tenant, shard, None, now).await?;
    assert!(in_shard.connections.iter().any(|found| found.connection_id == first));
    let after = table.by_tenant(&tenant, shard, Some(&first), now).await?;
    assert!(after.connections.iter().all(|found| found.connection_id != first), "it begins after the cursor");

    let later = row.expires_at;
    assert!(table.get(&first, later).await?.is_none());
    assert!(
        table
            .by_user(&tenant, &user, None, later)
            .await?
            .connections
            .iter()
            .all(|found| found.expires_at > later)
    );
    assert!(
        table
            .by_tenant(&tenant, shard, None, later)
            .await?
            .connections
            .iter()
            .all(|found| found.connection_id != first)
    );

    assert!(!table.delete_if_older(&first, row.connected_at).await?, "it is not older than itself");
    assert!(table.delete_if_older(&first, row.connected_at + Duration::from_millis(1)).await?);
    assert!(table.delete_if_older(&first, row.connected_at).await?, "no row is as good as a removed one");
    assert_eq!(table.delete(&first).await?, None);
    table.put(&row).await?;
    assert_eq!(table.delete(&first).await?, Some(row));
    Ok(())
}
