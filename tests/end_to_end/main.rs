//! End-to-end tests on the emulator: real clients, real queues, the real Lambda binaries.

mod arrivals;
mod audiences;
mod authorizer;
mod aws;
mod browser;
mod cells;
mod connect;
mod dead_letters;
mod front_door;
mod javascript;
mod languages;
mod mailbox;
mod outcomes;
mod receipts;
mod redrive;
mod routers;
mod send;
mod services;
mod shards;
mod status;
mod storm;
mod terminal;
mod upgrade;
mod worker_receipts;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use aws_sdk_lambda::primitives::Blob;
use aws_sdk_sqs::types::Message as QueueMessage;
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    build::build,
    front_door::{FRAME_BYTES, MESSAGE_BYTES},
    issuer::{ISSUER, Issuer},
    logs::Logs,
    socket::{NotConnected, Socket},
};
use streamer_connections::{Connection, Endpoints, IndexedConnection, Removal};
use streamer_message::{ConnectionId, TenantId, UserId};
use streamer_producer::Message;
use streamer_tests::{
    client::Client,
    emulator::{self, crowd, producer, stack},
    event, eventually,
};

const TENANT: &str = "path";

/// Returns the live connections of a user.
async fn rows(stack: &Stack, user: &str) -> anyhow::Result<Vec<IndexedConnection>> {
    emulator::rows(stack, TENANT, user).await
}

/// Connects a client of a user without other connections.
async fn connected(stack: &Stack, user: &str) -> anyhow::Result<(Client, ConnectionId)> {
    let (socket, id) = connected_socket(stack, user).await?;
    Ok((Client::new(socket), id))
}

/// Connects a socket of a user without other connections.
async fn connected_socket(stack: &Stack, user: &str) -> anyhow::Result<(Socket, ConnectionId)> {
    let socket = stack.connect(TENANT, user).await?;
    let mut rows = rows(stack, user).await?;
    anyhow::ensure!(rows.len() == 1, "rows: {rows:?}");
    Ok((socket, rows.remove(0).connection_id))
}

#[tokio::test]
async fn row_lives_as_long_as_connection() -> anyhow::Result<()> {
    let stack = stack().await?;
    let before = SystemTime::now();
    let (mut client, id) = connected(&stack, "life").await?;

    let row = stack.table().get(&id, SystemTime::now()).await?.unwrap();
    assert_eq!((row.user_id.as_str(), row.tenant_id.as_str()), ("life", TENANT));
    assert_eq!(row.endpoint, stack.deployed.management_endpoint);
    assert_eq!(row.source_ip.as_deref(), Some("127.0.0.1"));
    assert!(row.connected_at >= before - Duration::from_millis(1) && row.connected_at <= SystemTime::now());
    let lifetime = row.expires_at.duration_since(row.connected_at)?.as_secs_f64().ceil() as u64;
    assert_eq!(lifetime, 2 * 3600 + 600);

    client.send(&json!({ "type": "echo", "request_id": "r", "text": "hello" })).await?;
    let frame = client.next("the response").await?.json()?;
    assert_eq!(
        (&frame["type"], &frame["data"], &frame["request_id"]),
        (&json!("response"), &json!("hello"), &json!("r"))
    );

    client.close().await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await?;
    assert!(rows(&stack, "life").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn report_is_acknowledged_progresses_and_completes() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, _) = connected(&stack, "report").await?;
    client.send(&json!({ "type": "report", "request_id": "r" })).await?;
    // Messages arrive in any order: a client sorts them by `seq`. A progress update that shares a batch with a later
    // message of the request is superseded.
    let mut frames = BTreeMap::new();
    let has = |frames: &BTreeMap<_, Value>, kind: &str| frames.values().any(|frame| frame["type"] == kind);
    while !has(&frames, "acknowledgment") || !has(&frames, "complete") {
        let frame = client.next("acknowledgment or complete").await?.json()?;
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
async fn unknown_request_gets_an_error() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, _) = connected(&stack, "errors").await?;
    for (request, request_id) in [
        (json!({ "type": "dance", "request_id": "r" }), json!("r")),
        (json!({ "type": "echo" }), Value::Null),
        (json!("hello"), Value::Null),
    ] {
        client.send(&request).await?;
        let frame = client.next(&format!("the error for {request}")).await?.json()?;
        assert_eq!(frame["type"], "error", "{frame}");
        assert_eq!(frame["error"]["code"], "invalid_request", "{frame}");
        assert_eq!(frame["request_id"], request_id, "{frame}");
    }
    Ok(())
}

