//! From outcomes to the report for SQS.

use std::collections::{BTreeSet, HashSet};

use aws_lambda_events::sqs::SqsBatchResponse;

use crate::{
    decode::{Message, Poison},
    outcome::Ended,
};

/// Reports every record that SQS is to deliver again: messages with a pair that is not final, and poison that
/// did not reach the dead-letter queue. Each once, and no other: an id that is not of the event makes Lambda
/// fail the whole batch.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-errorhandling.html>.
#[must_use]
pub fn settle(
    messages: &[Message],
    pairs: &[Ended],
    poison: &[Poison],
    unsent: &HashSet<usize>,
) -> SqsBatchResponse {
    let unfinished: BTreeSet<_> =
        pairs.iter().filter(|pair| !pair.outcome.is_final()).map(|pair| pair.message).collect();
    let messages =
        unfinished.into_iter().filter_map(|index| messages.get(index)).map(|message| &message.record_id);
    let poison = poison.iter().enumerate().filter(|(index, _)| unsent.contains(index));

    let mut response = SqsBatchResponse::default();
    for id in messages.chain(poison.map(|(_, poison)| &poison.record_id)) {
        response.add_failure(id);
    }
    response
}
