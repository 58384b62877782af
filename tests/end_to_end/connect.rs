//! Who gets in, with the real Lambda and real sockets.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use connect_handler::{
    ConnectHandler,
    config::Access,
    keys::PublicKey,
    limit::ConnectionLimit,
    verify::{Keys, Verifier},
};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::json;
use streamer_cli::stack::{Stack, issuer::ISSUER, logs::Logs};
use streamer_connections::CONNECT_GRACE;
use streamer_producer::Message;
use streamer_tests::{emulator::stack, event, eventually, worker::telemetry};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
    time::timeout,
};

use crate::{LIMIT, TENANT, connected, rows};

/// The status of a handshake with these headers, at the stack's URL with this query, and the open connection.
async fn handshake(stack: &Stack, query: &str, header: &str) -> anyhow::Result<(u16, BufReader<TcpStream>)> {
    let url = stack.deployed.websocket_url.strip_prefix("ws://").context("a WebSocket URL")?;
    let (host, path) = url.split_once('/').context("a path")?;
    let mut stream = BufReader::new(TcpStream::connect(host).await?);
    let request = format!(
        "GET /{path}{query} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{header}\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    timeout(LIMIT, stream.read_line(&mut line)).await??;
    let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).context("a status")?;
    Ok((status, stream))
}

#[tokio::test]
async fn a_token_gets_in_at_each_of_its_three_places_and_into_no_log() -> anyhow::Result<()> {
    let stack = stack().await?;
    let mut tokens = Vec::new();
    let mut open = Vec::new();
    for (user, good) in [("in-query", true), ("in-header", true), ("in-subprotocol", true), ("bad", false)] {
        let mut token = stack.issuer.token(TENANT, user, Duration::from_secs(600))?;
        if !good {
            token.truncate(token.len() - 2);
        }
        let places = match user {
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
        for (query, header) in places {
            let (status, stream) = handshake(&stack, &query, &header).await?;
            // The emulator answers every refusal with 403.
            assert_eq!(status, if good { 101 } else { 403 }, "{user}");
            open.push(stream);
        }
        assert_eq!(rows(&stack, user).await?.len(), usize::from(good), "{user}");
        tokens.push(token);
    }
    let mut logs = Logs::of(&stack, Some("connect"))?;
    let mut said = Vec::new();
    eventually("the log tells of all six", async || {
        said.extend(logs.next().await?.into_iter().map(|line| line.text));
        let of_users = |user: &str| said.iter().any(|line| line.contains(&format!("\"{user}\"")));
        let refused = said
            .iter()
            .filter(|line| line.contains("\"bad_signature\"") || line.contains("\"token_malformed\""));
        Ok(["in-query", "in-header", "in-subprotocol"].into_iter().all(of_users) && refused.count() >= 3)
    })
    .await?;
    for token in tokens {
        // Neither whole nor its signature.
        let signature = token.rsplit('.').next().context("a signature")?;
        assert!(!said.iter().any(|line| line.contains(signature)), "a token is in the log");
    }
    Ok(())
}

/// The handler in this process, on the stack's table and API: who has too many sockets loses the oldest.
#[tokio::test]
async fn the_oldest_sockets_of_a_user_are_closed_for_the_newest() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (user, now) = ("limited", SystemTime::now());
    let mut sockets = Vec::new();
    for _ in 0..3 {
        sockets.push(stack.connect(TENANT, user).await?);
    }
    let key = PublicKey::from_pem(&stack.issuer.public_key).context("the stack's key")?;
    let access = Access { endpoint: Some(stack.deployed.management_endpoint.clone()), ..Access::default() };
    let limit = ConnectionLimit::new(2.try_into()?, CONNECT_GRACE, stack.config.clone());
    let verifier = Verifier::new(Keys::One(key), Some(ISSUER), None);
    let handler =
        ConnectHandler::new(stack.table(), verifier, access, Some(limit), telemetry("connect-handler"));
    let mut event = event::connect(Some(&stack.issuer.token(TENANT, user, Duration::from_secs(60))?));
    event.request_context.connection_id = Some("newest".to_owned());
    assert_eq!(handler.handle(event).await.status_code, 200);

    let [mut first, mut second, third] = <[_; 3]>::try_from(sockets).map_err(|_| anyhow::anyhow!("three"))?;
    for closed in [&mut first, &mut second] {
        let error = closed.next(LIMIT).await.unwrap_err().to_string();
        ensure!(error.contains("closed"), "{error}");
    }
    let left = rows(&stack, user).await?;
    ensure!(left.len() == 2 && left.iter().any(|row| row.connection_id.as_str() == "newest"), "{left:?}");
    ensure!(left.iter().all(|row| row.connected_at >= now));
    third.close().await?;
    Ok(stack.table().delete(&"newest".try_into()?).await.map(drop)?)
}

/// A `$connect` that wrote its row and was answered too late has a row without a socket, and so has a client whose
/// `$disconnect` never came. The first post finds it out.
#[tokio::test]
async fn a_row_without_a_socket_is_removed_by_the_first_post() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (socket, id) = connected(&stack, "too-late").await?;
    let row = stack.table().get(&id, SystemTime::now()).await?.context("a row")?;
    socket.close().await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await?;
    let made_long_ago = SystemTime::now() - Duration::from_secs(60);
    stack.table().put(&streamer_connections::Connection { connected_at: made_long_ago, ..row }).await?;
    stack.producer().send(Message::user(TENANT, "too-late").payload(&json!("anybody?"))?).await?;
    eventually("the row is removed", async || Ok(stack.table().get(&id, SystemTime::now()).await?.is_none()))
        .await
}

/// Many who leave at once, some of them without a word.
#[tokio::test]
async fn many_disconnects_at_once_remove_their_rows_and_no_others() -> anyhow::Result<()> {
    let stack = stack().await?;
    let connect = |_| async { stack.connect(TENANT, "leaving").await };
    let mut sockets: Vec<_> = stream::iter(0..20).map(connect).buffer_unordered(10).try_collect().await?;
    let staying = sockets.split_off(15);
    stream::iter(sockets).map(|socket| socket.close()).buffer_unordered(10).try_collect::<Vec<_>>().await?;
    eventually("the rows are removed", async || Ok(rows(&stack, "leaving").await?.len() == 5)).await?;
    drop(staying);
    eventually("all rows are removed", async || Ok(rows(&stack, "leaving").await?.is_empty())).await
}