#[tokio::test]
async fn oversized_response_becomes_an_error() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected_socket(&stack, "large").await?;
    // The largest request that fits a message. The response has more fields.
    let mut request = json!({ "type": "echo", "request_id": "r", "text": "" });
    request["text"] = "x".repeat(MESSAGE_BYTES as usize - request.to_string().len()).into();
    let request = request.to_string();
    let (first, rest) = request.split_at(FRAME_BYTES as usize);
    let (second, rest) = rest.split_at(FRAME_BYTES as usize);
    let (third, fourth) = rest.split_at(FRAME_BYTES as usize);
    socket.send_fragments(&[first, second, third, fourth]).await?;
    let frame = Client::new(socket).next("the error").await?.json()?;
    assert_eq!(frame["error"]["code"], "internal", "{frame}");
    assert_eq!(frame["request_id"], "r", "{frame}");
    Ok(())
}

#[tokio::test]
async fn router_survives_a_disconnected_client() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, id) = connected(&stack, "gone").await?;
    client.send(&json!({ "type": "report", "request_id": "unheard" })).await?;
    client.close().await?;

    // The emulator invokes `$disconnect` only after the router has returned.
    let removed = async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none());
    eventually("the row is removed", removed).await?;
    let router = Logs::of(&stack, Some("router"))?.next().await?;
    let errors: Vec<_> = router.iter().filter(|line| line.text.contains("unheard")).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let (mut other, _) = connected(&stack, "after-gone").await?;
    other.send(&json!({ "type": "ping", "request_id": "r" })).await?;
    assert_eq!(other.next("pong").await?.json()?["data"], "pong");
    Ok(())
}

#[tokio::test]
async fn payload_arrives_byte_for_byte() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, id) = connected(&stack, "bytes").await?;
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
    let messages = messages.collect::<Result<Vec<_>, _>>()?;
    producer(&stack.config, &stack.deployed.queue_url).send_all(messages).await?;

    let mut missing: BTreeSet<_> = sent.iter().map(|payload| (*payload).to_owned()).collect();
    while !missing.is_empty() {
        let text = client.next(&format!("{missing:?}")).await?.text;
        assert!(missing.remove(&text), "{text:?} was not sent");
    }
    Ok(())
}

#[tokio::test]
async fn characters_that_sqs_rejects_arrive_escaped() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, id) = connected(&stack, "values").await?;
    let rejected = "\u{FFFE} \u{FFFF} \u{0} \u{b} \u{1f}";
    let value = json!({ rejected: [rejected] });
    let message = Message::connection(&id).payload(&value)?;
    producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
    let frame = client.next("the message").await?;
    assert_eq!(serde_json::from_str::<Value>(&frame.text)?, value);
    assert!(!frame.text.contains(['\u{FFFE}', '\u{FFFF}']), "SQS would have rejected it");
    Ok(())
}

/// The table finds a row by id, by user and by tenant, omits expired rows, and deletes with conditions.
#[tokio::test]
async fn table_finds_live_rows_by_each_key() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (_client, first) = connected(&stack, "lists").await?;
    let _other = stack.connect(TENANT, "lists").await?;
    let (table, now) = (stack.table(), SystemTime::now());
    let row = table.get(&first, now).await?.unwrap();

    let (tenant, user) = (TenantId::new(TENANT)?, UserId::new("lists")?);
    assert_eq!(table.by_user(&tenant, &user, None, now).await?.connections.len(), 2);
    let shard = streamer_connections::TenantShards::DEFAULT.of(&first);
    let in_shard = table.by_tenant(&tenant, shard, None, now).await?;
    assert!(in_shard.connections.iter().any(|found| found.connection_id == first));
    let after = table.by_tenant(&tenant, shard, Some(&first), now).await?;
    assert!(
        after.connections.iter().all(|found| found.connection_id != first),
        "the page includes the cursor"
    );

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
    assert_eq!(kept, Removal::TooYoung, "a connection is not older than itself");
    let kept = table.delete_if_older(&first, later, &elsewhere).await?;
    assert_eq!(kept, Removal::Elsewhere(row.endpoint.clone()));
    let other_name = Endpoints::new("https://other.example", [row.endpoint.clone()]);
    assert_eq!(table.delete_if_older(&first, later, &other_name).await?, Removal::Removed);
    let removed = table.delete_if_older(&first, row.connected_at, &here).await?;
    assert_eq!(removed, Removal::Removed, "deleting a missing row succeeds");
    assert_eq!(table.delete(&first).await?, None);
    table.put(&row).await?;
    assert_eq!(table.delete(&first).await?, Some(row));
    Ok(())
}

