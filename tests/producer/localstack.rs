//! Producer, packer and worker against LocalStack's SQS, which enforces rules that the emulator does not.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use aws_sdk_sqs::{
    Client,
    error::ProvideErrorMetadata as _,
    types::{MessageSystemAttributeName, QueueAttributeName, SendMessageBatchRequestEntry},
};
use futures::future::join_all;
use serde_json::{Value, json};
use streamer_cli::dead_letters::{DeadLetterQueue, Outcome};
use streamer_events::{Body, SqsEvent, SqsRecord};
use streamer_message::{Limit, OutboundMessage, OutcomeCounts, Receipt, ReceiptOutcome, limits, pack};
use streamer_producer::{Message, Producer, SendError};
use streamer_queue::{Queue, QueueKind, ReceiptsQueue};
use streamer_tests::{
    doubles::{QueueDouble, TableDouble},
    gateway::{MemoryGateway, status},
    localstack::{queue, sqs},
    worker::Rig,
};
use tokio::time::Instant;

use crate::sending::id;

/// Time limit for a message to arrive.
const LIMIT: Duration = Duration::from_secs(20);

/// Returns the client. Ends the test if this machine cannot run LocalStack.
macro_rules! sqs_or_return {
    () => {
        match sqs().await? {
            Some(sqs) => sqs,
            None => return Ok(()),
        }
    };
}

/// Returns the event that Lambda would send, once there are `number` messages. They stay on the queue.
async fn receive(sqs: &Client, url: &str, number: usize) -> anyhow::Result<SqsEvent> {
    let (mut event, deadline) = (SqsEvent::default(), Instant::now() + LIMIT);
    while event.records.len() < number && Instant::now() < deadline {
        let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(1);
        let receive = receive
            .message_system_attribute_names(MessageSystemAttributeName::All)
            .message_attribute_names("All");
        for message in receive.send().await?.messages.unwrap_or_default() {
            let system = message.attributes.unwrap_or_default().into_iter();
            let system = system.map(|(name, value)| (name.as_str().to_owned(), value));
            // The test reads message attributes here; the worker does not.
            let own = message.message_attributes.unwrap_or_default().into_iter();
            let own = own.map(|(name, value)| (name, value.string_value.unwrap_or_default()));
            event.records.push(SqsRecord {
                message_id: message.message_id,
                receipt_handle: message.receipt_handle,
                queue_arn: None,
                body: Body::Text(message.body.unwrap_or_default()),
                attributes: system.chain(own).collect(),
            });
        }
    }
    Ok(event)
}

/// Invokes the worker as Lambda does, and deletes the records that it does not report.
async fn invoke(rig: &Rig, sqs: &Client, url: &str, number: usize) -> anyhow::Result<BTreeSet<String>> {
    let event = receive(sqs, url, number).await?;
    let receipts: Vec<_> = event
        .records
        .iter()
        .map(|record| (record.message_id.clone(), record.receipt_handle.clone()))
        .collect();
    let reported = rig.invoke_at(SystemTime::now(), event).await?;
    for (id, receipt) in receipts {
        if id.is_some_and(|id| !reported.contains(&id)) {
            sqs.delete_message().queue_url(url).set_receipt_handle(receipt).send().await?;
        }
    }
    Ok(reported)
}

fn worker(sqs: &Client, kind: QueueKind, url: &str, dead: &str, gateway: MemoryGateway) -> Rig {
    let mut rig =
        Rig::of(kind, gateway, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking());
    rig.worker.outbound = Queue::new(sqs.clone(), url);
    rig.worker.dead_letters = Queue::new(sqs.clone(), dead);
    rig
}

fn bodies(event: &SqsEvent) -> Vec<String> {
    let text = |record: &SqsRecord| match &record.body {
        Body::Text(text) => Some(text.clone()),
        Body::Unreadable(_) => None,
    };
    event.records.iter().filter_map(text).collect()
}

