//! The receipts queue.

use aws_sdk_sqs::{Client, types::QueueAttributeName as Name};

use super::{
    Rule, policy,
    queue::{Attributes, encryption, read_variable, seconds},
};
use crate::doctor::{Check, Subject};

const VARIABLE: &str = "RECEIPTS_QUEUE_URL";

/// Reads and checks the receipts queue, if the worker has one.
pub(super) async fn examine(sqs: &Client, subject: &Subject, done: &mut impl FnMut(Check)) {
    let rule = Rule::new(
        "receipts.exists",
        "the queue that the worker's RECEIPTS_QUEUE_URL names",
        "create the queue again, or deploy with `receipts = false` in Terraform: the worker hands messages back until it \
         can send their receipts",
    );
    let Some(url) = subject.variable(VARIABLE) else {
        return done(rule.skipped("the worker sends no receipts"));
    };
    match read_variable(sqs, subject, VARIABLE).await {
        Err(unread) => done(unread.check(rule, &format!("queue {url}"))),
        Ok(queue) => {
            done(rule.ok(url));
            done(kind(queue.is_fifo()));
            done(retention(&queue, subject.spec.queues.receipts.retention_seconds));
            done(encryption("receipts.encryption", &queue, subject.is_local));
            done(policy::check("receipts.policy", queue.text(&Name::Policy)));
        }
    }
}

/// The worker sends receipts without a message group, which a FIFO queue refuses.
fn kind(is_fifo: bool) -> Check {
    let remedy =
        "create a standard queue for receipts, also beside FIFO queues: a FIFO queue refuses every receipt";
    let seen = if is_fifo { "a FIFO queue" } else { "a standard queue" };
    Rule::new("receipts.kind", "a standard queue", remedy).require(!is_fifo, seen)
}

fn retention(queue: &Attributes, least: u64) -> Check {
    let remedy = format!(
        "raise the receipts queue's retention to {least} s: SQS deletes receipts that wait for longer"
    );
    let rule = Rule::new("receipts.retention", format!("at least {}", seconds(least)), remedy);
    match queue.number(&Name::MessageRetentionPeriod) {
        None => rule.skipped("the retention is unknown"),
        Some(retention) => rule.prefer(retention >= least, seconds(retention)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn receipts_need_a_standard_queue() {
        assert_eq!(kind(false).verdict, Verdict::Ok);
        assert_eq!(kind(true).verdict, Verdict::Failed);
    }

    #[test]
    fn short_retention_is_a_warning() {
        let queue = |value| Attributes::of("q", [(Name::MessageRetentionPeriod, value)]);
        let verdict = |value| retention(&queue(value), 1_209_600).verdict;
        assert_eq!(verdict("1209600"), Verdict::Ok);
        assert_eq!(verdict("1209599"), Verdict::Warning);
        assert_eq!(verdict(""), Verdict::Skipped);
    }
}
