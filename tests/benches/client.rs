//! The measured clients, which post, broadcast and send. Each runs as a process of its own, and prints one figure per
//! line.

use std::{
    future::Future,
    time::{Duration, Instant, SystemTime},
};

use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_sdk_sqs::types::SendMessageBatchRequestEntry;
use bytes::Bytes;
use delivery_worker::{
    Worker,
    admission::{Gate, concurrency},
    time::Time,
};
use futures::{StreamExt, stream};
use serde_json::json;
use streamer_connections::ConnectionTable;
use streamer_environment::aws;
use streamer_gateway::{Gateway, ManagementApi, PayloadLimit};
use streamer_message::{ConnectionId, MessageId};
use streamer_producer::{Message, Producer};
use streamer_queue::{Queue, ReceiptsQueue};
use streamer_tests::{
    event::batch,
    worker::{POLICY, telemetry},
};

use crate::process::cpu;

/// Payload size in bytes.
pub(crate) const PAYLOAD: usize = 300;

/// How long a rate is measured, after the warm-up.
const MEASURED: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_millis(500);

/// Runs the client `name` against `endpoint`, and prints its figures.
pub(crate) async fn run(name: &str, endpoint: &str, number: usize) -> anyhow::Result<()> {
    let aws = aws::load().await;
    let payload = Bytes::from(json!("x".repeat(PAYLOAD - 2)).to_string());
    match name {
        "posts-streamer" => {
            let api = ManagementApi::new(&aws, endpoint, number)?;
            let connection = ConnectionId::new("L0SM9cOFvHcCIhw=")?;
            rate(number, || async { _ = api.post(&connection, payload.clone()).await }).await
        }
        "posts-sdk" => {
            let client = sdk(&aws, endpoint);
            rate(number, || async {
                let post = client.post_to_connection().connection_id("L0SM9cOFvHcCIhw=");
                post.data(Blob::new(payload.clone())).send().await.map(drop).unwrap_or_default();
            })
            .await
        }
        "broadcast-streamer" => {
            let worker = Worker {
                gateway: ManagementApi::new(&aws, endpoint, concurrency::Settings::DEFAULT.max)?,
                table: Some(ConnectionTable::new(aws_sdk_dynamodb::Client::new(&aws), "connections")),
                endpoints: endpoint.into(),
                mailbox: None,
                outbound: Queue::new(aws_sdk_sqs::Client::new(&aws), "http://127.0.0.1:9/"),
                parts: None,
                dead_letters: Queue::new(aws_sdk_sqs::Client::new(&aws), "http://127.0.0.1:9/"),
                receipts: ReceiptsQueue::new(None, "test"),
                policy: POLICY,
                payloads: PayloadLimit::default(),
                gate: Gate::default(),
                served: delivery_worker::served::Served::default(),
                telemetry: telemetry("delivery-worker"),
            };
            let event = event(number, &payload);
            median(|| {
                let (worker, event) = (&worker, event.clone());
                async move {
                    let now = SystemTime::now();
                    let time = Time::start(now, now + Duration::from_secs(30), Duration::from_secs(30));
                    let report = worker.handle(event, time).await;
                    assert!(
                        report.is_ok_and(|report| report.batch_item_failures.is_empty()),
                        "a message was not delivered"
                    );
                }
            })
            .await
        }
        "broadcast-sdk" => {
            let client = sdk(&aws, endpoint);
            median(|| {
                let posts = (0..number).map(|connection| {
                    let post = client.post_to_connection().connection_id(format!("c{connection}"));
                    let post = post.data(Blob::new(payload.clone()));
                    async move { _ = post.send().await }
                });
                async {
                    stream::iter(posts.collect::<Vec<_>>())
                        .buffer_unordered(concurrency::Settings::DEFAULT.initial)
                        .collect::<()>()
                        .await
                }
            })
            .await
        }
        "send-streamer" | "send-all-streamer" => {
            let config = aws.into_builder().endpoint_url(endpoint).build();
            let producer = Producer::new(&aws_sdk_sqs::Client::new(&config), format!("{endpoint}/queue"));
            let message = |_| Message::connection("c").response("hello").map_err(anyhow::Error::from);
            if name == "send-streamer" {
                return rate(number, || async {
                    if let Ok(message) = message(0) {
                        _ = producer.send(message).await;
                    }
                })
                .await;
            }
            let all = || async {
                if let Ok(messages) = (0..100).map(message).collect::<Result<Vec<_>, _>>() {
                    _ = producer.send_all(messages).await;
                }
            };
            rate_of(number.div_ceil(100), 100, all).await
        }
        "send-sdk" => {
            let config = aws.into_builder().endpoint_url(endpoint).build();
            let (client, url) = (aws_sdk_sqs::Client::new(&config), format!("{endpoint}/queue"));
            rate(number, || async {
                _ = client.send_message().queue_url(&url).message_body(body()).send().await;
            })
            .await
        }
        "send-batch-sdk" => {
            let config = aws.into_builder().endpoint_url(endpoint).build();
            let (client, url) = (aws_sdk_sqs::Client::new(&config), format!("{endpoint}/queue"));
            rate_of(number.div_ceil(10), 10, || async {
                let entries = (0..10).map(|id| {
                    SendMessageBatchRequestEntry::builder().id(id.to_string()).message_body(body()).build()
                });
                let entries = entries.collect::<Result<Vec<_>, _>>().unwrap_or_default();
                _ = client.send_message_batch().queue_url(&url).set_entries(Some(entries)).send().await;
            })
            .await
        }
        other => anyhow::bail!("unknown client {other}"),
    }
}

