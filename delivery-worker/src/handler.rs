//! Runs the stages over one batch.

use std::collections::BTreeSet;

use aws_lambda_events::sqs::SqsBatchResponse;
use streamer_events::SqsEvent;
use streamer_gateway::Gateway;

use crate::{
    Worker,
    decode::Record,
    deliver::deliver,
    expand::expand,
    fan_out::fan_out_all,
    keep::{Kept, keep},
    outcome::Completed,
    plan::{plan, withhold_behind},
    queue_kind::QueueKind,
    report::report,
    settle::{review, settle},
    time::Time,
};

/// A record that SQS must deliver again has no id. The response cannot name it, and SQS would delete it after any
/// response, so the invocation fails, and SQS delivers the whole batch again.
#[derive(Debug, thiserror::Error)]
#[error("a record without messageId must be delivered again, so the whole batch is")]
pub struct UnnamedRecord;

impl<G: Gateway> Worker<G> {
    /// Delivers a batch of messages and names the records that SQS must deliver again.
    ///
    /// # Errors
    /// [`UnnamedRecord`] if SQS must deliver the whole batch again.
    pub async fn handle(&self, event: SqsEvent, time: Time) -> Result<SqsBatchResponse, UnnamedRecord> {
        let mut records: Vec<_> = event.records.into_iter().map(Record::read).collect();
        self.gate.resume(&time);
        if time.is_skewed() {
            tracing::warn!(
                "this machine's clock differs from Lambda's, which is used: check TIMEOUT_SECONDS"
            );
        }

        let Kept { devices, appends } = keep(self, &mut records, &time).await;
        let expanded = expand(self, &records, devices, &time).await;
        let (mut pairs, mut completed) = (expanded.pairs, expanded.completed);
        if self.policy.queue_kind == QueueKind::Fifo {
            withhold_behind(&records, &mut pairs, &mut completed);
        }
        let planned = plan(self.policy.queue_kind, &records, pairs, time.at(time.deadline()));
        // Concurrent, so that a large audience delays no other message.
        let (delivered, fanned_out) = tokio::join!(
            deliver(self, &records, planned, &time),
            fan_out_all(self, &records, &expanded.fan_outs, &time),
        );
        completed.extend(delivered.into_iter().chain(fanned_out));

        let completed = review(&self.policy, &records, completed, time.now());
        let unacknowledged = self.settle(&records, &completed, &time).await;
        report(&self.telemetry, &records, &completed, &unacknowledged, &appends, &self.gate, &time);
        batch_response(&records, &unacknowledged)
    }

    /// Writes the settlement to the queues and returns the indexes of the records that are not acknowledged.
    async fn settle(&self, records: &[Record], completed: &[Completed], time: &Time) -> BTreeSet<usize> {
        let settlement = settle(&self.policy, records, completed, time.now(), fastrand::f64);
        let (handed_back, dead, ()) = tokio::join!(
            self.outbound.send(&settlement.handed_back, time.settle_deadline()),
            self.dead_letters.send(&settlement.dead_letters, time.settle_deadline()),
            self.outbound.change_visibility(&settlement.visibility_changes, time.settle_deadline()),
        );
        settlement.reported.into_iter().chain(handed_back).chain(dead).collect()
    }
}

/// Names each record once, and only records of the event: an unknown or empty id makes Lambda fail the whole batch.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.
fn batch_response(records: &[Record], indexes: &BTreeSet<usize>) -> Result<SqsBatchResponse, UnnamedRecord> {
    let ids = indexes.iter().map(|index| records[*index].id.as_deref().ok_or(UnnamedRecord));
    let ids = ids.collect::<Result<BTreeSet<_>, _>>()?;
    let mut response = SqsBatchResponse::default();
    ids.into_iter().for_each(|id| response.add_failure(id));
    Ok(response)
}
