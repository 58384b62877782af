//! The whole path on the emulator: real clients, real queues, our real Lambda binaries.

mod audiences;
mod browser;
mod connect;
mod languages;
mod outcomes;
mod redrive;
mod status;
mod storm;
mod upgrade;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sqs::types::Message as QueueMessage;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    build::build,
    issuer::{ISSUER, Issuer},
    logs::Logs,
    socket::{NotConnected, Socket},
};
use streamer_connections::{Connection, Endpoints, IndexedConnection, Removal};
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{emulator::stack, event, eventually};

const LIMIT: Duration = Duration::from_secs(30);
const TENANT: &str = "path";

/// The live connections of a user.
async fn rows(stack: &Stack, user: &str) -> anyhow::Result<Vec<IndexedConnection>> {
    let (tenant, user) = (TenantId::new(TENANT)?, UserId::new(user)?);
    let (table, mut rows, mut after) = (stack.table(), Vec::new(), None);
    loop {
        let page = table.by_user(&tenant, &user, after.as_ref(), SystemTime::now()).await?;
        rows.extend(page.connections);
        after = page.next;
        if after.is_none() {
            return Ok(rows);
        }
    }
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
    // Delivery is at least once, and in no order: a client drops what it has seen, and sorts by seq. Updates that
    // share a batch with a later message of the request are superseded.
    let mut frames = BTreeMap::new();
    let has = |frames: &BTreeMap<_, Value>, kind: &str| frames.values().any(|frame| frame["type"] == kind);
    while !has(&frames, "acknowledgment") || !has(&frames, "complete") {
        let frame = socket.next(LIMIT).await?.json()?;
        assert_eq!(frame["request_id"], "r");
        frames.insert(frame["seq"].as_u64(), frame);
    }
    let mut frames: Vec<_> = frames.into_values().collect();
    let (complete, acknowledgment) = (frames.pop().unwrap(), frames.remove(0));
    assert_eq!((&acknowledgment["type"], &complete["type"]), (&json!("acknowledgment"), &json!("complete")));
    let percent: Vec<_> = frames.iter().map(|frame| frame["progress"].as_u64().unwrap()).collect();
    assert!(percent.is_sorted() && percent.iter().all(|percent| percent % 10 == 0), "{percent:?}");
    Ok(())
}

