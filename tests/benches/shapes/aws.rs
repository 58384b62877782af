//! A stub of API Gateway, SQS and DynamoDB that answers as fully as a worker needs, 20 ms after each request.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use anyhow::Context as _;
use serde_json::{Value, json};
use streamer_tests::worker::ENDPOINT;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
    time::sleep,
};
use tokio_rustls::TlsAcceptor;

/// Time from a request to its answer.
const LATENCY: Duration = Duration::from_millis(20);

/// Rows of a page.
const PAGE_ROWS: usize = 100;

/// Seconds since the epoch, in the year 2100.
const LATER: &str = "4102444800";

/// Prints its address, and serves until it is killed. It answers each post with `status`.
pub(crate) async fn serve(status: u16, tls: rustls::ServerConfig) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    println!("{}", listener.local_addr()?);
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let acceptor = acceptor.clone();
        tokio::spawn(async move { answer(acceptor.accept(stream).await?, status).await });
    }
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin, status: u16) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    loop {
        let head = loop {
            if let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        };
        let text = std::str::from_utf8(&buffer[..head])?.to_ascii_lowercase();
        let header = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let end = head + header("content-length:").and_then(|length| length.parse().ok()).unwrap_or(0);
        while buffer.len() < end {
            stream.read_buf(&mut buffer).await?;
        }
        let answer = match header("x-amz-target:") {
            None => format!("HTTP/1.1 {status} Stub\r\nContent-Length: 0\r\n\r\n"),
            Some(target) => {
                let operation = target.rsplit('.').next().context("no operation")?;
                let body = result(operation, &serde_json::from_slice(&buffer[head..end])?).to_string();
                format!(
                    "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                )
            }
        };
        buffer.drain(..end);
        sleep(LATENCY).await;
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}

/// Returns the result of a call to SQS or DynamoDB. SQS confirms each entry. A tenant's shard has connections without
/// end, and a user has one; a mailbox has no device.
fn result(operation: &str, input: &Value) -> Value {
    match operation {
        "sendmessagebatch" | "changemessagevisibilitybatch" => {
            let entries = input["Entries"].as_array().into_iter().flatten();
            let confirmed: Vec<_> = entries
                .map(|entry| json!({ "Id": entry["Id"], "MessageId": "m", "MD5OfMessageBody": "m" }))
                .collect();
            json!({ "Successful": confirmed, "Failed": [] })
        }
        "query" => match input["ExpressionAttributeNames"]["#key"].as_str() {
            Some("tenant_shard") => shard(&input["ExclusiveStartKey"]["connection_id"]["S"]),
            Some(_) => {
                let user = input["ExpressionAttributeValues"][":value"]["S"].as_str().unwrap_or_default();
                json!({ "Items": [row(user)] })
            }
            None => json!({ "Items": [] }),
        },
        "updateitem" => {
            let value = |name: &str| &input["ExpressionAttributeValues"][name];
            json!({ "Attributes": {
                "epoch": value(":epoch"), "top": value(":seq"), "floor": { "N": "0" }, "expires_at": { "N": LATER },
            } })
        }
        _ => json!({}),
    }
}

/// Returns the page of a shard after a connection.
fn shard(after: &Value) -> Value {
    let after: usize = after.as_str().and_then(|id| id[1..].parse().ok()).unwrap_or(0);
    let id = |number: usize| format!("L{number:014}");
    let last = after + PAGE_ROWS;
    let rows: Vec<_> = (after + 1..=last).map(|number| row(&id(number))).collect();
    json!({ "Items": rows, "LastEvaluatedKey": { "connection_id": { "S": id(last) } } })
}

fn row(connection: &str) -> Value {
    json!({
        "connection_id": { "S": connection },
        "user_id": { "S": "anna" },
        "endpoint": { "S": ENDPOINT },
        "connected_at": { "N": "1764000000000" },
        "expires_at": { "N": LATER },
    })
}
