//! Deployments of which a part is missing, and clients that cannot connect.

use std::net::Ipv4Addr;

use anyhow::Context as _;
use futures::StreamExt as _;
use streamer_tests::{
    command::{Streamer, output},
    wire::{Reply, Request, WireGateway},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::accept_async;

use super::{Patient, TOKEN_LIFETIME};

/// AWS refuses every call of a clock that is off.
#[tokio::test]
async fn clock_that_is_off_is_named() -> anyhow::Result<()> {
    let body = r#"{"message":"Signature expired"}"#;
    let answer = format!(
        "HTTP/1.1 403 Forbidden\r\nx-amzn-ErrorType: InvalidSignatureException\r\n\
         Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let aws = WireGateway::start(move |_| Reply::Raw(answer.clone().into_bytes())).await?;
    let patient = Patient::whole("doctor-clock").await?;
    let command = patient.streamer.spawn_at(&aws.origin(), ["doctor", "--aws", "--json"])?;
    let report = patient.report(command).await?;
    report.assert_named("clock.offset", "failed", "NTP");
    report.assert_named("functions.read", "failed", "synchronize this machine's clock first");
    assert_eq!(report.checks.len(), 2, "{:?}", report.output);
    Ok(())
}

#[tokio::test]
async fn missing_function_is_reported() -> anyhow::Result<()> {
    let mut patient = Patient::whole("doctor-missing").await?;
    patient.name = "absent".to_owned();
    let report = patient.examine().await?;
    assert_eq!(report.verdict("clock.offset"), "ok");
    assert!(report.text("functions.read", "seen").contains("absent-delivery"), "{:?}", report.output);
    report.assert_named("functions.read", "failed", "run the command again");
    Ok(())
}

/// The plan needs the worker's configuration, and does without those of other functions.
#[tokio::test]
async fn unreadable_functions_do_not_end_it() -> anyhow::Result<()> {
    let answer = |_: usize, request: &Request| {
        let (status, body) = match request.line.contains("streamer-delivery") {
            true => {
                ("200 OK", r#"{"Environment":{"Variables":{"QUEUE_URL":"http://127.0.0.1:9/outbound"}}}"#)
            }
            false => ("403 Forbidden\r\nx-amzn-ErrorType: AccessDeniedException", r#"{"Message":"no"}"#),
        };
        let head = format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\n");
        Reply::Raw(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
    };
    let aws = WireGateway::answering(answer).await?;
    let streamer = Streamer::new("doctor-unreadable").await?;
    let plan = output(streamer.spawn_at(&aws.origin(), ["doctor", "--aws", "--plan"])?).await?;
    assert!(plan.success && plan.err.contains("http://127.0.0.1:9/outbound"), "{plan:?}");
    Ok(())
}

#[tokio::test]
async fn missing_token_and_endpoint_are_named() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-bare", None, &[("WEBSOCKET_ENDPOINT", "")]).await?;
    let report = patient.examine_with(&[]).await?;
    assert_eq!(report.verdict("queue.exists"), "ok");
    report.assert_named("endpoint.address", "failed", "WEBSOCKET_ENDPOINT of streamer-doctor-bare-delivery");
    assert!(report.text("connect.token", "seen").contains("--url"), "{:?}", report.output);

    let (url, _serving) = admitting_every_client().await?;
    let report = patient.examine_with(&["--url", &url]).await?;
    assert_eq!(report.verdict("connect.token"), "skipped");
    assert!(report.text("connect.token", "seen").contains("--token-file FILE"), "{:?}", report.output);
    report.assert_named("connect.no_token", "warning", "on purpose");
    assert_eq!(report.verdict("connect.damaged_token"), "skipped");
    assert_eq!(report.verdict("delivery.first"), "skipped");
    patient.assert_nothing_left().await
}

/// A function that is not Streamer's writes rows without a user agent.
#[tokio::test]
async fn row_without_user_agent_is_found() -> anyhow::Result<()> {
    let mut patient = Patient::whole("doctor-agentless").await?;
    let (url, _serving) = without_user_agent(&patient.url).await?;
    patient.url = url;
    let report = patient.examine().await?;
    for name in ["connect.row", "delivery.queue", "connect.disconnect", "permissions.gone_row"] {
        assert_eq!(report.verdict(name), "ok", "{name}: {:?}", report.output);
    }
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn deployment_without_table_skips_rows() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-tableless", None, &[("CONNECTIONS_TABLE", "")]).await?;
    let report = patient.examine().await?;
    assert_eq!((report.verdict("connect.token"), report.verdict("endpoint.post")), ("ok", "ok"));
    for name in ["connect.row", "connect.index_by_user", "connect.index_by_tenant", "connect.endpoint"] {
        assert_eq!(report.verdict(name), "skipped", "{name}: {:?}", report.output);
    }
    assert!(report.text("delivery.first", "seen").contains("without a route"), "{:?}", report.output);
    Ok(())
}

#[tokio::test]
async fn token_in_the_query_is_not_shown() -> anyhow::Result<()> {
    let mut patient = Patient::whole("doctor-query").await?;
    patient.token = patient.stack.issuer.token(&patient.tenant, "anna", TOKEN_LIFETIME)?;
    let query = format!("?Authorization={}", patient.token);
    let client = ["--tenant", &patient.tenant, "--user", "anna"];
    let url = format!("{}{query}", patient.url);
    let report = patient.examine_with(&[&["--url", &url], &client[..]].concat()).await?;
    assert_eq!((report.verdict("connect.token"), report.verdict("delivery.queue")), ("ok", "ok"));
    for name in ["connect.no_token", "connect.damaged_token"] {
        assert!(report.text(name, "seen").contains("query"), "{:?}", report.output);
    }
    let url = format!("ws://127.0.0.1:9/live{query}");
    let report = patient.examine_with(&[&["--url", &url], &client[..]].concat()).await?;
    assert!(report.text("connect.token", "seen").starts_with("no WebSocket at ws://127.0.0.1:9/live: "));
    patient.assert_nothing_left().await
}

/// Starts a server that accepts every handshake, and returns its URL.
async fn admitting_every_client() -> anyhow::Result<(String, JoinSet<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (address, mut serving) = (listener.local_addr()?, JoinSet::new());
    serving.spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            if let Ok(mut socket) = accept_async(client).await {
                while let Some(Ok(_)) = socket.next().await {}
            }
        }
    });
    Ok((format!("ws://{address}/"), serving))
}

/// Starts a proxy before the WebSockets that removes the header `User-Agent`, and returns its URL.
async fn without_user_agent(url: &str) -> anyhow::Result<(String, JoinSet<()>)> {
    let (host, path) = url.trim_start_matches("ws://").split_once('/').context("no path")?;
    let (host, listener) = (host.to_owned(), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?);
    let (address, mut serving) = (listener.local_addr()?, JoinSet::new());
    serving.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((client, _)) = listener.accept().await {
            let host = host.clone();
            connections.spawn(async move { _ = pass(client, &host).await });
        }
    });
    Ok((format!("ws://{address}/{path}"), serving))
}

async fn pass(mut client: TcpStream, host: &str) -> std::io::Result<()> {
    let (mut server, mut head) = (TcpStream::connect(host).await?, Vec::new());
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let lines = head.split_inclusive("\r\n");
    let head: String = lines.filter(|line| !line.to_ascii_lowercase().starts_with("user-agent:")).collect();
    server.write_all(head.as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}
