//! The table in DynamoDB against the table in memory: random operations have the same results on both.

use std::{fmt::Debug, time::SystemTime};

use aws_sdk_dynamodb::{
    Client,
    types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType},
};
use fastrand::Rng;
use streamer_cli::stack::{
    Endpoint,
    deploy::local_config,
    emulator::{MINISTACK, install},
};
use streamer_mailbox::{
    Device, DynamoTable, FreshHead, Head, Put, Raise, StoredMessage, Stream, Table, schema,
};
use streamer_message::{Epoch, MessageId};
use streamer_tests::mailbox::MemoryTable;

use crate::{at, device};

const TABLE: &str = "mailbox-comparison";

async fn create_table(dynamodb: &Client) -> anyhow::Result<()> {
    let mut create = dynamodb.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    for (name, kind) in [(schema::STREAM, KeyType::Hash), (schema::ITEM, KeyType::Range)] {
        let definition = AttributeDefinition::builder().attribute_name(name);
        create = create
            .attribute_definitions(definition.attribute_type(ScalarAttributeType::S).build()?)
            .key_schema(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?);
    }
    create.send().await?;
    Ok(())
}

/// Random operations on one stream.
struct Operations {
    rng: Rng,
    stream: Stream,
}

impl Operations {
    fn seq(&mut self) -> u64 {
        self.rng.u64(1..12)
    }

    fn epoch(&mut self) -> Epoch {
        Epoch::new(if self.rng.u8(..8) == 0 { "other" } else { "epoch" }).unwrap()
    }

    fn time(&mut self) -> SystemTime {
        at(0) + std::time::Duration::from_millis(self.rng.u64(..100_000))
    }

    fn device(&mut self) -> Device {
        Device { expires_at: self.time(), ..device(["a", "b", "c"][self.rng.usize(..3)]) }
    }

    fn message(&mut self) -> StoredMessage {
        let id = MessageId::new(format!("m{}", self.rng.u32(..))).unwrap();
        let body = format!("{{\"é\":\"{}\"}}", "x".repeat(self.rng.usize(..200)));
        StoredMessage { id, body, stored_at: self.time(), until: self.time(), ack: self.rng.bool() }
    }

    /// Performs the next operation, which the seed determines, and returns its name and its result as text.
    async fn next(&mut self, table: &impl Table) -> anyhow::Result<(&'static str, String)> {
        let (stream, epoch) = (self.stream.clone(), self.epoch());
        let (seq, time) = (self.seq(), self.time());
        Ok(match self.rng.u8(..17) {
            0 => ("head", text(&table.head(&stream).await?)),
            1 => {
                let head = Head { epoch, top: self.rng.u64(..3), floor: 0, expires_at: time };
                ("create_head", text::<FreshHead>(&table.create_head(&stream, &head).await?))
            }
            2..5 => {
                let message = self.message();
                ("put_message", text::<Put>(&table.put_message(&stream, &epoch, seq, &message).await?))
            }
            5 => {
                // The message that has the number, or another one.
                let held = table.messages(&stream, &epoch, seq..=seq, 1).await?.0;
                let id = held.first().filter(|_| self.rng.u8(..4) > 0).map(|(_, message)| message.id.clone());
                let id = id.unwrap_or_else(|| MessageId::new("other").unwrap());
                let time = time + std::time::Duration::from_secs(self.rng.u64(..2) * 3600);
                ("hold_message", text(&table.hold_message(&stream, &epoch, seq, &id, time).await?))
            }
            6 => ("raise_top", text::<Raise>(&table.raise_top(&stream, &epoch, seq, time).await?)),
            7 => ("raise_floor", text::<Raise>(&table.raise_floor(&stream, &epoch, seq).await?)),
            8 => ("renew_head", text(&table.renew_head(&stream, &epoch, time).await?)),
            9 => {
                let (to, limit) = (seq + self.rng.u64(..6), self.rng.usize(1..5));
                let (messages, read) = table.messages(&stream, &epoch, seq..=to, limit).await?;
                // A call that stops at its limit may or may not see that there is no more.
                let read = if messages.len() == limit { messages[limit - 1].0 } else { read };
                ("messages", text(&(messages, read)))
            }
            10 => ("newest_ids", text(&table.newest_ids(&stream, &epoch, seq..=u64::MAX).await?)),
            11 => ("put_device", text(&table.put_device(&stream, &self.device()).await?)),
            12 => {
                let device = self.device();
                ("delete_device", text(&table.delete_device(&stream, &device.connection).await?))
            }
            13 => ("devices", text(&table.devices(&stream, None).await?)),
            14 => ("item_keys", text(&table.item_keys(&stream, None).await?)),
            15 => ("delete_head", text(&table.delete_head(&stream, &epoch).await?)),
            _ => {
                let (keys, _) = table.item_keys(&stream, None).await?;
                let keys: Vec<_> = keys.into_iter().filter(|_| self.rng.u8(..4) == 0).take(25).collect();
                match keys.is_empty() {
                    true => ("no delete_items", String::new()),
                    false => ("delete_items", text(&table.delete_items(&stream, &keys).await?)),
                }
            }
        })
    }
}

fn text<T: Debug>(result: &T) -> String {
    format!("{result:?}")
}

#[tokio::test]
async fn dynamo_table_behaves_like_the_double() -> anyhow::Result<()> {
    let endpoint = Endpoint::start_own(&install(&MINISTACK).await?, "mailbox").await?;
    let dynamodb = Client::new(&local_config(endpoint.url()).await);
    create_table(&dynamodb).await?;
    let (real, double) = (DynamoTable::new(dynamodb, TABLE), MemoryTable::default());
    for seed in 0..12 {
        let user = format!("user#{seed}");
        let stream = Stream { tenant: "100%".try_into()?, user: user.as_str().try_into()? };
        let operations = || Operations { rng: Rng::with_seed(seed), stream: stream.clone() };
        let (mut on_real, mut on_double) = (operations(), operations());
        for step in 0..60 {
            let (name, expected) = on_double.next(&double).await?;
            let (_, result) = on_real.next(&real).await?;
            assert_eq!(result, expected, "{name}, step {step} of seed {seed}");
        }
    }
    Ok(())
}