#[tokio::test]
async fn a_request_that_nobody_understands_is_answered_with_an_error() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected(&stack, "errors").await?;
    for (request, request_id) in [
        (json!({ "type": "dance", "request_id": "r" }), json!("r")),
        (json!({ "type": "echo" }), Value::Null),
        (json!("hello"), Value::Null),
    ] {
        socket.send(&request).await?;
        let frame = socket.next(LIMIT).await?.json()?;
        assert_eq!((&frame["type"], &frame["error"]["code"]), (&json!("error"), &json!("invalid_request")));
        assert_eq!(frame["request_id"], request_id, "{frame}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_whose_answer_is_too_large_is_answered_with_an_error() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected(&stack, "large").await?;
    socket.send(&json!({ "type": "echo", "request_id": "r", "text": "x".repeat(128 * 1024) })).await?;
    let frame = socket.next(LIMIT).await?.json()?;
    assert_eq!((&frame["error"]["code"], &frame["request_id"]), (&json!("internal"), &json!("r")));
    Ok(())
}

#[tokio::test]
async fn the_router_survives_a_client_that_has_gone() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, id) = connected(&stack, "gone").await?;
    socket.send(&json!({ "type": "report", "request_id": "unheard" })).await?;
    socket.close().await?;

    // The emulator tells of the end when the router is done.
    let removed = async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none());
    eventually("the router is done", removed).await?;
    let router = Logs::of(&stack, Some("router"))?.next().await?;
    let errors: Vec<_> = router.iter().filter(|line| line.text.contains("unheard")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let (mut other, _) = connected(&stack, "after-gone").await?;
    other.send(&json!({ "type": "ping", "request_id": "r" })).await?;
    assert_eq!(other.next(LIMIT).await?.json()?["data"], "pong");
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

    let mut missing: BTreeSet<_> = sent.iter().map(|payload| (*payload).to_owned()).collect();
    while !missing.is_empty() {
        let frame = socket.next(LIMIT).await?.text;
        assert!(sent.contains(&frame.as_str()), "nobody sent {frame:?}");
        missing.remove(&frame);
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

    let (here, elsewhere) =
        (Endpoints::from(row.endpoint.as_str()), Endpoints::from("https://other.example"));
    let later = row.connected_at + Duration::from_millis(1);
    let kept = table.delete_if_older(&first, row.connected_at, &here).await?;
    assert_eq!(kept, Removal::TooYoung, "it is not older than itself");
    let kept = table.delete_if_older(&first, later, &elsewhere).await?;
    assert_eq!(kept, Removal::Elsewhere(row.endpoint.clone()));
    let other_name = Endpoints::new("https://other.example", [row.endpoint.clone()]);
    assert_eq!(table.delete_if_older(&first, later, &other_name).await?, Removal::Removed);
    let removed = table.delete_if_older(&first, row.connected_at, &here).await?;
    assert_eq!(removed, Removal::Removed, "no row is as good as a removed one");
    assert_eq!(table.delete(&first).await?, None);
    table.put(&row).await?;
    assert_eq!(table.delete(&first).await?, Some(row));
    Ok(())
}

#[tokio::test]
async fn a_token_that_is_not_good_is_answered_with_401_and_leaves_no_row() -> anyhow::Result<()> {
    let stack = stack().await?;
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let claims =
        |issuer: &str, exp: u64| json!({ "iss": issuer, "sub": "refused", "tenant_id": TENANT, "exp": exp });
    let stranger = Issuer::generate()?;
    for (token, reason) in [
        (None, "token_missing"),
        (Some(stack.issuer.sign(&claims(ISSUER, now - 60))?), "token_expired"),
        (Some(stranger.sign(&claims(ISSUER, now + 60))?), "bad_signature"),
        (Some(stack.issuer.sign(&claims("https://evil.example.com", now + 60))?), "wrong_issuer"),
    ] {
        let token = token.as_deref();
        let refused = Socket::connect(&stack.deployed.websocket_url, token).await;
        assert!(matches!(refused, Err(NotConnected::Refused(_))), "{reason}: {refused:?}");

        let event = Blob::new(serde_json::to_vec(&event::connect(token))?);
        let invoke = lambda.invoke().function_name(&stack.deployed.functions["connect"]).payload(event);
        let answer: Value = serde_json::from_slice(invoke.send().await?.payload.unwrap().as_ref())?;
        assert_eq!(answer["statusCode"], 401, "{answer}");
        assert_eq!(answer["body"], json!({ "error": reason }).to_string());
    }
    assert!(rows(&stack, "refused").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn the_410_of_a_stale_connection_removes_its_row() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (socket, id) = connected(&stack, "stale").await?;
    let row = stack.table().get(&id, SystemTime::now()).await?.unwrap();
    socket.close().await?;
    let removed = async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none());
    eventually("$disconnect removes the row", removed).await?;

    // As if `$disconnect` had never come.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    stack.table().put(&Connection { connected_at: long_ago, ..row }).await?;
    stack.producer().send(Message::connection(&id).response("anybody there?")?).await?;
    eventually("the 410 removes the row", removed).await
}

#[tokio::test]
async fn a_poison_message_reaches_the_dead_letter_queue_whole() -> anyhow::Result<()> {
    let stack = stack().await?;
    let body = "{ \"version\": 1,\n\t\"id\": \"poison-\u{e9}\" }";
    enqueue(&stack, body).await?;
    let letter = dead_letter(&stack, body).await?;
    let attributes = letter.message_attributes.unwrap_or_default();
    let attribute = |name: &str| attributes[name].string_value().unwrap_or_default().to_owned();
    assert_eq!(attribute("streamer.reason"), "poison");
    assert!(attribute("streamer.detail").contains("`to` is missing"));
    assert_eq!(attribute("streamer.attempts"), "1");
    Ok(())
}

async fn enqueue(stack: &Stack, body: &str) -> anyhow::Result<()> {
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    sqs.send_message().queue_url(&stack.deployed.queue_url).message_body(body).send().await?;
    Ok(())
}

/// The dead letter with this body.
async fn dead_letter(stack: &Stack, body: &str) -> anyhow::Result<QueueMessage> {
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    let mut found = None;
    eventually("the dead letter is there", async || {
        let receive = sqs.receive_message().queue_url(&stack.deployed.dead_letter_queue_url);
        let receive = receive.max_number_of_messages(10).message_attribute_names("All").visibility_timeout(0);
        let letters = receive.send().await?.messages.unwrap_or_default();
        found = letters.into_iter().find(|letter| letter.body() == Some(body));
        Ok(found.is_some())
    })
    .await?;
    found.ok_or_else(|| anyhow::anyhow!("no dead letter"))
}

#[tokio::test]
async fn an_expired_message_is_not_delivered() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, id) = connected(&stack, "expiry").await?;
    let expired = Message::connection(&id).expires_in(Duration::ZERO).response("too late")?;
    stack.producer().send(expired.clone()).await?;
    let mut logs = Logs::of(&stack, Some("delivery"))?;
    eventually("the worker says that it expired", async || {
        let says = |line: &str| line.contains(expired.id().as_str()) && line.contains("\"expired\"");
        Ok(logs.next().await?.iter().any(|line| says(&line.text)))
    })
    .await?;
    stack.producer().send(Message::connection(&id).response("in time")?).await?;
    assert_eq!(socket.next(LIMIT).await?.json()?["data"], "in time");
    Ok(())
}

