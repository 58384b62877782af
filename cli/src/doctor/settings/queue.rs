//! The outbound queue, and reads and rules that all queues share.

use std::{collections::HashMap, time::Duration};

use aws_sdk_lambda::types::EventSourceMappingConfiguration;
use aws_sdk_sqs::{Client, types::QueueAttributeName as Name};
use serde::Deserialize;
use streamer_message::sqs::{FIFO_SUFFIX, is_arn_of};

use super::{Rule, Unread, policy, read};
use crate::doctor::{Check, Subject};

/// The worker's default of `MAX_AGE_SECONDS`: 2 h 10 min.
const MAX_AGE_SECONDS: u64 = 7800;

/// A queue's smallest limit that a payload of 128 KiB fits into, with the rest of its message.
pub(super) const MIN_MESSAGE_BYTES: u64 = 262_144;

/// The attributes of a queue.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes {
    /// Its URL.
    pub url: String,
    values: HashMap<Name, String>,
}

/// A queue's redrive policy. The maximum is a number or, as older policies have it, a text.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    max_receive_count: serde_json::Value,
}

impl Attributes {
    #[cfg(test)]
    pub(super) fn of<const N: usize>(url: &str, values: [(Name, &str); N]) -> Self {
        Self { url: url.to_owned(), values: values.map(|(name, value)| (name, value.to_owned())).into() }
    }

    pub(super) fn text(&self, name: &Name) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn number(&self, name: &Name) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    pub(super) fn is(&self, name: &Name) -> bool {
        self.text(name) == Some("true")
    }

    pub(super) fn arn(&self) -> Option<&str> {
        self.text(&Name::QueueArn)
    }

    pub(super) fn is_fifo(&self) -> bool {
        self.url.ends_with(FIFO_SUFFIX) || self.is(&Name::FifoQueue)
    }

    fn redrive(&self) -> Option<RedrivePolicy> {
        serde_json::from_str(self.text(&Name::RedrivePolicy)?).ok()
    }
}

/// Reads the queue that one of the worker's variables names.
pub(super) async fn read_variable(
    sqs: &Client,
    subject: &Subject,
    variable: &str,
) -> Result<Attributes, Unread> {
    let missing = || Unread::Unknown(format!("the worker has no variable {variable}"));
    let url = subject.variable(variable).ok_or_else(missing)?;
    let get = sqs.get_queue_attributes().queue_url(url).attribute_names(Name::All);
    let answer = read("sqs:GetQueueAttributes", &format!("queue {url}"), get.send()).await?;
    Ok(Attributes { url: url.to_owned(), values: answer.attributes.unwrap_or_default() })
}

/// Returns the checks of the outbound queue, which `mapping` reads from.
pub(super) fn checks(
    subject: &Subject,
    queue: Result<&Attributes, &Unread>,
    mapping: Option<&EventSourceMappingConfiguration>,
) -> Vec<Check> {
    let url = subject.variable("QUEUE_URL").unwrap_or_default();
    let rule = Rule::new(
        "queue.exists",
        "the queue that the worker's QUEUE_URL names",
        "check the Region; if the queue is gone, deploy it again: its messages are lost",
    );
    let queue = match queue {
        Ok(queue) => queue,
        Err(unread) => return vec![unread.check(rule, &format!("queue {url}"))],
    };
    let timeout = subject.worker().configuration.timeout();
    let window = mapping.and_then(|mapping| mapping.maximum_batching_window_in_seconds()).unwrap_or(0);
    let max_age = subject.variable("MAX_AGE_SECONDS");
    let max_age = max_age.map_or(Some(MAX_AGE_SECONDS), |seconds| seconds.parse().ok());
    let outbound = &subject.spec.queues.outbound;
    let receives = if queue.is_fifo() { outbound.fifo_max_receive_count } else { outbound.max_receive_count };
    vec![
        rule.ok(url),
        visibility(queue.number(&Name::VisibilityTimeout), timeout, window),
        retention(queue.number(&Name::MessageRetentionPeriod), max_age),
        redrive(queue, subject.variable("DEAD_LETTER_QUEUE_URL").unwrap_or_default()),
        max_receive_count(queue, receives),
        message_size("queue.size", queue.number(&Name::MaximumMessageSize), MIN_MESSAGE_BYTES),
        fifo(queue),
        encryption("queue.encryption", queue, subject.is_local),
        policy::check("queue.policy", queue.text(&Name::Policy)),
    ]
}

