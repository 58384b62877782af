//! The dead-letter queue.

use aws_sdk_sqs::types::QueueAttributeName as Name;
use serde_json::{Value, json};

use super::{
    Rule, Unread, policy,
    queue::{Attributes, MIN_MESSAGE_BYTES, encryption, message_size, seconds},
};
use crate::doctor::{Check, Subject};

/// Returns the checks of the dead-letter queue of `outbound` and of `parts`.
pub(super) fn checks(
    subject: &Subject,
    queue: Result<&Attributes, &Unread>,
    outbound: Option<&Attributes>,
    parts: Option<&Attributes>,
) -> Vec<Check> {
    let url = subject.variable("DEAD_LETTER_QUEUE_URL").unwrap_or_default();
    let rule = Rule::new(
        "dead_letters.exists",
        "the queue that the worker's DEAD_LETTER_QUEUE_URL names",
        "create the queue again (`terraform apply` does): the worker cannot give up a message, and SQS keeps delivering it",
    );
    let queue = match queue {
        Ok(queue) => queue,
        Err(unread) => return vec![unread.check(rule, &format!("queue {url}"))],
    };
    let mut checks = vec![
        rule.ok(url),
        waiting(queue, subject.is_local),
        encryption("dead_letters.encryption", queue, subject.is_local),
        policy::check("dead_letters.policy", queue.text(&Name::Policy)),
    ];
    if let Some(outbound) = outbound {
        let least = outbound.number(&Name::MaximumMessageSize).unwrap_or(MIN_MESSAGE_BYTES);
        checks.extend([
            retention(
                queue.number(&Name::MessageRetentionPeriod),
                outbound.number(&Name::MessageRetentionPeriod),
            ),
            kind(queue.is_fifo(), outbound.is_fifo()),
            message_size("dead_letters.size", queue.number(&Name::MaximumMessageSize), least),
            allows(
                queue.text(&Name::RedriveAllowPolicy),
                &[Some(outbound), parts]
                    .into_iter()
                    .flatten()
                    .filter_map(Attributes::arn)
                    .collect::<Vec<_>>(),
            ),
        ]);
    }
    checks
}

fn waiting(queue: &Attributes, is_local: bool) -> Check {
    let command = if is_local { "streamer redrive" } else { "streamer redrive --aws" };
    let rule = Rule::new(
        "dead_letters.waiting",
        "no dead letters",
        format!(
            "list them and their reasons with `{command}`, fix the cause, then send them back with `--send`"
        ),
    );
    let names = [
        Name::ApproximateNumberOfMessages,
        Name::ApproximateNumberOfMessagesNotVisible,
        Name::ApproximateNumberOfMessagesDelayed,
    ];
    let letters = names.iter().filter_map(|name| queue.number(name)).sum::<u64>();
    rule.prefer(letters == 0, format!("dead letters: {letters}")).with_values(json!({ "letters": letters }))
}

/// A message that SQS moves from a standard queue keeps its age.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-dead-letter-queues.html>.
fn retention(retention: Option<u64>, outbound: Option<u64>) -> Check {
    const NAME: &str = "dead_letters.retention";
    let (Some(retention), Some(outbound)) = (retention, outbound) else {
        return Check::skipped(NAME, "more than the outbound queue's", "a retention is unknown");
    };
    let expected = format!("more than the outbound queue's, {}", seconds(outbound));
    let remedy = "raise `dead_letter_retention_seconds` in Terraform: SQS may delete dead letters as soon as it has moved them";
    Rule::new(NAME, expected, remedy).require(retention > outbound, seconds(retention))
}

fn kind(is_fifo: bool, outbound_is_fifo: bool) -> Check {
    let name = |is_fifo| if is_fifo { "a FIFO queue" } else { "a standard queue" };
    let remedy = "create both queues with the same `fifo` in Terraform: SQS cannot move messages between the two kinds";
    Rule::new("dead_letters.kind", format!("{}, as the outbound queue", name(outbound_is_fifo)), remedy)
        .require(is_fifo == outbound_is_fifo, name(is_fifo))
}

