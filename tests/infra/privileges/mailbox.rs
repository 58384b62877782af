//! Steps of the mailbox.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use aws_sdk_dynamodb::types::AttributeValue;
use futures::future::try_join_all;
use serde_json::{Value, json};
use streamer_cli::{spec::Spec, stack::socket::Socket};
use tokio::time::sleep;

use super::{Steps, TENANT};

/// Time for which the messages are kept.
const KEEP_SECONDS: u64 = 3600;

/// More messages than `infra/examples/emulator` keeps and than the worker removes at once.
const TOO_MANY: usize = 130;

impl Steps<'_> {
    pub(super) async fn keep(&self, user: &str, limit: Duration) -> anyhow::Result<()> {
        let mut socket = self.stack.connect(TENANT, user).await?;
        sync(&mut socket, limit).await?;
        self.send_kept(user, 0).await?;
        let frame = socket.next(limit).await?.json()?;
        ensure!(frame["type"] == "streamer.message" && frame["payload"] == user, "{frame}");
        Ok(())
    }

    pub(super) async fn keep_gone(&self, user: &str, limit: Duration) -> anyhow::Result<()> {
        let mut socket = self.stack.connect(TENANT, user).await?;
        sync(&mut socket, limit).await?;
        let connection = self.row(TENANT, user).await?.connection_id;
        let device = format!("c#{connection}");
        ensure!(self.items(user, &device).await? == 1, "{device} is not registered");
        socket.close().await?;
        // Until then, the emulator accepts posts.
        self.wait_until_removed(&connection).await?;
        self.send_kept(user, 0).await?;
        while self.items(user, &device).await? > 0 {
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    pub(super) async fn replay(&self, user: &str, limit: Duration) -> anyhow::Result<()> {
        self.send_kept(user, 0).await?;
        let mut socket = self.stack.connect(TENANT, user).await?;
        loop {
            let page = sync(&mut socket, limit).await?;
            match page["messages"].as_array().and_then(|messages| messages.first()) {
                Some(message) => {
                    ensure!(message["payload"] == user, "{page}");
                    return Ok(());
                }
                // The worker has not kept it yet.
                None => sleep(Duration::from_millis(100)).await,
            }
        }
    }

    pub(super) async fn trim(&self, user: &str) -> anyhow::Result<()> {
        try_join_all((0..TOO_MANY).map(|number| self.send_kept(user, number))).await?;
        let item = |sequence: usize| format!("#{sequence:020}");
        while self.items(user, &item(TOO_MANY)).await? == 0 || self.items(user, &item(1)).await? > 0 {
            sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Sends a message that is kept for the user.
    async fn send_kept(&self, user: &str, number: usize) -> anyhow::Result<()> {
        let body = json!({
            "version": 1,
            "id": format!("{user}-{number}"),
            "to": { "user": { "tenant": TENANT, "user": user } },
            "keep": KEEP_SECONDS,
            "payload": user,
        });
        let sqs = aws_sdk_sqs::Client::new(&self.stack.config);
        let send = sqs.send_message().queue_url(&self.stack.deployed.queue_url);
        send.message_body(body.to_string()).send().await?;
        Ok(())
    }

    /// Counts the items of a user's stream whose sort key contains this text. The stream's key contains the user.
    async fn items(&self, user: &str, item: &str) -> anyhow::Result<i32> {
        let mailbox = Spec::read()?.mailbox;
        let (dynamodb, mut count, mut start) = (aws_sdk_dynamodb::Client::new(&self.stack.config), 0, None);
        loop {
            let scan = dynamodb
                .scan()
                .table_name(&mailbox.name)
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .filter_expression("contains(#item, :item) AND contains(#stream, :user)")
                .expression_attribute_names("#item", &mailbox.range_key)
                .expression_attribute_names("#stream", &mailbox.hash_key)
                .expression_attribute_values(":item", AttributeValue::S(item.to_owned()))
                .expression_attribute_values(":user", AttributeValue::S(user.to_owned()));
            let page = scan.send().await?;
            count += page.count;
            match page.last_evaluated_key {
                Some(key) => start = Some(key),
                None => return Ok(count),
            }
        }
    }
}

/// Registers the socket's connection as a device, and returns the first page.
pub(super) async fn sync(socket: &mut Socket, limit: Duration) -> anyhow::Result<Value> {
    let stream = json!({ "stream": "user", "from": "oldest" });
    let frame = json!({
        "type": "streamer.sync", "action": "streamer.sync", "n": 1, "hello": true, "streams": [stream],
    });
    socket.send(&frame).await?;
    let page = socket.next(limit).await.context("no page")?.json()?;
    ensure!(page["type"] == "streamer.page", "{page}");
    Ok(page)
}
