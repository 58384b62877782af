//! The Lambda that takes messages off the queue and posts them to the clients' connections.
//!
//! Data flows one way, and each arrow is a module:
//!
//! ```text
//! SqsEvent ─decode─▶ messages ─expand─▶ pairs ─plan─▶ lanes ─deliver─▶ outcomes ─settle─▶ SqsBatchResponse
//! ```
//!
//! [`mod@decode`], [`mod@expand`], [`mod@plan`], [`mod@classify`] and [`mod@settle`] are a pure core: values in,
//! values out. [`mod@deliver`], [`gateway`] and [`dead_letter`] are the shell around it.
//!
//! Every pair of a message and a connection ends in exactly one [`Outcome`](outcome::Outcome), and a message is
//! acknowledged only when all its pairs are final.

pub mod classify;
pub mod config;
pub mod dead_letter;
pub mod decode;
pub mod deliver;
pub mod expand;
pub mod gateway;
pub mod outcome;
pub mod plan;
pub mod settle;
mod telling;
pub mod time;

use std::time::Duration;

use aws_lambda_events::sqs::{SqsBatchResponse, SqsEvent};
use streamer_connections::ConnectionTable;
use streamer_telemetry::Telemetry;

use crate::{
    dead_letter::DeadLetterQueue, decode::Decoded, deliver::deliver, expand::expand, gateway::Gateway,
    plan::plan, settle::settle, time::Time,
};

/// What the worker needs from one invocation to the next.
#[derive(Debug)]
pub struct Worker<G> {
    /// Where posts go.
    pub gateway: G,
    /// Where rows of connections that are gone are removed.
    pub table: ConnectionTable,
    /// Where messages go that nobody can deliver.
    pub dead_letters: DeadLetterQueue,
    /// How young a connection may be for a 410 to mean that it is not there yet.
    pub connect_grace: Duration,
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
        let records = event.records.into_iter().map(decode::Record::try_from);
        let records = records.collect::<Result<Vec<_>, _>>()?;

        let mut messages = Vec::with_capacity(records.len());
        let mut poison = Vec::new();
        for record in records {
            match decode::decode(record) {
                Decoded::Message(message) => messages.push(message),
                Decoded::Poison(poisoned) => poison.push(poisoned),
            }
        }
        let expanded = expand(&messages);
        let delivering = deliver(self, &messages, plan(expanded.pairs), &time);
        let (mut pairs, unsent) = tokio::join!(delivering, self.dead_letters.send(&poison, time.settled()));
        pairs.extend(expanded.unserved);

        telling::tell(&self.telemetry, &messages, &pairs, &poison, &time);
        Ok(settle(&messages, &pairs, &poison, &unsent))
    }
}