#[tokio::test]
async fn any_json_and_group_arrive() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let url = queue(&sqs, "any-json", &[]).await?;
    let values = [
        json!(null),
        json!("\u{FFFE} \u{FFFF} \u{0} \u{b} \u{1f} \u{7f} \u{10FFFD} 👩‍👩‍👧‍👦"),
        json!({"\u{0}\u{FFFE}": [1e300, -0.0, ""]}),
    ];
    let messages = values.iter().map(|value| Message::user("acme \u{FFFE}", "\u{FFFF}").payload(value));
    Producer::new(&sqs, &url).send_all(messages.collect::<Result<Vec<_>, _>>()?).await?;
    let event = receive(&sqs, &url, values.len()).await?;
    for record in &event.records {
        assert_eq!(record.attributes["MessageGroupId"], "acme%20%EF%BF%BE");
    }
    let arrived = bodies(&event);
    let arrived = arrived.iter().map(|body| OutboundMessage::decode(body).unwrap());
    let arrived: BTreeSet<_> = arrived
        .map(|message| serde_json::from_str::<Value>(message.payload.as_str()).unwrap().to_string())
        .collect();
    assert_eq!(arrived, values.iter().map(ToString::to_string).collect());
    Ok(())
}

/// Sends a batch of bodies with these sizes. Returns how many were taken, or the error code.
async fn batch(sqs: &Client, url: &str, sizes: &[usize]) -> Result<usize, String> {
    let entries = sizes.iter().enumerate().map(|(id, size)| {
        let entry = SendMessageBatchRequestEntry::builder().id(id.to_string());
        entry.message_body("x".repeat(*size)).build().unwrap()
    });
    let send = sqs.send_message_batch().queue_url(url).set_entries(Some(entries.collect()));
    match send.send().await {
        Ok(output) => Ok(output.successful.len()),
        Err(error) => Err(error.code().unwrap_or_default().to_owned()),
    }
}

#[tokio::test]
async fn packer_limits_match_sqs() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let url = queue(&sqs, "limits", &[]).await?;
    let Limit { items, bytes } = Limit::QUEUE_BATCH;
    let too_long = Err("AWS.SimpleQueueService.BatchRequestTooLong".to_owned());
    assert_eq!(batch(&sqs, &url, &vec![bytes / items; items]).await, Ok(items));
    assert_eq!(
        batch(&sqs, &url, &vec![1; items + 1]).await,
        Err("AWS.SimpleQueueService.TooManyEntriesInBatchRequest".to_owned())
    );
    assert_eq!(batch(&sqs, &url, &[bytes - 1, 1]).await, Ok(2));
    assert_eq!(batch(&sqs, &url, &[bytes, 1]).await, too_long);
    assert_eq!(batch(&sqs, &url, &[limits::QUEUE_MESSAGE_BYTES]).await, Ok(1));

    let sizes = [bytes - 1, 1, 1, 400_000, 600_000, 50_000, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 10];
    for packed in pack(sizes, Limit::QUEUE_BATCH, |size| *size) {
        assert_eq!(batch(&sqs, &url, &packed).await, Ok(packed.len()));
    }
    Ok(())
}

/// The producer escapes exactly the characters that SQS refuses and that JSON does not escape itself.
#[tokio::test]
async fn sqs_refuses_the_escaped_characters() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let url = queue(&sqs, "characters", &[]).await?;
    for refused in ["\u{FFFE}", "\u{FFFF}", "\u{0}", "\u{b}", "\u{1f}"] {
        let error = sqs.send_message().queue_url(&url).message_body(refused).send().await.unwrap_err();
        assert_eq!(error.code(), Some("InvalidMessageContents"), "{refused:?}");
    }
    let taken = "\t\n\r\u{7f}\u{85}\u{FFFD}\u{10000}\u{10FFFF}";
    sqs.send_message().queue_url(&url).message_body(taken).send().await?;
    Ok(())
}

