//! Steps of receipts.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use streamer_message::{Receipt, ReceiptOutcome};
use streamer_producer::Message;

use super::{Steps, TENANT, mailbox::sync};

impl Steps<'_> {
    /// Sends a message to a connection that does not exist, and reads its receipt.
    pub(super) async fn receipt(&self, id: &str) -> anyhow::Result<()> {
        let message = Message::connection("L0SM9cOFvHcCIhw=").id(id).receipt().response(id)?;
        self.stack.producer().send(message).await?;
        self.await_receipt(id, |outcome| outcome != ReceiptOutcome::Acknowledged).await
    }

    /// Acknowledges a kept message, and reads the receipt of that.
    pub(super) async fn acknowledge(&self, user: &str, limit: Duration) -> anyhow::Result<()> {
        let mut socket = self.stack.connect(TENANT, user).await?;
        sync(&mut socket, limit).await?;
        let hour = Duration::from_secs(3600);
        let message = Message::user(TENANT, user).id(user).keep(hour).receipt().payload(user)?;
        self.stack.producer().send(message).await?;
        let frame = socket.next(limit).await?.json()?;
        ensure!(frame["ack"] == true, "{frame}");
        socket.send(&json!({ "type": "streamer.ack", "action": "streamer.ack", "ids": [user] })).await?;
        self.await_receipt(user, |outcome| outcome == ReceiptOutcome::Acknowledged).await
    }

    /// Reads receipts until there is one of this message with this outcome.
    async fn await_receipt(
        &self,
        id: &str,
        is_wanted: impl Fn(ReceiptOutcome) -> bool,
    ) -> anyhow::Result<()> {
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        let url = &self.stack.deployed.receipts_queue_url;
        loop {
            let received = sqs.receive_message().queue_url(url).max_number_of_messages(10);
            for message in received.wait_time_seconds(1).send().await?.messages.unwrap_or_default() {
                let handle = message.receipt_handle.unwrap_or_default();
                sqs.delete_message().queue_url(url).receipt_handle(handle).send().await?;
                let receipt = Receipt::decode(&message.body.unwrap_or_default())?;
                if receipt.id.as_str() == id && is_wanted(receipt.outcome) {
                    return Ok(());
                }
            }
        }
    }
}
