//! Two cells over one connection table: two APIs with a queue and a worker each, and a topic in front of both queues.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::Value;
use streamer_cli::{
    spec::Spec,
    stack::{
        Stack,
        build::build,
        deploy::{DeployInput, Overrides, deploy, deploy_delivery},
        router::Router,
    },
};
use streamer_connections::IndexedConnection;
use streamer_message::{ReceiptEvent, ReceiptOutcome};
use streamer_producer::Message;
use streamer_tests::{
    client::Client,
    emulator::{connect, producer, rows, stack},
    eventually,
};

use crate::services::{publish, topic};

const TENANT: &str = "cells";

/// Long enough that SQS delivers no message again in a slow run.
const VISIBILITY: Duration = Duration::from_secs(120);

/// A stack for each cell, with the same table, and the topic in front of their queues.
struct Cells {
    stacks: [Stack; 2],
    topic: String,
}

/// Returns the worker's settings in a cell beside the cell at this endpoint.
fn settings(stage: &str, other: &str) -> BTreeMap<&'static str, String> {
    [("STAGE", stage), ("CELL_ENDPOINTS", other), ("AWAY_GRACE_SECONDS", "1"), ("CONNECT_GRACE_SECONDS", "1")]
        .map(|(name, value)| (name, value.to_owned()))
        .into()
}

impl Cells {
    /// Deploys a second API with its functions beside the stack, and a further queue and worker for the stack's API.
    async fn deploy() -> anyhow::Result<Self> {
        let (mut first, binaries) = (stack().await?, build().await?);
        let suffix = |cell: &str| format!("-cell-{cell}-{}", std::process::id());
        let table = ("CONNECTIONS_TABLE", first.deployed.connections_table.clone());
        let mut delivery = settings("b", &first.deployed.management_endpoint);
        delivery.insert(table.0, table.1.clone());
        let handler = BTreeMap::from([table]);
        let overrides = Overrides {
            visibility_timeout: Some(VISIBILITY),
            environment: [("connect", handler.clone()), ("disconnect", handler), ("delivery", delivery)]
                .into(),
            ..Overrides::default()
        };
        let mut spec = Spec::read()?;
        spec.rename(&suffix("b"));
        let (router, issuer) = (&Router::Example, &first.issuer);
        let input = DeployInput { spec: &spec, overrides: &overrides, binaries: &binaries, router, issuer };
        let mut second = deploy(&first.config, input).await?;
        second.connections_table.clone_from(&first.deployed.connections_table);

        let environment = [("delivery", settings("a", &second.management_endpoint))].into();
        let overrides =
            Overrides { visibility_timeout: Some(VISIBILITY), environment, ..Overrides::default() };
        let endpoint = &first.deployed.management_endpoint;
        let delivery = deploy_delivery(&first.config, &suffix("a"), &overrides, &binaries, endpoint).await?;
        first.deployed.queue_url = delivery.queue_url;
        first.deployed.parts_queue_url = delivery.parts_queue_url;
        first.deployed.dead_letter_queue_url = delivery.dead_letter_queue_url;
        first.deployed.receipts_queue_url = delivery.receipts_queue_url;

        let queues = [first.deployed.queue_url.as_str(), second.queue_url.as_str()];
        let topic = topic(&first, "cells", &queues).await?;
        let second = Stack::attach(second, first.issuer.clone()).await;
        Ok(Self { stacks: [first, second], topic })
    }

    /// Connects a user to a cell.
    async fn connect(&self, cell: usize, user: &str) -> anyhow::Result<Client> {
        Ok(Client::new(connect(&self.stacks[cell], TENANT, user).await?))
    }

    /// Returns a user's rows of a cell.
    async fn rows(&self, cell: usize, user: &str) -> anyhow::Result<Vec<IndexedConnection>> {
        let stack = &self.stacks[cell];
        let rows = rows(stack, TENANT, user).await?.into_iter();
        Ok(rows.filter(|row| row.endpoint == stack.deployed.management_endpoint).collect())
    }

    async fn publish(&self, message: Message) -> anyhow::Result<()> {
        for body in message.bodies() {
            publish(&self.stacks[0], &self.topic, &body).await?;
        }
        Ok(())
    }