#[tokio::test]
async fn thousand_concurrent_messages_arrive_once() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let url = queue(&sqs, "thousand", &[]).await?;
    let producer = Producer::new(&sqs, &url).timeout(Duration::from_secs(60));
    let sends = (0..1000).map(|id| {
        let message = Message::connection("c").id(id.to_string()).payload(&"x".repeat(id * 10)).unwrap();
        producer.send(message)
    });
    assert!(join_all(sends).await.iter().all(Result::is_ok));
    let arrived = bodies(&receive(&sqs, &url, 1000).await?);
    let ids: BTreeSet<_> = arrived.iter().map(|body| id(body)).collect();
    assert_eq!((arrived.len(), ids.len()), (1000, 1000));
    Ok(())
}

#[tokio::test]
async fn missing_queue_is_refused_at_once() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let url = queue(&sqs, "gone", &[]).await?;
    sqs.delete_queue().queue_url(&url).send().await?;
    let error = Producer::new(&sqs, &url).send(Message::connection("c").payload(&1)?).await.unwrap_err();
    assert!(
        matches!(&error, SendError::Refused { code, .. } if code.contains("NonExistentQueue")),
        "{error}"
    );
    Ok(())
}

#[tokio::test]
async fn worker_hands_back_and_dead_letters() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let (url, dead) = (queue(&sqs, "outbound", &[]).await?, queue(&sqs, "dead-letters", &[]).await?);
    let gateway = MemoryGateway::scripted(|connection, attempts| {
        let answer = match (connection, attempts) {
            ("throttled", 0) => status(429),
            ("too-large", _) => status(413),
            _ => status(200),
        };
        (Duration::ZERO, answer)
    });
    let rig = worker(&sqs, QueueKind::Standard, &url, &dead, gateway);
    let message = Message::connections(["fine", "throttled", "too-large"]).fair_queue_tenant("acme").id("m");
    Producer::new(&sqs, &url).send(message.payload("\u{FFFF}")?).await?;

    assert_eq!(invoke(&rig, &sqs, &url, 1).await?, BTreeSet::new());
    let letters = receive(&sqs, &dead, 1).await?;
    let letter: Value = serde_json::from_str(&bodies(&letters)[0])?;
    assert_eq!(letter["to"], json!({ "connection": "too-large" }));
    assert_eq!(letters.records[0].attributes["streamer.reason"], "rejected");
    assert_eq!(letters.records[0].attributes["MessageGroupId"], "acme");

    // The hand-back arrives after its delay, for the one unfinished connection.
    assert_eq!(invoke(&rig, &sqs, &url, 1).await?, BTreeSet::new());
    for connection in ["fine", "throttled", "too-large"] {
        let attempts = if connection == "throttled" { 2 } else { 1 };
        assert_eq!(rig.worker.gateway.texts(connection), vec!["\"\\uffff\""; attempts], "{connection}");
    }
    assert!(receive_now(&sqs, &url).await?.is_empty());
    Ok(())
}

/// SQS takes ten receipts at once, so a larger batch needs several calls.
#[tokio::test]
async fn receipts_of_a_batch_are_taken() -> anyhow::Result<()> {
    const MESSAGES: usize = 13;
    let sqs = sqs_or_return!();
    let (url, dead) = (queue(&sqs, "receipted", &[]).await?, queue(&sqs, "dead-letters", &[]).await?);
    let receipts = queue(&sqs, "receipts", &[]).await?;
    let gateway = MemoryGateway::scripted(|connection, _| {
        (Duration::ZERO, status(if connection.starts_with("gone") { 410 } else { 200 }))
    });
    let mut rig = worker(&sqs, QueueKind::Standard, &url, &dead, gateway);
    rig.worker.receipts = ReceiptsQueue::new(Some(Queue::new(sqs.clone(), &receipts)), "local");
    // SQS refuses this character, unless the receipt escapes it.
    let name = |number: usize| format!("\u{FFFE} {number}");
    let messages = (0..MESSAGES).map(|number| {
        Message::connections([format!("here-{number}"), format!("gone-{number}")])
            .id(name(number))
            .receipt()
            .payload(&number)
    });
    Producer::new(&sqs, &url).send_all(messages.collect::<Result<Vec<_>, _>>()?).await?;

    assert_eq!(invoke(&rig, &sqs, &url, MESSAGES).await?, BTreeSet::new());
    let read = drain(&sqs, &receipts, MESSAGES).await?;
    let read = read.iter().map(|body| Receipt::decode(body)).collect::<Result<Vec<_>, _>>()?;
    let counts = OutcomeCounts::from([(ReceiptOutcome::Delivered, 1), (ReceiptOutcome::Gone, 1)]);
    for receipt in &read {
        assert_eq!((receipt.outcome, &receipt.connections), (ReceiptOutcome::Delivered, &counts));
    }
    let ids: BTreeSet<_> = read.iter().map(|receipt| receipt.id.to_string()).collect();
    assert_eq!((read.len(), ids), (MESSAGES, (0..MESSAGES).map(name).collect()));
    assert!(receive_now(&sqs, &receipts).await?.is_empty());
    Ok(())
}

