//! Acknowledgments of kept messages: from the client to the receipts queue.

use aws_sdk_sqs::Client;
use serde_json::{Value, json};
use streamer_cli::stack::Stack;
use streamer_message::{Receipt, ReceiptOutcome};
use streamer_producer::Message;
use streamer_tests::{
    DEADLINE,
    emulator::{producer, stack},
    eventually,
};

use super::HOUR;
use crate::{TENANT, connected_socket};

/// Waits until the receipts queue has a receipt with one of these outcomes for each message. Removes and returns the
/// receipts; those of other tests stay.
async fn receipts(stack: &Stack, ids: &[&str], outcomes: &[ReceiptOutcome]) -> anyhow::Result<Vec<Receipt>> {
    let (sqs, url) = (Client::new(&stack.config), &stack.deployed.receipts_queue_url);
    let mut found: Vec<Receipt> = Vec::new();
    eventually("each message has its receipt", async || {
        // Hidden for a moment only, so that other tests find their receipts, and this one those behind them.
        let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10).visibility_timeout(1);
        for message in receive.send().await?.messages.unwrap_or_default() {
            let receipt = Receipt::decode(message.body().unwrap_or_default())?;
            if ids.contains(&receipt.id.as_str()) && outcomes.contains(&receipt.outcome) {
                let handle = message.receipt_handle.unwrap_or_default();
                sqs.delete_message().queue_url(url).receipt_handle(handle).send().await?;
                found.push(receipt);
            }
        }
        Ok(ids.iter().all(|id| found.iter().any(|receipt| receipt.id.as_str() == *id)))
    })
    .await?;
    Ok(found)
}

/// One message waits for the device on a page, and the other one reaches it live.
#[tokio::test]
async fn acknowledged_messages_have_receipts() -> anyhow::Result<()> {
    const USER: &str = "kept-acknowledged";
    const IDS: [&str; 2] = ["acknowledged-page", "acknowledged-live"];
    let stack = stack().await?;
    let producer = producer(&stack.config, &stack.deployed.queue_url);
    let message = |id: &str| Message::user(TENANT, USER).keep(HOUR).receipt().id(id).payload(&"s3cret");
    producer.send(message(IDS[0])?).await?;
    let kept = receipts(&stack, &IDS[..1], &[ReceiptOutcome::Kept]).await?;
    assert_eq!(kept[0].kept.as_ref().map(|position| position.seq), Some(1));

    let (mut socket, connection) = connected_socket(&stack, USER).await?;
    let sync = json!({ "type": "streamer.sync", "n": 1, "hello": true, "streams": [{ "stream": "user" }] });
    socket.send(&sync).await?;
    let page = socket.next(DEADLINE).await?.json()?;
    assert_eq!(page["messages"], json!([{ "seq": 1, "id": IDS[0], "ack": true, "payload": "s3cret" }]));
    producer.send(message(IDS[1])?).await?;
    let live = socket.next(DEADLINE).await?.json()?;
    assert_eq!((&live["type"], &live["ack"]), (&json!("streamer.message"), &json!(true)));
    receipts(&stack, &IDS[1..], &[ReceiptOutcome::Delivered]).await?;

    socket.send(&json!({ "type": "streamer.ack", "ids": [&page["messages"][0]["id"], &live["id"]] })).await?;
    for receipt in receipts(&stack, &IDS, &[ReceiptOutcome::Acknowledged]).await? {
        let expected = json!({
            "version": 1, "id": receipt.id, "at": receipt.at, "outcome": "acknowledged", "connections": {},
            "to": { "user": { "tenant": TENANT, "user": USER } }, "connection": connection,
        });
        assert_eq!(serde_json::to_value::<&Receipt>(&receipt)?, expected);
    }
    // Neither the function nor API Gateway has answered the frame.
    socket.send(&json!({ "type": "streamer.ping" })).await?;
    loop {
        let next: Value = socket.next(DEADLINE).await?.json()?;
        if next["type"] == "streamer.pong" {
            return Ok(());
        }
        // SQS may deliver a message twice.
        assert_eq!((&next["type"], &next["id"]), (&json!("streamer.message"), &live["id"]));
    }
}