/// Builds the body that the producer would send.
fn body() -> String {
    let id = MessageId::generate();
    let payload = json!({ "type": "response", "data": "hello", "id": id });
    json!({ "version": 1, "id": id, "to": { "connection": "c" }, "payload": payload }).to_string()
}

/// Creates the AWS SDK's client as its documentation shows.
fn sdk(aws: &aws_config::SdkConfig, endpoint: &str) -> aws_sdk_apigatewaymanagement::Client {
    let config = aws_sdk_apigatewaymanagement::config::Builder::from(aws).endpoint_url(endpoint);
    aws_sdk_apigatewaymanagement::Client::from_conf(config.build())
}

/// Builds an event with messages for `number` connections, up to 100 per message.
pub(crate) fn event(number: usize, payload: &[u8]) -> streamer_events::SqsEvent {
    let connections: Vec<_> = (0..number).map(|connection| format!("L0SM9cOFvH{connection:05}=")).collect();
    let payload = String::from_utf8_lossy(payload);
    let bodies = connections.chunks(100).enumerate().map(|(id, connections)| {
        let to = json!({ "connections": connections });
        format!(r#"{{"version":1,"id":"m{id}","to":{to},"payload":{payload}}}"#)
    });
    batch(bodies)
}

async fn rate<F: Future<Output = ()>>(concurrency: usize, work: impl Fn() -> F) -> anyhow::Result<()> {
    rate_of(concurrency, 1, work).await
}

/// Runs `work` concurrently for [`MEASURED`], and prints units per second and CPU microseconds per unit.
async fn rate_of<F: Future<Output = ()>>(
    concurrency: usize,
    units: usize,
    work: impl Fn() -> F,
) -> anyhow::Result<()> {
    let until = |end: Instant| {
        let works = stream::repeat_with(&work).take_while(move |_| std::future::ready(Instant::now() < end));
        works.buffer_unordered(concurrency).fold(0_usize, |done, ()| std::future::ready(done + 1))
    };
    until(Instant::now() + WARM_UP).await;
    let (started, before) = (Instant::now(), cpu(std::process::id())?);
    let done = until(started + MEASURED).await * units;
    let (took, used) = (started.elapsed(), cpu(std::process::id())? - before);
    println!("{:.0}", done as f64 / took.as_secs_f64());
    println!("{:.2}", used.as_secs_f64() * 1e6 / done as f64);
    Ok(())
}

/// Runs `work` 25 times, and prints the median of the last 21 times in milliseconds.
async fn median<F: Future<Output = ()>>(work: impl Fn() -> F) -> anyhow::Result<()> {
    let mut times = Vec::new();
    for round in 0..25 {
        let started = Instant::now();
        work().await;
        if round >= 4 {
            times.push(started.elapsed());
        }
    }
    times.sort_unstable();
    println!("{:.2}", times[times.len() / 2].as_secs_f64() * 1e3);
    Ok(())
}
