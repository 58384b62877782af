//! The Lambda that takes messages off the queue and posts them to the clients' connections.
//!
//! Data flows one way, and each arrow is a module:
//!
//! ```text
//! SqsEvent ─decode─▶ records ─expand─▶ pairs ─plan─▶ lanes ─deliver─▶ outcomes ─settle─▶ SqsBatchResponse
//!                               └────▶ large audiences ───spread────────▶┘
//! ```
//!
//! [`mod@decode`], [`mod@plan`], [`mod@classify`], [`policy`], [`backoff`], [`letter`], [`mod@settle`] and the state
//! machines of [`admission`] are a pure core: values and an instant in, values out. [`mod@expand`], [`mod@spread`], [`mod@deliver`],
//! [`gateway`] and [`queue`] are the shell around it, which does what the core says.
//!
//! Every pair of a message and a connection ends in exactly one [`Outcome`](outcome::Outcome), and a message is
//! acknowledged only when all its pairs have settled and every letter that it needs was confirmed.

pub mod admission;
pub mod backoff;
pub mod classify;
pub mod config;
pub mod decode;
pub mod deliver;
pub mod expand;
pub mod gateway;
pub mod letter;
pub mod outcome;
pub mod plan;
pub mod policy;
pub mod queue;
pub mod served;
pub mod settle;
pub mod spread;
mod telling;
pub mod time;

use std::collections::BTreeSet;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use streamer_connections::{ConnectionTable, Endpoints};
use streamer_telemetry::Telemetry;

use crate::{
    admission::Gate,
    decode::Record,
    deliver::deliver,
    expand::expand,
    gateway::Gateway,
    outcome::Ended,
    plan::{Order, hold_behind, plan},
    policy::Policy,
    queue::Queue,
    served::Served,
    settle::{review, settle},
    spread::spread_all,
    time::Time,
};

/// What the worker needs from one invocation to the next.
#[derive(Debug)]
pub struct Worker<G> {
    /// Where posts go.
    pub gateway: G,
    /// The management endpoint behind the gateway, with its other names: connections of others are not posted to.
    pub endpoints: Endpoints,
    /// Where a user's connections are found, and rows of connections that are gone are removed.
    pub table: ConnectionTable,
    /// Where the messages come from, and go back to.
    pub outbound: Queue,
    /// Where messages go that nobody can deliver.
    pub dead_letters: Queue,
    /// How long it has patience, and with what.
    pub policy: Policy,
    /// Which posts may begin, and when.
    pub gate: Gate,
    /// Connections that already have a message of a FIFO queue which comes again.
    pub served: Served,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

/// An event that does not come from SQS.
#[derive(Debug, thiserror::Error)]
#[error("a record without messageId: the function is to be invoked by an SQS event source mapping")]
pub struct InvalidEvent;

impl<G: Gateway> Worker<G> {
    /// Takes a batch of messages to its end, and reports those that SQS is to deliver again.
    ///
    /// # Errors
    /// [`InvalidEvent`]: then nothing was posted.
    pub async fn handle(&self, event: SqsEvent, time: Time) -> Result<SqsBatchResponse, InvalidEvent> {
        let records = event.records.into_iter().map(Record::read).collect::<Result<Vec<_>, _>>()?;
        self.gate.resume(&time);
        if time.is_skewed() {
            tracing::warn!(
                "this machine's clock differs from Lambda's, which counts: is TIMEOUT_SECONDS right?"
            );
        }

        let expanded = expand(self, &records, &time).await;
        let (mut pairs, mut ended) = (expanded.pairs, expanded.ended);
        if self.policy.order == Order::Group {
            hold_behind(&records, &mut pairs, &mut ended);
        }
        let planned = plan(self.policy.order, &records, pairs, time.at(time.deadline()));
        // Side by side: a large audience keeps nobody waiting.
        let (delivered, spread) = tokio::join!(
            deliver(self, &records, planned, &time),
            spread_all(self, &records, &expanded.spreads, &time),
        );
        ended.extend(delivered.into_iter().chain(spread));

        let ended = review(&self.policy, &records, ended, time.now());
        let unconfirmed = self.settle(&records, &ended, &time).await;
        telling::tell(&self.telemetry, &records, &ended, &self.gate, &time);
        Ok(report(&records, &unconfirmed))
    }

    /// Tells the queues what was decided, and returns the places of the records that are not acknowledged.
    async fn settle(&self, records: &[Record], ended: &[Ended], time: &Time) -> BTreeSet<usize> {
        let settlement = settle(&self.policy, records, ended, time.now(), fastrand::f64);
        let (handed_back, dead, ()) = tokio::join!(
            self.outbound.send(&settlement.handed_back, time.settle_deadline()),
            self.dead_letters.send(&settlement.dead_letters, time.settle_deadline()),
            self.outbound.delay(&settlement.waits, time.settle_deadline()),
        );
        settlement.reported.into_iter().chain(handed_back).chain(dead).collect()
    }
}

/// Reports records, each once, and no other: an id that is not of the event makes Lambda fail the whole batch.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.
fn report(records: &[Record], places: &BTreeSet<usize>) -> SqsBatchResponse {
    let ids: BTreeSet<_> = places.iter().map(|place| records[*place].id.as_str()).collect();
    let mut response = SqsBatchResponse::default();
    ids.into_iter().for_each(|id| response.add_failure(id));
    response
}