/// Receives the messages that are visible now.
async fn receive_now(sqs: &Client, url: &str) -> anyhow::Result<Vec<String>> {
    let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(1);
    let messages = receive.send().await?.messages.unwrap_or_default();
    Ok(messages.into_iter().filter_map(|message| message.body).collect())
}

#[tokio::test]
async fn fifo_order_survives_a_failed_post() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let dead = queue(&sqs, "dead-letters.fifo", &[]).await?;
    let url = queue(&sqs, "outbound.fifo", &[(QueueAttributeName::VisibilityTimeout, "30")]).await?;
    let gateway = MemoryGateway::scripted(|connection, attempts| {
        let answer = if connection == "a" && attempts == 1 { status(429) } else { status(200) };
        (Duration::ZERO, answer)
    });
    let rig = worker(&sqs, QueueKind::Fifo, &url, &dead, gateway);
    let producer = Producer::new(&sqs, &url);
    let send = |number: usize| {
        let message = Message::connections(["a", "b"]).id(number.to_string()).payload(&number).unwrap();
        producer.send(message)
    };
    // Concurrent sends: the producer keeps their order. The re-send of message 4 is a duplicate.
    assert!(join_all((0..5).map(send)).await.iter().all(Result::is_ok));
    send(4).await?;

    let reported = invoke(&rig, &sqs, &url, 10).await?;
    assert_eq!(reported.len(), 4, "the failed record and all later ones of its group");
    assert_eq!(rig.worker.gateway.texts("b"), ["0", "1", "2", "3", "4"]);
    let deadline = Instant::now() + LIMIT;
    while rig.worker.gateway.texts("a").len() < 6 && Instant::now() < deadline {
        invoke(&rig, &sqs, &url, 1).await?;
    }
    assert_eq!(rig.worker.gateway.texts("a"), ["0", "1", "1", "2", "3", "4"]);
    assert!(receive_now(&sqs, &url).await?.is_empty());
    Ok(())
}

/// A dead letter of a FIFO queue keeps its message group, and the rest of its lane waits for the next invocation.
#[tokio::test]
async fn fifo_dead_letter_ends_its_lane() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let dead = queue(&sqs, "dead-letters.fifo", &[]).await?;
    let url = queue(&sqs, "outbound.fifo", &[]).await?;
    let gateway = MemoryGateway::scripted(|_, attempts| {
        (Duration::ZERO, if attempts == 0 { status(413) } else { status(200) })
    });
    let rig = worker(&sqs, QueueKind::Fifo, &url, &dead, gateway);
    let producer = Producer::new(&sqs, &url);
    for number in 0..2 {
        producer.send(Message::connection("c").id(number.to_string()).payload(&number)?).await?;
    }
    invoke(&rig, &sqs, &url, 2).await?;
    let letters = receive(&sqs, &dead, 1).await?;
    assert_eq!(letters.records[0].attributes["streamer.reason"], "rejected");
    assert_eq!(letters.records[0].attributes["MessageGroupId"], "c");
    let deadline = Instant::now() + LIMIT;
    while rig.worker.gateway.texts("c").len() < 2 && Instant::now() < deadline {
        invoke(&rig, &sqs, &url, 1).await?;
    }
    assert_eq!(rig.worker.gateway.texts("c"), ["0", "1"]);
    Ok(())
}

