//! Deployments that others use, too: their messages, dead letters and receipts stay as they are.

use std::{
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use aws_sdk_sqs::{Client, types::MessageSystemAttributeName};
use streamer_mailbox::NewMessage;
use streamer_message::MessageId;
use tokio::{
    io::AsyncWriteExt as _,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    Patient,
    odd::{forward, request},
};

const DENIED: &str = r#"{"__type":"com.amazonaws.sqs#AccessDeniedException","message":"not authorized to perform: sqs:ReceiveMessage"}"#;

/// A proxy before AWS that answers receives from a queue itself.
struct Receives {
    origin: String,
    _serving: JoinSet<()>,
}

impl Receives {
    async fn answered(aws: &str, queue: &str, status: u16, body: &'static str) -> anyhow::Result<Self> {
        let api = aws.strip_prefix("http://").context("the endpoint has another scheme")?;
        let (api, queue) = (Arc::<str>::from(api.trim_end_matches('/')), Arc::<str>::from(queue));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (api, queue) = (Arc::clone(&api), Arc::clone(&queue));
                connections.spawn(async move { _ = answer(stream, &api, &queue, status, body).await });
            }
        });
        Ok(Self { origin, _serving: serving })
    }
}

async fn answer(
    mut client: TcpStream,
    api: &str,
    queue: &str,
    status: u16,
    text: &str,
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some((head, body)) = request(&mut client, &mut buffer).await? {
        let is_receive = head.contains("AmazonSQS.ReceiveMessage");
        let (status, body) = match is_receive && String::from_utf8_lossy(&body).contains(queue) {
            true => (status, text.to_owned()),
            false => forward(&head, &body, api).await?,
        };
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        client.write_all(answer.as_bytes()).await?;
    }
    Ok(())
}

/// Sends other messages to a queue.
async fn fill(sqs: &Client, queue: &str, messages: usize) -> anyhow::Result<()> {
    for number in 0..messages {
        sqs.send_message().queue_url(queue).message_body(format!("other {number}")).send().await?;
    }
    Ok(())
}

/// Takes other messages off a queue, and returns how often each was received before.
async fn drain(sqs: &Client, queue: &str, messages: usize) -> anyhow::Result<Vec<usize>> {
    let mut receives = Vec::new();
    for _ in 0..messages {
        let count = MessageSystemAttributeName::ApproximateReceiveCount;
        let receive = sqs.receive_message().queue_url(queue).message_system_attribute_names(count.clone());
        let received = receive.max_number_of_messages(1).wait_time_seconds(2).send().await?;
        let Some(message) = received.messages().first() else { break };
        let attributes = message.attributes().context("no attributes")?;
        receives.push(attributes.get(&count).context("no count")?.parse::<usize>()? - 1);
        let handle = message.receipt_handle().context("no handle")?;
        sqs.delete_message().queue_url(queue).receipt_handle(handle).send().await?;
    }
    Ok(receives)
}

/// A dead letter that cannot be removed again is not made.
#[tokio::test]
async fn denied_receive_makes_no_dead_letter() -> anyhow::Result<()> {
    let mut patient = Patient::with_worker("doctor-unread", None, &[]).await?;
    let proxy = Receives::answered(&patient.aws, &patient.queues[1], 400, DENIED).await?;
    patient.aws.clone_from(&proxy.origin);
    let report = patient.examine().await?;
    assert_eq!(report.verdict("permissions.dead_letter"), "skipped", "{:?}", report.output);
    assert!(report.text("permissions.dead_letter", "seen").contains("sqs:ReceiveMessage"));
    assert_eq!(report.verdict("permissions.receipt"), "ok", "{:?}", report.output);
    assert_eq!(report.verdict("cleanup.complete"), "ok", "{:?}", report.output);
    patient.assert_nothing_left().await
}

/// A consumer takes each receipt before the command sees it.
#[tokio::test]
async fn receipt_taken_by_consumer_is_skipped() -> anyhow::Result<()> {
    let mut patient = Patient::with_worker("doctor-consumer", None, &[]).await?;
    let proxy = Receives::answered(&patient.aws, &patient.queues[2], 200, "{}").await?;
    patient.aws.clone_from(&proxy.origin);
    let report = patient.examine().await?;
    assert_eq!(report.verdict("permissions.receipt"), "skipped", "{:?}", report.output);
    assert!(report.text("permissions.receipt", "seen").contains("another consumer"), "{:?}", report.output);
    assert_eq!(report.verdict("permissions.dead_letter"), "ok", "{:?}", report.output);
    assert_eq!(report.verdict("cleanup.complete"), "ok", "{:?}", report.output);
    assert!(report.text("cleanup.complete", "seen").contains("perhaps taken by another consumer"));
    drain(&Client::new(&patient.stack.config), &patient.queues[2], 1).await?;
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn kept_message_of_user_survives() -> anyhow::Result<()> {
    let patient = Patient::whole("doctor-user").await?.for_user("anna")?;
    let (stream, mailbox, now) = (patient.stream()?, patient.stack.mailbox(), SystemTime::now());
    let id = MessageId::new("order-17")?;
    let until = now + Duration::from_secs(600);
    let message = NewMessage { id: &id, body: "{}", until, ack: false, tried_since: None };
    let appended = mailbox.append(&stream, &[message], now).await;
    assert!(appended.failure.is_none(), "{appended:?}");
    let report = patient.examine().await?;
    for name in ["mailbox.sync", "mailbox.kept", "mailbox.ack"] {
        assert_eq!(report.verdict(name), "skipped", "{:?}", report.output);
        assert!(report.text(name, "seen").contains("leave out --user"), "{:?}", report.output);
    }
    let kept = mailbox.list(&stream, SystemTime::now()).await?.context("the stream was erased")?;
    assert_eq!(kept.messages.iter().map(|message| &message.id).collect::<Vec<_>>(), [&id]);
    mailbox.erase(&stream).await?;
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn user_without_mailbox_keeps_no_message() -> anyhow::Result<()> {
    let patient = Patient::whole("doctor-new-user").await?.for_user("ben")?;
    let report = patient.examine().await?;
    assert_eq!(report.verdict("mailbox.kept"), "ok", "{:?}", report.output);
    let (stream, mailbox) = (patient.stream()?, patient.stack.mailbox());
    let kept = mailbox.list(&stream, SystemTime::now()).await?.context("the stream was erased")?;
    assert!(kept.messages.is_empty() && kept.devices.is_empty(), "{kept:?}");
    mailbox.erase(&stream).await?;
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn crowded_queue_is_not_read() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-crowded", None, &[]).await?;
    let (sqs, queue) = (Client::new(&patient.stack.config), &patient.queues[1]);
    fill(&sqs, queue, 101).await?;
    let report = patient.examine().await?;
    assert_eq!(report.verdict("permissions.dead_letter"), "skipped", "{:?}", report.output);
    assert!(report.text("permissions.dead_letter", "seen").contains("101 messages"), "{:?}", report.output);
    assert_eq!(drain(&sqs, queue, 101).await?, [0; 101]);
    patient.assert_nothing_left().await
}

#[tokio::test]
async fn other_receipts_are_received_once() -> anyhow::Result<()> {
    let patient = Patient::with_worker("doctor-others", None, &[]).await?;
    let (sqs, queue) = (Client::new(&patient.stack.config), &patient.queues[2]);
    fill(&sqs, queue, 3).await?;
    let report = patient.examine().await?;
    assert_eq!(report.verdict("permissions.receipt"), "ok", "{:?}", report.output);
    assert_eq!(drain(&sqs, queue, 3).await?, [1; 3]);
    patient.assert_nothing_left().await
}
