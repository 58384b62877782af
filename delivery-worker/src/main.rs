//! `delivery-worker`, as Lambda runs it.

use std::time::{Duration, SystemTime};

use delivery_worker::{
    Worker,
    admission::{Gate, concurrency},
    config::Config,
    served::Served,
    time::Time,
};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use streamer_connections::ConnectionTable;
use streamer_environment::{Environment, aws};
use streamer_events::SqsEvent;
use streamer_gateway::ManagementApi;
use streamer_mailbox::{DynamoTable, Mailbox};
use streamer_queue::{Queue, ReceiptsQueue};
use streamer_telemetry::Telemetry;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let Config {
        endpoints,
        queue_url,
        dead_letter_queue_url,
        parts_queue_url,
        receipts_queue_url,
        policy,
        posts_per_second,
        payloads,
        timeout,
        table,
        tenant_shards,
        mailbox,
        telemetry,
    } = Config::read(Environment::of_process())?;
    let aws = aws::load().await;
    let sqs = aws_sdk_sqs::Client::new(&aws);
    let dynamo = aws_sdk_dynamodb::Client::new(&aws);
    let worker = Worker {
        gateway: ManagementApi::new(&aws, endpoints.name(), concurrency::Settings::DEFAULT.max)?,
        endpoints,
        table: table.map(|name| ConnectionTable::new(dynamo.clone(), name).with_shards(tenant_shards)),
        mailbox: mailbox.map(|(table, settings)| Mailbox::new(DynamoTable::new(dynamo, table), settings)),
        outbound: Queue::new(sqs.clone(), queue_url),
        parts: parts_queue_url.map(|url| Queue::new(sqs.clone(), url)),
        dead_letters: Queue::new(sqs.clone(), dead_letter_queue_url),
        receipts: ReceiptsQueue::new(receipts_queue_url.map(|url| Queue::new(sqs, url)), telemetry.stage()),
        policy,
        payloads,
        gate: Gate::new(posts_per_second),
        served: Served::default(),
        telemetry: Telemetry::start("delivery-worker", telemetry),
    };
    run(service_fn(async |event: LambdaEvent<SqsEvent>| {
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(event.context.deadline);
        worker.handle(event.payload, time(deadline, timeout)).await.map_err(Error::from)
    }))
    .await
}

#[expect(clippy::disallowed_methods, reason = "the clock is read here, once for each invocation")]
fn time(deadline: SystemTime, timeout: Duration) -> Time {
    Time::start(SystemTime::now(), deadline, timeout)
}
