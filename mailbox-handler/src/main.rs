//! `mailbox-handler`, as Lambda runs it.

use std::time::{Duration, SystemTime};

use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use mailbox_handler::{MailboxHandler, config::Config, time::Time};
use streamer_connections::ConnectionTable;
use streamer_environment::{Environment, aws};
use streamer_events::WebSocketEvent;
use streamer_gateway::ManagementApi;
use streamer_mailbox::{DynamoTable, Mailbox, Settings};
use streamer_queue::{Queue, ReceiptsQueue};
use streamer_telemetry::Telemetry;

/// An invocation makes one post at a time.
const MAX_IDLE: usize = 1;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let Config {
        endpoint,
        connections,
        mailbox,
        generation,
        receipts_queue_url,
        payloads,
        timeout,
        telemetry,
    } = Config::read(Environment::of_process())?;
    let aws = aws::load().await;
    let receipts_queue = receipts_queue_url.map(|url| Queue::new(aws_sdk_sqs::Client::new(&aws), url));
    let dynamodb = aws_sdk_dynamodb::Client::new(&aws);
    let settings = Settings { generation, ..Settings::default() };
    let handler = MailboxHandler {
        connections: ConnectionTable::new(dynamodb.clone(), connections),
        mailbox: Mailbox::new(DynamoTable::new(dynamodb, mailbox), settings),
        gateway: ManagementApi::new(&aws, &endpoint, MAX_IDLE)?,
        endpoint,
        payloads,
        receipts: ReceiptsQueue::new(receipts_queue, telemetry.stage()),
        telemetry: Telemetry::start("mailbox-handler", telemetry),
    };
    run(service_fn(async |event: LambdaEvent<WebSocketEvent>| {
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(event.context.deadline);
        handler.handle(event.payload, time(deadline, timeout)).await.map_err(Error::from)
    }))
    .await
}

#[expect(clippy::disallowed_methods, reason = "the clock is read here, once for each invocation")]
fn time(deadline: SystemTime, timeout: Duration) -> Time {
    Time::start(SystemTime::now(), deadline, timeout)
}
