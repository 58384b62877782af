//! The front door of the stack, before the emulator.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, ensure};
use aws_sdk_lambda::primitives::Blob;
use serde_json::{Value, json};
use streamer_cli::stack::{
    Stack,
    front_door::{FRAME_BYTES, FrontDoor, Limits},
    socket::Socket,
};
use streamer_tests::{emulator::stack, event, eventually};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::{TENANT, connect::handshake, connected_socket, rows};

/// Waits until a user has no row.
async fn row_is_removed(stack: &Stack, user: &str) -> anyhow::Result<()> {
    eventually("the row is removed", async || Ok(rows(stack, user).await?.is_empty())).await
}

/// The front door answers with the subprotocol that the deployed `connect-handler` returns, and that the emulator drops.
#[tokio::test]
async fn subprotocol_is_that_of_connect_handler() -> anyhow::Result<()> {
    let stack = stack().await?;
    ensure!(stack.deployed.websocket_url.ends_with("/local"), "{}", stack.deployed.websocket_url);
    let token = stack.issuer.token(TENANT, "subprotocol", Duration::from_secs(600))?;
    let mut open = Vec::new();
    for (offered, expected) in [
        (Some(format!("streamer.jwt, {token}")), Some("streamer.jwt")),
        (Some(format!("chat,streamer.jwt,{token}")), Some("streamer.jwt")),
        (Some("chat, mqtt, graphql-transport-ws".to_owned()), Some("mqtt")),
        (Some("chat".to_owned()), None),
        (None, None),
    ] {
        let header = offered.iter().map(|offered| format!("Sec-WebSocket-Protocol: {offered}\r\n"));
        let header: String = header.chain([format!("Authorization: {token}\r\n")]).collect();
        let (status, mut stream) = handshake(&stack, "", &header).await?;
        ensure!(status == 101, "{offered:?}: {status}");
        ensure!(answered(&mut stream).await?.as_deref() == expected, "{offered:?}");
        open.push(stream);

        let mut event = event::connect_json(Some(&token));
        if let Some(offered) = &offered {
            event["headers"]["Sec-WebSocket-Protocol"] = json!(offered);
        }
        let lambda = aws_sdk_lambda::Client::new(&stack.config);
        let invoke = lambda.invoke().function_name(&stack.deployed.functions["connect"]);
        let output = invoke.payload(Blob::new(event.to_string())).send().await?;
        let response: Value = serde_json::from_slice(output.payload.context("no response")?.as_ref())?;
        ensure!(response["statusCode"] == 200, "{response}");
        let headers = response["headers"].as_object().into_iter().flatten();
        let mut returned = headers.filter(|(name, _)| name.eq_ignore_ascii_case("Sec-WebSocket-Protocol"));
        ensure!(returned.next().and_then(|(_, value)| value.as_str()) == expected, "{offered:?}: {response}");
    }
    Ok(())
}

/// Reads the rest of a handshake's response, and returns the subprotocol that it names.
async fn answered(stream: &mut BufReader<tokio::net::TcpStream>) -> anyhow::Result<Option<String>> {
    let (mut line, mut subprotocol) = (String::new(), None);
    while stream.read_line(&mut line).await? > 2 {
        if let Some(("sec-websocket-protocol", value)) = line.to_lowercase().trim_end().split_once(": ") {
            subprotocol = Some(value.to_owned());
        }
        line.clear();
    }
    Ok(subprotocol)
}

/// A client whose TCP connection ends or is reset, without a close frame, is disconnected.
#[tokio::test]
async fn dropped_tcp_removes_the_row() -> anyhow::Result<()> {
    let stack = stack().await?;
    for is_reset in [false, true] {
        let token = stack.issuer.token(TENANT, "dropped", Duration::from_secs(600))?;
        let (status, stream) = handshake(&stack, "", &format!("Authorization: {token}\r\n")).await?;
        ensure!(status == 101 && rows(&stack, "dropped").await?.len() == 1);
        if is_reset {
            stream.get_ref().set_zero_linger()?;
        }
        drop(stream);
        row_is_removed(&stack, "dropped").await?;
    }
    Ok(())
}

/// A front door that ends disconnects its clients, and no others.
#[tokio::test]
async fn ended_front_door_removes_its_rows() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (_other, staying) = connected_socket(&stack, "door-stays").await?;
    let url = stack.deployed.management_endpoint.replacen("http", "ws", 1);
    let door = FrontDoor::start(&url, Vec::new(), Limits::default())?;
    let token = stack.issuer.token(TENANT, "door-ends", Duration::from_secs(600))?;
    let mut socket = Socket::connect(&door.url(), Some(&token)).await?;
    ensure!(rows(&stack, "door-ends").await?.len() == 1);
    drop(door);
    ensure!(socket.next(streamer_tests::DEADLINE).await.is_err(), "the socket is still open");
    row_is_removed(&stack, "door-ends").await?;
    ensure!(stack.table().get(&staying, SystemTime::now()).await?.is_some());
    Ok(())
}

/// A frame of 32 KiB reaches the router, and a larger one closes the connection.
#[tokio::test]
async fn large_frame_closes_with_1009() -> anyhow::Result<()> {
    let stack = stack().await?;
    let (mut socket, _) = connected_socket(&stack, "large-frame").await?;
    let mut request = json!({ "type": "echo", "request_id": "r", "text": "" });
    request["text"] = "x".repeat(FRAME_BYTES as usize - request.to_string().len()).into();
    socket.send(&request).await?;
    ensure!(socket.next(streamer_tests::DEADLINE).await?.json()?["data"] == request["text"]);
    socket.send_text(&"x".repeat(FRAME_BYTES as usize + 1)).await?;
    ensure!(socket.closed(streamer_tests::DEADLINE).await? == 1009);
    row_is_removed(&stack, "large-frame").await
}
