//! A worker on test doubles.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use aws_lambda_events::sqs::SqsBatchResponse;
use aws_sdk_sqs::types::{MessageSystemAttributeNameForSends, SendMessageBatchRequestEntry};
use delivery_worker::{Worker, admission::Gate, policy::Policy, served::Served, time::Time};
use serde_json::Value;
use streamer_environment::Environment;
use streamer_events::SqsEvent;
use streamer_gateway::{Gateway, PayloadLimit};
use streamer_message::{Receipt, sqs::FIFO_SUFFIX};
use streamer_queue::{Queue, QueueKind, ReceiptsQueue};
use streamer_telemetry::{Settings, Telemetry};

use crate::{
    doubles::{QueueDouble, TableDouble},
    event::epoch,
    gateway::MemoryGateway,
};

/// Lambda's timeout in these tests.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The worker's policy in these tests: the defaults.
pub const POLICY: Policy = Policy {
    queue_kind: QueueKind::Standard,
    connect_grace: Duration::from_secs(5),
    away_grace: Duration::from_secs(30),
    max_age: Duration::from_secs(7800),
};

/// The ARN of the parts queue in these tests.
pub const PARTS_ARN: &str = "arn:aws:sqs:eu-central-1:123456789012:parts";

/// The management endpoint in these tests.
pub const ENDPOINT: &str = "https://a1b2c3d4e5.execute-api.eu-central-1.amazonaws.com/production";

/// Starts telemetry as a Lambda does, without output.
///
/// # Panics
/// When the default settings are invalid.
#[must_use]
pub fn telemetry(service: &'static str) -> Telemetry {
    let settings = Settings::read(&mut Environment::of([("LOG_LEVEL", "off")]));
    #[expect(clippy::expect_used, reason = "a bug in the tests")]
    Telemetry::start(service, settings.expect("settings"))
}

/// A worker, and the test doubles around it.
pub struct Rig<G = MemoryGateway> {
    /// The worker.
    pub worker: Worker<G>,
    /// Its table.
    pub table: TableDouble,
    /// The outbound queue.
    pub outbound: QueueDouble,
    /// The dead-letter queue.
    pub dead_letters: QueueDouble,
    /// The receipts queue.
    pub receipts: QueueDouble,
}

/// A message that was sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Sent {
    /// Its body.
    pub body: String,
    /// Its delay in seconds.
    pub delay: Option<i32>,
    /// Its message group.
    pub group: Option<String>,
    /// X-Ray's trace header.
    pub trace: Option<String>,
    /// Its deduplication id.
    pub deduplication_id: Option<String>,
    /// Its attributes, by name.
    pub attributes: Vec<(String, String)>,
}

impl<G: Gateway> Rig<G> {
    /// Creates a worker that posts to `gateway`, with an empty table and queues that accept everything.
    pub fn new(gateway: G) -> Self {
        Self::on(gateway, TableDouble::default(), QueueDouble::taking(), QueueDouble::taking())
    }

    /// Creates a worker on these test doubles.
    pub fn on(gateway: G, table: TableDouble, outbound: QueueDouble, dead_letters: QueueDouble) -> Self {
        Self::of(QueueKind::Standard, gateway, table, outbound, dead_letters)
    }

    /// Creates a worker for a FIFO queue.
    pub fn fifo(gateway: G) -> Self {
        Self::of(
            QueueKind::Fifo,
            gateway,
            TableDouble::default(),
            QueueDouble::taking(),
            QueueDouble::taking(),
        )
    }

    /// A worker for a queue with this queue_kind.
    pub fn of(
        queue_kind: QueueKind,
        gateway: G,
        table: TableDouble,
        outbound: QueueDouble,
        dead_letters: QueueDouble,
    ) -> Self {
        let suffix = if queue_kind == QueueKind::Fifo { FIFO_SUFFIX } else { "" };
        let queue = |queue: &QueueDouble, name: &str| {
            Queue::new(queue.client(), format!("https://sqs.example.com/{name}{suffix}"))
        };
        let receipts = QueueDouble::taking();
        let worker = Worker {
            gateway,
            endpoints: ENDPOINT.into(),
            table: Some(table.client()),
            mailbox: None,
            outbound: queue(&outbound, "outbound"),
            parts: None,
            dead_letters: queue(&dead_letters, "dead-letters"),
            receipts: receipts_queue(&receipts),
            policy: Policy { queue_kind, ..POLICY },
            payloads: PayloadLimit::default(),
            gate: Gate::default(),
            served: Served::default(),
            telemetry: telemetry("delivery-worker"),
        };
        Self { worker, table, outbound, dead_letters, receipts }
    }

    /// Creates a worker whose table and queues never answer.
    pub fn unanswered(gateway: G) -> Self {
        let mut rig = Self::new(gateway);
        rig.worker.table = Some(TableDouble::silent());
        rig.worker.outbound = Queue::new(QueueDouble::silent(), "https://sqs.example.com/outbound");
        rig.worker.dead_letters = Queue::new(QueueDouble::silent(), "https://sqs.example.com/dead-letters");
        rig
    }

    /// Invokes the worker at [`epoch`], and returns the reported records.
    ///
    /// # Errors
    /// When the event is not an SQS event.
    pub async fn invoke(&self, event: SqsEvent) -> anyhow::Result<BTreeSet<String>> {
        self.invoke_at(epoch(), event).await
    }

    /// Invokes the worker at `now`, and returns the reported records.
    ///
    /// # Errors
    /// When the event is not an SQS event.
    pub async fn invoke_at(&self, now: SystemTime, event: SqsEvent) -> anyhow::Result<BTreeSet<String>> {
        self.invoke_within(now, TIMEOUT, event).await
    }