#[tokio::test]
async fn sqs_moves_messages_received_too_often() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let dead = queue(&sqs, "dead-letters", &[]).await?;
    let get = sqs.get_queue_attributes().queue_url(&dead).attribute_names(QueueAttributeName::QueueArn);
    let arn = get.send().await?.attributes.unwrap_or_default()[&QueueAttributeName::QueueArn].clone();
    let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 2 }).to_string();
    let attributes =
        [(QueueAttributeName::RedrivePolicy, policy.as_str()), (QueueAttributeName::VisibilityTimeout, "0")];
    let url = queue(&sqs, "crashing", &attributes).await?;
    Producer::new(&sqs, &url).send(Message::connection("c").id("m").payload(&1)?).await?;
    // A worker that crashes on each receive.
    for _ in 0..2 {
        assert_eq!(receive(&sqs, &url, 1).await?.records.len(), 1);
    }
    assert!(receive_now(&sqs, &url).await?.is_empty());
    let letters = receive(&sqs, &dead, 1).await?;
    assert_eq!(id(&bodies(&letters)[0]), "m");
    assert!(!letters.records[0].attributes.contains_key("streamer.reason"));
    Ok(())
}

/// Receives and deletes `number` messages, and returns their bodies.
async fn drain(sqs: &Client, url: &str, number: usize) -> anyhow::Result<Vec<String>> {
    let (mut bodies, deadline) = (Vec::new(), Instant::now() + LIMIT);
    while bodies.len() < number && Instant::now() < deadline {
        let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).wait_time_seconds(1);
        for message in receive.send().await?.messages.unwrap_or_default() {
            let delete = sqs.delete_message().queue_url(url);
            delete.set_receipt_handle(message.receipt_handle).send().await?;
            bodies.extend(message.body);
        }
    }
    Ok(bodies)
}

/// Redriven dead letters keep their order, and the queue does not drop them as duplicates.
#[tokio::test]
async fn fifo_redrive_keeps_order_without_deduplication() -> anyhow::Result<()> {
    let sqs = sqs_or_return!();
    let dead = queue(&sqs, "redrive-dead.fifo", &[]).await?;
    let arn = sqs.get_queue_attributes().queue_url(&dead).attribute_names(QueueAttributeName::QueueArn);
    let arn = arn.send().await?.attributes.unwrap_or_default()[&QueueAttributeName::QueueArn].clone();
    let policy = json!({ "deadLetterTargetArn": arn, "maxReceiveCount": 1000 }).to_string();
    let outbound = queue(&sqs, "redrive.fifo", &[(QueueAttributeName::RedrivePolicy, &policy)]).await?;
    // The queue has just received these messages, and remembers their deduplication ids.
    let body =
        |number: usize| format!(r#"{{"version":1,"id":"{number}","to":{{"connection":"c"}},"payload":1}}"#);
    for url in [&outbound, &dead] {
        for number in 0..12 {
            let send = sqs.send_message().queue_url(url).message_body(body(number));
            send.message_group_id("c").message_deduplication_id(format!("{number}:c")).send().await?;
        }
    }
    assert_eq!(drain(&sqs, &outbound, 12).await?.len(), 12);

    let mut letters = DeadLetterQueue::of(sqs.clone(), outbound.clone(), LIMIT).await?;
    assert_eq!(letters.url(), dead);
    let mut sent = 0;
    loop {
        let taken = letters.receive().await?;
        if taken.is_empty() {
            break;
        }
        let back = letters.send_back(taken).await;
        assert!(back.causes.is_empty(), "{back:?}");
        sent += back.count(Outcome::Sent);
    }
    assert_eq!(sent, 12);
    let bodies = drain(&sqs, &outbound, 12).await?;
    assert_eq!(bodies, (0..12).map(body).collect::<Vec<_>>());
    Ok(())
}
