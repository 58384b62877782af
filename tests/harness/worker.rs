//! A worker on doubles.

use std::{collections::BTreeSet, time::Duration};

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use delivery_worker::{Worker, dead_letter::DeadLetterQueue, gateway::Gateway, time::Time};
use streamer_environment::Environment;
use streamer_telemetry::{Settings, Telemetry};

use crate::{
    doubles::{QueueDouble, TableDouble},
    event::epoch,
};

/// Lambda's timeout in these tests.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// The connect grace in these tests: the default.
pub const CONNECT_GRACE: Duration = Duration::from_secs(5);

/// Telemetry as a Lambda starts it, but silent.
///
/// # Panics
/// When the defaults are no settings.
#[must_use]
pub fn telemetry(service: &'static str) -> Telemetry {
    let settings = Settings::read(&mut Environment::of([("LOG_LEVEL", "off")]));
    #[expect(clippy::expect_used, reason = "a fault of the tests themselves")]
    Telemetry::start(service, settings.expect("settings"))
}

/// A worker that posts to `gateway`.
pub fn worker<G: Gateway>(gateway: G, table: &TableDouble, dead_letters: &QueueDouble) -> Worker<G> {
    Worker {
        gateway,
        table: table.client(),
        dead_letters: DeadLetterQueue::new(dead_letters.client(), "https://sqs.example.com/dead-letters"),
        connect_grace: CONNECT_GRACE,
        telemetry: telemetry("delivery-worker"),
    }
}

/// A worker that posts to `gateway`, whose table and dead-letter queue never answer.
pub fn unanswered<G: Gateway>(gateway: G) -> Worker<G> {
    Worker {
        table: TableDouble::silent(),
        dead_letters: DeadLetterQueue::new(QueueDouble::silent(), "https://sqs.example.com/dead-letters"),
        ..worker(gateway, &TableDouble::default(), &QueueDouble::taking())
    }
}

/// Invokes the worker at [`epoch`], and returns what it reported.
///
/// # Errors
/// When the event is not SQS's.
pub async fn invoke<G: Gateway>(worker: &Worker<G>, event: SqsEvent) -> anyhow::Result<BTreeSet<String>> {
    let time = Time::start(epoch(), epoch() + TIMEOUT);
    Ok(reported(&worker.handle(event, time).await?))
}

/// The ids of a report.
///
/// # Panics
/// When an id stands there twice, or is empty: Lambda would fail the whole batch.
#[must_use]
pub fn reported(response: &SqsBatchResponse) -> BTreeSet<String> {
    let ids: Vec<_> = response.batch_item_failures.iter().map(|failure| &failure.item_identifier).collect();
    let unique: BTreeSet<_> = ids.iter().map(|id| (*id).clone()).collect();
    assert!(unique.len() == ids.len() && !unique.contains(""), "Lambda would fail the batch: {ids:?}");
    unique
}