    /// Reads and deletes receipts until both cells have reported an outcome of this message, other than `expanded`. Returns
    /// the best outcome of each cell, by the receipts' source.
    async fn outcomes(&self, id: &str) -> anyhow::Result<BTreeMap<String, ReceiptOutcome>> {
        let mut outcomes = BTreeMap::new();
        eventually("both cells have receipts", async || {
            for stack in &self.stacks {
                let (sqs, url) =
                    (aws_sdk_sqs::Client::new(&stack.config), &stack.deployed.receipts_queue_url);
                let receive = sqs.receive_message().queue_url(url).max_number_of_messages(10);
                for found in receive.send().await?.messages.unwrap_or_default() {
                    let ReceiptEvent { source, receipt, .. } = ReceiptEvent::decode(found.body().unwrap())?;
                    if receipt.id.as_str() == id && receipt.outcome != ReceiptOutcome::Expanded {
                        let best = outcomes.entry(source).or_insert(receipt.outcome);
                        *best = (*best).min(receipt.outcome);
                    }
                    let delete = sqs.delete_message().queue_url(url);
                    delete.set_receipt_handle(found.receipt_handle).send().await?;
                }
            }
            Ok(outcomes.len() == 2)
        })
        .await?;
        Ok(outcomes)
    }

    /// Waits until no message is on a queue, and checks that none is a dead letter.
    async fn settle(&self) -> anyhow::Result<()> {
        for stack in &self.stacks {
            eventually("the queues are empty", async || stack.is_drained().await).await?;
            assert!(stack.is_empty(&stack.deployed.dead_letter_queue_url).await?, "a dead letter");
        }
        Ok(())
    }

    /// Sends a last message to each connection of a user in a cell, through the queue of the cell alone.
    async fn send_last(&self, cell: usize, user: &str) -> anyhow::Result<()> {
        let stack = &self.stacks[cell];
        let ids = self.rows(cell, user).await?.into_iter().map(|row| row.connection_id.as_str().to_owned());
        let producer = producer(&stack.config, &stack.deployed.queue_url);
        Ok(producer.send(Message::connections(ids).payload("last")?).await?)
    }
}

/// Returns the texts of the frames up to the last one.
async fn texts(client: &mut Client) -> anyhow::Result<Vec<String>> {
    let mut texts = Vec::new();
    loop {
        match client.next("the last message").await?.json()? {
            Value::String(text) if text == "last" => return Ok(texts),
            frame => texts.push(frame.as_str().unwrap().to_owned()),
        }
    }
}

/// `anna` has a socket in each cell, and `bob` in the first one only.
#[tokio::test]
async fn topic_reaches_each_socket_once() -> anyhow::Result<()> {
    let cells = Cells::deploy().await?;
    let mut clients = BTreeMap::new();
    for (cell, user) in [(0, "anna"), (1, "anna"), (0, "bob")] {
        clients.insert((cell, user), cells.connect(cell, user).await?);
        assert_eq!(cells.rows(cell, user).await?.len(), 1, "{user} in cell {cell}");
    }
    let asking = |message: streamer_producer::MessageBuilder, id: &str| message.id(id).receipt().payload(id);
    cells.publish(asking(Message::user(TENANT, "anna"), "to-anna")?).await?;
    let both =
        |outcome| [("/streamer/a".to_owned(), ReceiptOutcome::Delivered), ("/streamer/b".into(), outcome)];
    assert_eq!(cells.outcomes("to-anna").await?, both(ReceiptOutcome::Delivered).into());
    cells.publish(asking(Message::tenant(TENANT), "to-tenant")?).await?;
    cells.publish(asking(Message::user(TENANT, "bob"), "to-bob")?).await?;
    assert_eq!(cells.outcomes("to-bob").await?, both(ReceiptOutcome::NoRecipient).into());
    cells.settle().await?;

    for ((cell, user), client) in &mut clients {
        cells.send_last(*cell, user).await?;
        let mut arrived = texts(client).await?;
        arrived.sort_unstable();
        let own = format!("to-{user}");
        assert_eq!(
            arrived.iter().collect::<BTreeSet<_>>(),
            [&own, &"to-tenant".to_owned()].into(),
            "{user} in {cell}"
        );
        assert_eq!(arrived.len(), 2, "{user} in cell {cell}: {arrived:?}");
    }
    Ok(())
}
