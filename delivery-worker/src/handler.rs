//! Runs the stages over one batch.

use std::collections::BTreeSet;

use aws_lambda_events::sqs::SqsBatchResponse;
use streamer_events::SqsEvent;
use streamer_gateway::Gateway;
use streamer_message::ReceiptEvent;
use streamer_queue::{Outgoing, QueueKind, SentReceipts};

use crate::{
    Worker,
    decode::{Record, millis},
    deliver::deliver,
    due_receipt::hand_back_receipts,
    expand::expand,
    fan_out::fan_out_all,
    keep::{Kept, keep},
    outcome::Completed,
    outgoing::about,
    plan::{plan, withhold_behind},
    receipts::{Accounts, accounts, count_pairs},
    report::{Invocation, report},
    settle::{Settlement, review, settle},
    time::Time,
    worker::Origin,
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
        let origin = self.origin(&event);
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
        let numbers = count_pairs(&records, &pairs);
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
        let accounts = accounts(&records, &completed, &numbers);
        let (unacknowledged, receipts) = self.settle(&records, &completed, &accounts, origin, &time).await;
        let invocation = Invocation { origin, appends, receipts };
        report(&self.telemetry, &records, &completed, &unacknowledged, &invocation, &self.gate, &time);
        batch_response(&records, &unacknowledged)
    }

    /// Writes the settlement to the queues, and then the receipts. Returns the indexes of the records that are not
    /// acknowledged.
    async fn settle(
        &self,
        records: &[Record],
        completed: &[Completed],
        accounts: &Accounts,
        origin: Origin,
        time: &Time,
    ) -> (BTreeSet<usize>, SentReceipts) {
        let settlement = settle(&self.policy, records, completed, accounts, time.now(), fastrand::f64);
        let mut unacknowledged = self.write(settlement, origin, time).await;
        // A receipt says that its message has ended, so everything else about the message is confirmed first.
        let due = self.due_receipts(records, accounts, &unacknowledged, time);
        let messages: Vec<_> = due
            .iter()
            .enumerate()
            .map(|(position, (index, event))| Outgoing {
                body: event.encode(),
                ..about(position, &records[*index])
            })
            .collect();
        let sent = self.receipts.send(&messages, time.now(), time.settle_deadline()).await;
        let unconfirmed =
            due.into_iter().enumerate().filter(|(position, _)| sent.unconfirmed.contains(position));
        let unconfirmed: Vec<_> = unconfirmed.map(|(_, receipt)| receipt).collect();
        if !unconfirmed.is_empty() {
            let handed_back =
                hand_back_receipts(&self.policy, records, unconfirmed, time.now(), fastrand::f64);
            unacknowledged.extend(self.write(handed_back, origin, time).await);
        }
        (unacknowledged, sent)
    }

    /// Writes a settlement to the queues, and returns the indexes of the records that are not acknowledged.
    async fn write(&self, settlement: Settlement, origin: Origin, time: &Time) -> BTreeSet<usize> {
        let queue = self.queue(origin);
        let (handed_back, dead, ()) = tokio::join!(
            queue.send(&settlement.handed_back, time.settle_deadline()),
            self.dead_letters.send(&settlement.dead_letters, time.settle_deadline()),
            queue.change_visibility(&settlement.visibility_changes, time.settle_deadline()),
        );
        settlement.reported.into_iter().chain(handed_back).chain(dead).collect()
    }

    /// Returns the receipts to send, each with the index of its record.
    fn due_receipts(
        &self,
        records: &[Record],
        accounts: &Accounts,
        unacknowledged: &BTreeSet<usize>,
        time: &Time,
    ) -> Vec<(usize, ReceiptEvent)> {
        let handed_back = records.iter().enumerate().filter_map(|(index, record)| {
            let due = record.due.as_ref()?;
            Some((index, due.event.clone()))
        });
        let ended = accounts.iter().filter(|(index, _)| !unacknowledged.contains(index));
        let ended = ended.flat_map(|(index, account)| {
            let receipts = account.receipts(&records[*index], millis(time.now()));
            receipts.into_iter().map(|receipt| (*index, self.receipts.event(receipt)))
        });
        handed_back.chain(ended).collect()
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