/// Without a policy, every queue of the account may move messages here.
fn allows(policy: Option<&str>, queues: &[&str]) -> Check {
    let rule = Rule::new(
        "dead_letters.allows",
        "a redrive allow policy that admits the outbound queue and the parts queue, or none",
        "add the queue's ARN to sourceQueueArns of the redrive allow policy (`terraform apply` does): SQS cannot move its \
         messages here",
    );
    let Some(policy) = policy else { return rule.ok("no redrive allow policy") };
    let policy: Value = serde_json::from_str(policy).unwrap_or_default();
    let sources = policy["sourceQueueArns"].as_array();
    match policy["redrivePermission"].as_str() {
        Some("allowAll") => rule.ok("all queues of the account"),
        Some("byQueue") => {
            let lists =
                |queue: &str| sources.is_some_and(|sources| sources.iter().any(|source| source == queue));
            let missing: Vec<_> = queues.iter().copied().filter(|queue| !lists(queue)).collect();
            let seen = format!("not {}", missing.join(", "));
            rule.require(
                missing.is_empty(),
                if missing.is_empty() { "every queue of the worker" } else { &seen },
            )
        }
        _ => rule.failed("no queue"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const ARN: &str = "arn:aws:sqs:eu-central-1:123456789012:streamer-outbound";

    #[test]
    fn waiting_letters_are_counted_in_every_state() {
        let letters = |visible, hidden, delayed| {
            let visible = (Name::ApproximateNumberOfMessages, visible);
            let hidden = (Name::ApproximateNumberOfMessagesNotVisible, hidden);
            waiting(
                &Attributes::of("q", [visible, hidden, (Name::ApproximateNumberOfMessagesDelayed, delayed)]),
                false,
            )
        };
        assert_eq!(letters("0", "0", "0").verdict, Verdict::Ok);
        let check = letters("1", "2", "4");
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Warning, "dead letters: 7"));
        assert!(check.remedy.is_some_and(|remedy| remedy.contains("`streamer redrive --aws`")));
    }

    #[test]
    fn retention_exceeds_that_of_outbound_queue() {
        assert_eq!(retention(Some(101), Some(100)).verdict, Verdict::Ok);
        assert_eq!(retention(Some(100), Some(100)).verdict, Verdict::Failed);
        assert_eq!(retention(None, Some(100)).verdict, Verdict::Skipped);
    }

    #[test]
    fn both_queues_have_the_same_kind() {
        assert_eq!(kind(true, true).verdict, Verdict::Ok);
        assert_eq!(kind(false, false).verdict, Verdict::Ok);
        let check = kind(false, true);
        assert_eq!(
            (check.verdict, check.expected.as_str()),
            (Verdict::Failed, "a FIFO queue, as the outbound queue")
        );
    }

    #[test]
    fn allow_policy_admits_the_queues() {
        let by_queue =
            |arn: &str| json!({ "redrivePermission": "byQueue", "sourceQueueArns": [arn] }).to_string();
        let verdict = |policy: Option<&str>| allows(policy, &[ARN]).verdict;
        let parts = "arn:aws:sqs:eu-central-1:123456789012:streamer-parts";
        let check = allows(Some(&by_queue(ARN)), &[ARN, parts]);
        assert_eq!((check.verdict, check.seen), (Verdict::Failed, format!("not {parts}")));
        assert_eq!(verdict(None), Verdict::Ok);
        assert_eq!(verdict(Some(r#"{"redrivePermission":"allowAll"}"#)), Verdict::Ok);
        assert_eq!(verdict(Some(&by_queue(ARN))), Verdict::Ok);
        assert_eq!(verdict(Some(&by_queue("arn:aws:sqs:eu-central-1:123456789012:other"))), Verdict::Failed);
        assert_eq!(verdict(Some(r#"{"redrivePermission":"denyAll"}"#)), Verdict::Failed);
    }
}