/// Lambda retries a batch while the function is throttled, and the messages must stay hidden for that time.
///
/// Source: <https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html>.
fn visibility(visibility: Option<u64>, timeout: Option<i32>, window: i32) -> Check {
    const NAME: &str = "queue.visibility";
    let (Some(visibility), Some(timeout)) = (visibility, timeout) else {
        return Check::skipped(
            NAME,
            "six times the worker's timeout",
            "the visibility timeout or the timeout is unknown",
        );
    };
    let least = 6 * u64::from(timeout.unsigned_abs()) + u64::from(window.unsigned_abs());
    let expected = format!(
        "at least {least} s: six times the worker's timeout ({timeout} s) plus the window ({window} s)"
    );
    let remedy = format!(
        "raise the outbound queue's visibility timeout to {least} s (`visibility_timeout_seconds` in Terraform), or lower \
         the worker's timeout: messages are delivered twice"
    );
    Rule::new(NAME, expected, remedy).require(visibility >= least, format!("{visibility} s"))
}

/// SQS would delete a message at the end of its retention, before the worker gives it up.
fn retention(retention: Option<u64>, max_age: Option<u64>) -> Check {
    const NAME: &str = "queue.retention";
    let (Some(retention), Some(max_age)) = (retention, max_age) else {
        return Check::skipped(
            NAME,
            "more than MAX_AGE_SECONDS",
            "the retention or MAX_AGE_SECONDS is unknown",
        );
    };
    let expected = format!("more than the worker's MAX_AGE_SECONDS, {}", seconds(max_age));
    let remedy = "raise `retention_seconds`, or lower `max_age_seconds` in Terraform: SQS deletes messages that the worker \
                  still retries";
    Rule::new(NAME, expected, remedy).require(retention > max_age, seconds(retention))
}

fn redrive(queue: &Attributes, dead_letter_url: &str) -> Check {
    let rule = Rule::new(
        "queue.redrive",
        "a redrive policy whose target is the queue in DEAD_LETTER_QUEUE_URL",
        "set the redrive policy (`terraform apply` does): SQS delivers a message that crashes the worker again and again, and \
         `streamer redrive` finds no dead letters",
    );
    match queue.redrive().map(|policy| policy.dead_letter_target_arn) {
        None => rule.failed("no redrive policy"),
        Some(arn) => rule.require(is_arn_of(&arn, dead_letter_url), format!("the target {arn}")),
    }
}

/// A throttled invocation counts as a receive, too, and on a FIFO queue every message that waits behind another.
fn max_receive_count(queue: &Attributes, least: u32) -> Check {
    let rule = Rule::new(
        "queue.max_receive_count",
        format!("at least {least}"),
        format!(
            "set maxReceiveCount of the redrive policy to {least}: messages that were only delayed become dead letters"
        ),
    );
    let Some(policy) = queue.redrive() else { return rule.skipped("no redrive policy") };
    let count = policy.max_receive_count;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok()).unwrap_or_default();
    let holds = count >= u64::from(least);
    // A standard queue's messages are not received while they wait for others.
    if queue.is_fifo() {
        rule.require(holds, count.to_string())
    } else {
        rule.prefer(holds, count.to_string())
    }
}

pub(super) fn message_size(name: &'static str, bytes: Option<u64>, least: u64) -> Check {
    let remedy = format!(
        "set the queue's maximum message size to {least} bytes or more (`max_message_bytes` in Terraform): SQS refuses large messages"
    );
    let rule = Rule::new(name, format!("at least {least} bytes"), remedy);
    match bytes {
        None => rule.skipped("the maximum message size is unknown"),
        Some(bytes) => rule.require(bytes >= least, format!("{bytes} bytes")),
    }
}

/// Senders set a deduplication id, because an intended re-send has the same content. With high throughput, the limit of
/// 300 calls a second applies to each message group.
///
/// Source: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/high-throughput-fifo.html>.
fn fifo(queue: &Attributes) -> Check {
    let rule = Rule::new(
        "queue.fifo",
        "deduplication scope messageGroup, throughput limit perMessageGroupId, no content-based deduplication",
        "set the three attributes as the module does: the queue takes 300 calls a second, or drops messages with equal content",
    );
    if !queue.is_fifo() {
        return rule.skipped("a standard queue");
    }
    let value = |name: &Name| queue.text(name).unwrap_or("default");
    let (scope, limit) = (value(&Name::DeduplicationScope), value(&Name::FifoThroughputLimit));
    let content = queue.is(&Name::ContentBasedDeduplication);
    let holds = scope == "messageGroup" && limit == "perMessageGroupId" && !content;
    let deduplication = if content { ", content-based deduplication" } else { "" };
    rule.prefer(holds, format!("scope {scope}, limit {limit}{deduplication}"))
}

pub(super) fn encryption(name: &'static str, queue: &Attributes, is_local: bool) -> Check {
    let rule = Rule::new(
        name,
        "encryption at rest with SQS's key or one of yours",
        "turn on SSE-SQS, or set `kms_key_arn` in Terraform",
    );
    match queue.text(&Name::KmsMasterKeyId) {
        Some(_) => rule.ok("encrypted with a KMS key"),
        None if is_local => rule.skipped("the stack on this machine does not encrypt"),
        None => {
            let encrypted = queue.is(&Name::SqsManagedSseEnabled);
            rule.prefer(encrypted, if encrypted { "encrypted with SQS's key" } else { "not encrypted" })
        }
    }
}