#[tokio::test]
async fn a_broadcast_reaches_100_open_sockets() -> anyhow::Result<()> {
    let stack = stack().await?;
    let connect = |_| async { stack.connect(TENANT, "crowd").await };
    let sockets: Vec<_> = stream::iter(0..100).map(connect).buffer_unordered(20).try_collect().await?;
    let ids: Vec<_> = rows(&stack, "crowd").await?.into_iter().map(|row| row.connection_id).collect();
    assert_eq!(ids.len(), 100);
    stack.producer().send(Message::connections(&ids).response("everybody")?).await?;
    for mut socket in sockets {
        assert_eq!(socket.next(LIMIT).await?.json()?["data"], "everybody");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_written_by_hand_from_the_schema_is_delivered() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, id) = connected(&stack, "by-hand").await?;
    let body = format!(
        r#"{{"version": 1, "id": "by-hand", "to": {{"connection": "{id}"}}, "payload": {{"ok": true}}}}"#
    );
    enqueue(&stack, &body).await?;
    assert_eq!(socket.next(LIMIT).await?.text, r#"{"ok": true}"#);
    Ok(())
}

#[tokio::test]
async fn a_lambda_with_a_faulty_environment_says_what_is_wrong_in_its_log() -> anyhow::Result<()> {
    let stack = stack().await?;
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let name = "faulty-environment";
    let code = aws_sdk_lambda::types::FunctionCode::builder();
    lambda
        .create_function()
        .function_name(name)
        .runtime(aws_sdk_lambda::types::Runtime::Providedal2023)
        .handler("bootstrap")
        .role("arn:aws:iam::000000000000:role/none")
        .environment(
            aws_sdk_lambda::types::Environment::builder().variables("WEBSOCKET_ENDPOINT", "s3cret").build(),
        )
        .code(code.zip_file(Blob::new(build().await?.zip("delivery-worker")?)).build())
        .send()
        .await?;
    let failed = lambda.invoke().function_name(name).payload(Blob::new("{}")).send().await?;
    assert!(failed.function_error().is_some(), "{failed:?}");
    // What a start that fails has logged, the emulator puts into the error.
    let said = String::from_utf8(failed.payload.unwrap().into_inner())?;
    assert!(
        said.contains("3 environment variables are faulty: WEBSOCKET_ENDPOINT is malformed (expected"),
        "{said}"
    );
    assert!(
        said.contains("DEAD_LETTER_QUEUE_URL is missing (expected") && !said.contains("s3cret"),
        "{said}"
    );
    Ok(())
}