#[tokio::test]
async fn bad_token_gets_401_and_no_row() -> anyhow::Result<()> {
    let stack = stack().await?;
    let lambda = aws_sdk_lambda::Client::new(&stack.config);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let claims =
        |issuer: &str, exp: u64| json!({ "iss": issuer, "sub": "refused", "tenant_id": TENANT, "exp": exp });
    let other_issuer = Issuer::generate()?;
    for (token, reason) in [
        (None, "token_missing"),
        (Some(stack.issuer.sign(&claims(ISSUER, now - 60))?), "token_expired"),
        (Some(other_issuer.sign(&claims(ISSUER, now + 60))?), "bad_signature"),
        (Some(stack.issuer.sign(&claims("https://evil.example.com", now + 60))?), "wrong_issuer"),
    ] {
        let token = token.as_deref();
        let refused = Socket::connect(&stack.deployed.websocket_url, token).await;
        assert!(matches!(refused, Err(NotConnected::Refused(_))), "{reason}: {refused:?}");

        let event = Blob::new(event::connect_json(token).to_string());
        let invoke = lambda.invoke().function_name(&stack.deployed.functions["connect"]).payload(event);
        let response: Value = serde_json::from_slice(invoke.send().await?.payload.unwrap().as_ref())?;
        assert_eq!(response["statusCode"], 401, "{response}");
        assert_eq!(response["body"], json!({ "error": reason }).to_string());
    }
    assert!(rows(&stack, "refused").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn stale_connection_loses_its_row_on_410() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (client, id) = connected(&stack, "stale").await?;
    let row = stack.table().get(&id, SystemTime::now()).await?.unwrap();
    client.close().await?;
    let removed = async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none());
    eventually("$disconnect removes the row", removed).await?;

    // As if API Gateway had never invoked `$disconnect`.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    stack.table().put(&Connection { connected_at: long_ago, ..row }).await?;
    let message = Message::connection(&id).response("hello")?;
    producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
    eventually("the 410 removes the row", removed).await
}

#[tokio::test]
async fn poison_message_is_dead_lettered_unchanged() -> anyhow::Result<()> {
    let stack = stack().await?;
    let body = "{ \"version\": 1,\n\t\"id\": \"poison-\u{e9}\" }";
    enqueue(&stack, body).await?;
    let letter = dead_letter(&stack, body).await?;
    let attributes = letter.message_attributes.unwrap_or_default();
    let attribute = |name: &str| attributes[name].string_value().unwrap_or_default().to_owned();
    assert_eq!(attribute("streamer.reason"), "poison");
    assert!(attribute("streamer.detail").contains("`to` is missing"));
    // 1, unless the run is so slow that SQS delivers the message again.
    assert!(attribute("streamer.attempts").parse::<u32>()? >= 1);
    Ok(())
}

async fn enqueue(stack: &Stack, body: &str) -> anyhow::Result<()> {
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    sqs.send_message().queue_url(&stack.deployed.queue_url).message_body(body).send().await?;
    Ok(())
}

/// Waits for a dead letter with this body, and returns it.
async fn dead_letter(stack: &Stack, body: &str) -> anyhow::Result<QueueMessage> {
    let sqs = aws_sdk_sqs::Client::new(&stack.config);
    let mut found = None;
    eventually("the dead letter is on the queue", async || {
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
async fn expired_message_is_not_delivered() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, id) = connected(&stack, "expiry").await?;
    let producer = producer(&stack.config, &stack.deployed.queue_url);
    let expired = Message::connection(&id).expires_in(Duration::ZERO).response("too late")?;
    producer.send(expired.clone()).await?;
    let mut logs = Logs::of(&stack, Some("delivery"))?;
    eventually("the worker logs the message as expired", async || {
        let reports = |line: &str| line.contains(expired.id().as_str()) && line.contains("\"expired\"");
        Ok(logs.next().await?.iter().any(|line| reports(&line.text)))
    })
    .await?;
    producer.send(Message::connection(&id).response("in time")?).await?;
    assert_eq!(client.next("the second message").await?.json()?["data"], "in time");
    Ok(())
}

#[tokio::test]
async fn broadcast_reaches_100_connections() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (sockets, ids) = crowd(&stack, TENANT, "crowd", 100).await?;
    let message = Message::connections(&ids).response("everybody")?;
    producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
    for socket in sockets {
        let frame = Client::new(socket).next("the broadcast").await?;
        assert_eq!(frame.json()?["data"], "everybody");
    }
    Ok(())
}

/// A message written by hand from the JSON Schema is delivered.
#[tokio::test]
async fn handwritten_message_is_delivered() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut client, id) = connected(&stack, "by-hand").await?;
    let body = format!(
        r#"{{"version": 1, "id": "by-hand", "to": {{"connection": "{id}"}}, "payload": {{"ok": true}}}}"#
    );
    enqueue(&stack, &body).await?;
    assert_eq!(client.next("the message").await?.text, r#"{"ok": true}"#);
    Ok(())
}

#[tokio::test]
async fn invalid_environment_is_reported_in_log() -> anyhow::Result<()> {
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
    // The emulator copies the log of a failed start into the error.
    let log = String::from_utf8(failed.payload.unwrap().into_inner())?;
    assert!(
        log.contains("3 environment variables are faulty: WEBSOCKET_ENDPOINT is malformed (expected"),
        "{log}"
    );
    assert!(log.contains("DEAD_LETTER_QUEUE_URL is missing (expected") && !log.contains("s3cret"), "{log}");
    Ok(())
}