/// Formats a time, such as `7800 s (2h 10m)`.
pub(super) fn seconds(seconds: u64) -> String {
    format!("{seconds} s ({})", crate::screen::age(Duration::from_secs(seconds)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    const URL: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound";
    const FIFO_URL: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-outbound.fifo";
    const LETTERS: &str = "https://sqs.eu-central-1.amazonaws.com/123456789012/streamer-dead-letters";

    fn with_redrive(url: &str, count: &str) -> Attributes {
        let arn = "arn:aws:sqs:eu-central-1:123456789012:streamer-dead-letters";
        let policy = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{count}}}"#);
        Attributes::of(url, [(Name::RedrivePolicy, &policy)])
    }

    #[test]
    fn visibility_covers_six_timeouts_and_window() {
        assert_eq!(visibility(Some(185), Some(30), 5).verdict, Verdict::Ok);
        let check = visibility(Some(184), Some(30), 5);
        assert_eq!((check.verdict, check.seen.as_str()), (Verdict::Failed, "184 s"));
        assert!(
            check.expected.starts_with("at least 185 s: six times the worker's timeout (30 s)"),
            "{check:?}"
        );
        assert_eq!(visibility(None, Some(30), 0).verdict, Verdict::Skipped);
    }

    #[test]
    fn retention_exceeds_max_age() {
        assert_eq!(retention(Some(7801), Some(7800)).verdict, Verdict::Ok);
        assert_eq!(retention(Some(7800), Some(7800)).verdict, Verdict::Failed);
        assert_eq!(retention(Some(7801), None).verdict, Verdict::Skipped);
    }

    #[test]
    fn redrive_targets_configured_queue() {
        assert_eq!(redrive(&with_redrive(URL, "10"), LETTERS).verdict, Verdict::Ok);
        let other = redrive(&with_redrive(URL, "10"), &LETTERS.replace("streamer-dead", "dead"));
        assert_eq!(other.verdict, Verdict::Failed);
        let account = redrive(&with_redrive(URL, "10"), &LETTERS.replace("123456789012", "210987654321"));
        assert_eq!(account.verdict, Verdict::Failed);
        assert_eq!(redrive(&Attributes::default(), LETTERS).seen, "no redrive policy");
    }

    #[test]
    fn max_receive_count_fails_on_fifo_queues() {
        let verdict = |url, count, least| max_receive_count(&with_redrive(url, count), least).verdict;
        assert_eq!(verdict(URL, "10", 10), Verdict::Ok);
        assert_eq!(verdict(URL, "\"10\"", 10), Verdict::Ok);
        assert_eq!(verdict(URL, "9", 10), Verdict::Warning);
        assert_eq!(verdict(FIFO_URL, "1000", 1000), Verdict::Ok);
        assert_eq!(verdict(FIFO_URL, "999", 1000), Verdict::Failed);
        assert_eq!(max_receive_count(&Attributes::default(), 10).verdict, Verdict::Skipped);
    }

    #[test]
    fn message_size_fits_largest_payload() {
        let verdict = |bytes| message_size("queue.size", bytes, MIN_MESSAGE_BYTES).verdict;
        assert_eq!(verdict(Some(262_144)), Verdict::Ok);
        assert_eq!(verdict(Some(262_143)), Verdict::Failed);
        assert_eq!(verdict(None), Verdict::Skipped);
    }

    #[test]
    fn fifo_queue_has_high_throughput() {
        let attributes = |scope, limit, content| {
            let scope = (Name::DeduplicationScope, scope);
            fifo(&Attributes::of(
                FIFO_URL,
                [scope, (Name::FifoThroughputLimit, limit), (Name::ContentBasedDeduplication, content)],
            ))
            .verdict
        };
        assert_eq!(attributes("messageGroup", "perMessageGroupId", "false"), Verdict::Ok);
        assert_eq!(attributes("queue", "perMessageGroupId", "false"), Verdict::Warning);
        assert_eq!(attributes("messageGroup", "perQueue", "false"), Verdict::Warning);
        assert_eq!(attributes("messageGroup", "perMessageGroupId", "true"), Verdict::Warning);
        assert_eq!(fifo(&Attributes::of(URL, [])).verdict, Verdict::Skipped);
    }

    #[test]
    fn encryption_takes_either_key() {
        let verdict = |name, value, local| {
            encryption("queue.encryption", &Attributes::of(URL, [(name, value)]), local).verdict
        };
        assert_eq!(verdict(Name::SqsManagedSseEnabled, "true", false), Verdict::Ok);
        assert_eq!(verdict(Name::KmsMasterKeyId, "key", false), Verdict::Ok);
        assert_eq!(verdict(Name::SqsManagedSseEnabled, "false", false), Verdict::Warning);
        assert_eq!(verdict(Name::SqsManagedSseEnabled, "false", true), Verdict::Skipped);
    }
}