    /// Invokes the worker at `now` with another timeout, and returns the reported records.
    ///
    /// # Errors
    /// When the event is not an SQS event.
    pub async fn invoke_within(
        &self,
        now: SystemTime,
        timeout: Duration,
        event: SqsEvent,
    ) -> anyhow::Result<BTreeSet<String>> {
        self.invoke_in(Time::start(now, now + timeout, timeout), event).await
    }

    /// Invokes the worker at `now` by its own clock, with a deadline by Lambda's clock, and returns the reported
    /// records.
    ///
    /// # Errors
    /// When the event is not an SQS event.
    pub async fn invoke_until(
        &self,
        now: SystemTime,
        deadline: SystemTime,
        event: SqsEvent,
    ) -> anyhow::Result<BTreeSet<String>> {
        self.invoke_in(Time::start(now, deadline, TIMEOUT), event).await
    }

    async fn invoke_in(&self, time: Time, event: SqsEvent) -> anyhow::Result<BTreeSet<String>> {
        let ids = event.records.iter().filter_map(|record| record.message_id.clone()).collect();
        Ok(reported(&ids, &self.worker.handle(event, time).await?))
    }

    /// Returns the messages sent to the outbound queue.
    #[must_use]
    pub fn handed_back(&self) -> Vec<Sent> {
        self.outbound.entries().into_iter().map(Sent::from).collect()
    }

    /// Sends parts to a queue of their own, whose ARN is [`PARTS_ARN`].
    pub fn set_parts(&mut self, parts: &QueueDouble) {
        self.worker.parts = Some(Queue::new(parts.client(), "https://sqs.example.com/123456789012/parts"));
    }

    /// Replaces the receipts queue.
    pub fn set_receipts(&mut self, receipts: QueueDouble) {
        self.worker.receipts = receipts_queue(&receipts);
        self.receipts = receipts;
    }

    /// Returns the receipts that the receipts queue has accepted.
    ///
    /// # Panics
    /// When a message on the receipts queue is no receipt.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn receipts(&self) -> Vec<Receipt> {
        let taken = self.receipts.taken();
        taken.iter().map(|entry| Receipt::decode(entry.message_body()).expect("a receipt")).collect()
    }

    /// Returns the dead letters.
    #[must_use]
    pub fn dead(&self) -> Vec<Sent> {
        self.dead_letters.entries().into_iter().map(Sent::from).collect()
    }
}

/// Returns the limit that `MAX_PAYLOAD_BYTES` sets to so many bytes.
///
/// # Panics
/// When the variable does not accept them.
#[must_use]
pub fn payload_limit(bytes: usize) -> PayloadLimit {
    let bytes = bytes.to_string();
    #[expect(clippy::expect_used, reason = "a bug in the tests")]
    PayloadLimit::read(&mut Environment::of([("MAX_PAYLOAD_BYTES", bytes.as_str())])).expect("a limit")
}

/// Returns the receipts queue of the stage `test`.
#[must_use]
pub fn receipts_queue(receipts: &QueueDouble) -> ReceiptsQueue {
    ReceiptsQueue::new(Some(Queue::new(receipts.client(), "https://sqs.example.com/receipts")), "test")
}

impl From<SendMessageBatchRequestEntry> for Sent {
    fn from(entry: SendMessageBatchRequestEntry) -> Self {
        let trace = entry.message_system_attributes().and_then(|attributes| {
            attributes.get(&MessageSystemAttributeNameForSends::AwsTraceHeader)?.string_value()
        });
        let attributes = entry.message_attributes().into_iter().flatten();
        let text = |value: &aws_sdk_sqs::types::MessageAttributeValue| {
            value.string_value().unwrap_or_default().to_owned()
        };
        let mut attributes: Vec<_> = attributes.map(|(name, value)| (name.clone(), text(value))).collect();
        attributes.sort_unstable();
        Self {
            body: entry.message_body().to_owned(),
            delay: entry.delay_seconds(),
            group: entry.message_group_id().map(str::to_owned),
            trace: trace.map(str::to_owned),
            deduplication_id: entry.message_deduplication_id().map(str::to_owned),
            attributes,
        }
    }
}

impl Sent {
    /// Parses the body.
    ///
    /// # Panics
    /// When it is not JSON.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("a message")
    }

    /// Parses the body with `null` in place of the payload, which has to be in the body byte for byte.
    ///
    /// # Panics
    /// When the body does not contain the payload.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test fails by panicking")]
    pub fn json_with_raw_payload(&self, payload: &str) -> Value {
        let field = format!("\"payload\":{payload}");
        assert!(self.body.contains(&field), "{}", self.body);
        serde_json::from_str(&self.body.replace(&field, "\"payload\":null")).expect("a message")
    }

    /// Returns an attribute, or an empty text without it.
    #[must_use]
    pub fn attribute(&self, name: &str) -> &str {
        let found = self.attributes.iter().find(|(found, _)| found == name);
        found.map_or("", |(_, value)| value)
    }
}

/// Returns the reported ids.
///
/// # Panics
/// When an id is reported twice or does not belong to the event: Lambda would fail the whole batch.
fn reported(of_event: &BTreeSet<String>, response: &SqsBatchResponse) -> BTreeSet<String> {
    let ids: Vec<_> = response.batch_item_failures.iter().map(|failure| &failure.item_identifier).collect();
    let unique: BTreeSet<_> = ids.iter().map(|id| (*id).clone()).collect();
    assert!(unique.len() == ids.len() && unique.is_subset(of_event), "Lambda would fail the batch: {ids:?}");
    unique
}
