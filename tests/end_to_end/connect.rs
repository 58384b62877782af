//! `$connect` and `$disconnect`, with the real Lambdas and real sockets.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    limit::ConnectionLimit,
    rules::{Audience, Rules},
    verify::{Keys, Verifier},
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_cli::stack::{Stack, issuer::ISSUER, logs::Logs};
use streamer_connections::CONNECT_GRACE;
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    emulator::{producer, stack},
    event, eventually,
    worker::telemetry,
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::{Instant, timeout},
};

use crate::{TENANT, connected, rows};

/// Sends a handshake with this query and these headers, and returns the status and the open connection.
pub(crate) async fn handshake(
    stack: &Stack,
    query: &str,
    header: &str,
) -> anyhow::Result<(u16, BufReader<TcpStream>)> {
    let url = stack.deployed.websocket_url.strip_prefix("ws://").context("not a WebSocket URL")?;
    let (host, path) = url.split_once('/').context("the URL has no path")?;
    let mut stream = BufReader::new(TcpStream::connect(host).await?);
    let request = format!(
        "GET /{path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    timeout(DEADLINE, stream.read_line(&mut line)).await.context("the handshake was not answered")??;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?;
    Ok((status, stream))
}

/// A token is accepted in the query, the header `Authorization` and the subprotocol, and appears in no log.
#[tokio::test]
async fn token_is_accepted_everywhere_and_never_logged() -> anyhow::Result<()> {
    let stack = stack().await?;
    let mut tokens = Vec::new();
    let mut open = Vec::new();
    for (user, valid) in [("in-query", true), ("in-header", true), ("in-subprotocol", true), ("bad", false)] {
        let mut token = stack.issuer.token(TENANT, user, Duration::from_secs(600))?;
        if !valid {
            token.truncate(token.len() - 2);
        }
        let requests = match user {
            "in-query" => vec![(format!("?Authorization={token}"), String::new())],
            "in-header" => vec![(String::new(), format!("Authorization: Bearer {token}\r\n"))],
            "in-subprotocol" => {
                vec![(String::new(), format!("Sec-WebSocket-Protocol: streamer.jwt, {token}\r\n"))]
            }
            _ => vec![
                (format!("?Authorization={token}"), String::new()),
                (String::new(), format!("Authorization: Bearer {token}\r\n")),
                (String::new(), format!("Sec-WebSocket-Protocol: streamer.jwt, {token}\r\n")),
            ],
        };
        for (query, header) in requests {
            let (status, stream) = handshake(&stack, &query, &header).await?;
            // The emulator turns every rejection into 403.
            assert_eq!(status, if valid { 101 } else { 403 }, "{user}");
            open.push(stream);
        }
        assert_eq!(rows(&stack, user).await?.len(), usize::from(valid), "{user}");
        tokens.push(token);
    }
    let mut logs = Logs::of(&stack, Some("connect"))?;
    let mut lines = Vec::new();
    eventually("all six handshakes are in the log", async || {
        lines.extend(logs.next().await?.into_iter().map(|line| line.text));
        let has_user = |user: &str| lines.iter().any(|line| line.contains(&format!("\"{user}\"")));
        let rejected = lines
            .iter()
            .filter(|line| line.contains("\"bad_signature\"") || line.contains("\"token_malformed\""));
        Ok(["in-query", "in-header", "in-subprotocol"].into_iter().all(has_user) && rejected.count() >= 3)
    })
    .await?;
    for token in tokens {
        // The signature is the secret part.
        let signature = token.rsplit('.').next().context("no signature")?;
        assert!(!lines.iter().any(|line| line.contains(signature)), "a token is in the log");
    }
    Ok(())
}

/// A handler in this process, on the stack's table and API, closes a user's oldest connections beyond the limit.
#[tokio::test]
async fn limit_closes_a_users_oldest_connections() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (user, now) = ("limited", SystemTime::now());
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(stack.connect(TENANT, user).await?);
    }
    let key = PublicKey::from_pem(&stack.issuer.public_key).context("not a public key")?;
    let access = Access { endpoint: Some(stack.deployed.management_endpoint.clone()), ..Access::default() };
    let limit = ConnectionLimit::new(2.try_into()?, CONNECT_GRACE, stack.config.clone());
    let verifier = Verifier::new(Keys::One(key), Rules::of(ISSUER, Audience::None));
    let handler =
        ConnectHandler::new(stack.table(), verifier, access, Some(limit), telemetry("connect-handler"));
    let mut event = event::connect(Some(&stack.issuer.token(TENANT, user, Duration::from_secs(60))?));
    event.connection_id = Some("newest".to_owned());
    // The limit has 2 s. Connections that it did not close in time stay until the next `$connect`.
    eventually("the limit is enforced in time", async || {
        let started = Instant::now();
        ensure!(handler.handle(event.clone()).await.status_code == 200);
        Ok(started.elapsed() < Duration::from_secs(2))
    })
    .await?;

    let [mut first, mut second, third] =
        <[_; 3]>::try_from(sockets).map_err(|_| anyhow::anyhow!("not three sockets"))?;
    for closed in [&mut first, &mut second] {
        let error = closed.next(DEADLINE).await.unwrap_err().to_string();
        ensure!(error.contains("closed"), "{error}");
    }
    let mut left = Vec::new();
    eventually("two rows are left", async || {
        left = rows(&stack, user).await?;
        Ok(left.len() == 2)
    })
    .await?;
    ensure!(left.iter().any(|row| row.connection_id.as_str() == "newest"), "{left:?}");
    ensure!(left.iter().all(|row| row.connected_at >= now), "{left:?}");
    third.close().await?;
    Ok(stack.table().delete(&"newest".try_into()?).await.map(drop)?)
}

/// A row without a socket remains when API Gateway gives up on a `$connect` that has written its row, and when it
/// never invokes `$disconnect`. The first post removes it.
#[tokio::test]
async fn first_post_removes_an_orphaned_row() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (client, id) = connected(&stack, "orphaned").await?;
    let row = stack.table().get(&id, SystemTime::now()).await?.context("no row")?;
    client.close().await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await?;
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    stack.table().put(&streamer_connections::Connection { connected_at: long_ago, ..row }).await?;
    let message = Message::user(TENANT, "orphaned").payload(&json!("hello"))?;
    producer(&stack.config, &stack.deployed.queue_url).send(message).await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await
}

/// Concurrent disconnects, some of them without a close frame, remove their rows and no others.
#[tokio::test]
async fn concurrent_disconnects_remove_only_their_rows() -> anyhow::Result<()> {
    let stack = stack().await?;
    let connect = |_| async { stack.connect(TENANT, "leaving").await };
    let mut sockets: Vec<_> = stream::iter(0..20).map(connect).buffer_unordered(10).try_collect().await?;
    let staying = sockets.split_off(15);
    stream::iter(sockets).map(|socket| socket.close()).buffer_unordered(10).try_collect::<Vec<_>>().await?;
    eventually("five rows are left", async || Ok(rows(&stack, "leaving").await?.len() == 5)).await?;
    drop(staying);
    eventually("all rows are removed", async || Ok(rows(&stack, "leaving").await?.is_empty())).await
}
