//! Facts about SQS: how a FIFO queue is recognised, which errors a retry can resolve, and how an entry of a batch is
//! built.

#[cfg(feature = "aws-sdk-sqs")]
use aws_sdk_sqs::{
    error::BuildError,
    types::{
        MessageSystemAttributeNameForSends, MessageSystemAttributeValue, SendMessageBatchRequestEntry,
        builders::SendMessageBatchRequestEntryBuilder,
    },
};

/// The end of every FIFO queue's name, and so of its URL.
///
/// Source: "FIFO queue and message identifiers" in
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/FIFO-queue-message-identifiers.html>.
pub const FIFO_SUFFIX: &str = ".fifo";

/// Returns whether the queue with this URL or name is a FIFO queue.
#[must_use]
pub fn is_fifo(queue: &str) -> bool {
    queue.ends_with(FIFO_SUFFIX)
}

/// Returns whether an ARN is that of the queue at a URL. Both end with the account and the queue's name, whichever endpoint
/// the URL has.
#[must_use]
pub fn is_arn_of(arn: &str, url: &str) -> bool {
    let ends = |text: &str, separator| {
        let mut ends = text.trim_end_matches('/').rsplit(separator).take(2).map(str::to_owned);
        Some((ends.next()?, ends.next()?))
    };
    let queue = ends(url, '/');
    queue.is_some() && queue == ends(arn, ':')
}

/// Returns a builder for an entry of a `SendMessageBatch` call, with the message group and the X-Ray trace header of
/// the message, if it has them.
///
/// # Errors
/// [`BuildError`] if the SDK refuses the trace header.
#[cfg(feature = "aws-sdk-sqs")]
pub fn batch_entry(
    id: usize,
    body: impl Into<String>,
    group: Option<&str>,
    trace: Option<&str>,
) -> Result<SendMessageBatchRequestEntryBuilder, BuildError> {
    let entry = SendMessageBatchRequestEntry::builder()
        .id(id.to_string())
        .message_body(body)
        .set_message_group_id(group.map(str::to_owned));
    let Some(trace) = trace else { return Ok(entry) };
    let value = MessageSystemAttributeValue::builder().data_type("String").string_value(trace).build()?;
    Ok(entry.message_system_attributes(MessageSystemAttributeNameForSends::AwsTraceHeader, value))
}

/// Returns whether a retry of this entry of a batch would fail again. SQS reports throttling as the sender's fault,
/// too, although a retry can succeed.
#[must_use]
pub fn is_refusal(code: &str, message: &str, sender_fault: bool) -> bool {
    is_final(code, message) || (sender_fault && !is_throttling(code))
}

/// Returns whether the queue would answer the same call with the same error again, because the message, the call, the
/// caller or the queue is wrong. Every other error is transient. Some codes have a prefix
/// (`AWS.SimpleQueueService.`, `KMS.`).
///
/// Clock skew is no such error: a Lambda may have been frozen after it signed the call, and the SDK learns the clock's
/// offset from the answer.
///
/// Sources: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>,
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>, and the codes in the
/// service's model.
#[must_use]
pub fn is_final(code: &str, message: &str) -> bool {
    const FINAL: [&str; 21] = [
        "AccessDenied",
        "AccessDeniedException",
        // Of KMS, which encrypts the queue.
        "DisabledException",
        "InvalidKeyUsageException",
        "InvalidStateException",
        "NotFoundException",
        "InvalidAction",
        "InvalidAddress",
        "InvalidClientTokenId",
        "InvalidSecurity",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "NonExistentQueue",
        "NotAuthorized",
        "OptInRequired",
        "QueueDoesNotExist",
        "SignatureDoesNotMatch",
        "TooManyEntriesInBatchRequest",
        "UnrecognizedClientException",
        "UnsupportedOperation",
        "BatchEntryIdsNotDistinct",
    ];
    (FINAL.contains(&without_prefix(code)) && !is_clock_skew(code, message)) || is_message_fault(code)
}

/// Returns whether an error says that a signature has expired or is not yet valid, by the clock of AWS: they differ by
/// more than 15 minutes.
///
/// Source: "Troubleshoot Signature Version 4" in
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html>.
fn is_clock_skew(code: &str, message: &str) -> bool {
    ["InvalidSignatureException", "SignatureDoesNotMatch"].contains(&without_prefix(code))
        && ["Signature expired", "Signature not yet current"].iter().any(|begin| message.starts_with(begin))
}

/// Returns whether one message of a batch may have caused the error of the whole call.
#[must_use]
pub fn is_message_fault(code: &str) -> bool {
    const MESSAGE_FAULTS: [&str; 5] = [
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MissingParameter",
        "ValidationError",
    ];
    MESSAGE_FAULTS.contains(&without_prefix(code))
}

fn is_throttling(code: &str) -> bool {
    ["RequestThrottled", "Throttling", "ThrottlingException"].contains(&without_prefix(code))
}

fn without_prefix(code: &str) -> &str {
    code.rsplit('.').next().unwrap_or(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_faults_are_final_unless_throttled() {
        assert!(is_refusal("ReceiptHandleIsInvalid", "", true) && !is_refusal("InternalError", "", false));
        assert!(!is_refusal("AWS.SimpleQueueService.RequestThrottled", "", true));
        assert!(is_refusal("KMS.DisabledException", "", false));
    }

    #[test]
    fn clock_skew_is_transient() {
        let expired = "Signature expired: 20261130T100000Z is now earlier than 20261130T104500Z";
        for code in ["InvalidSignatureException", "SignatureDoesNotMatch"] {
            assert!(
                !is_final(code, expired) && !is_final(code, "Signature not yet current: 20261130T120000Z")
            );
            assert!(is_final(code, "The request signature we calculated does not match"));
        }
        assert!(is_final("AccessDenied", expired));
    }

    #[test]
    fn fifo_queues_are_recognised_by_name() {
        for queue in ["outbound.fifo", "https://sqs.eu-central-1.amazonaws.com/123456789012/outbound.fifo"] {
            assert!(is_fifo(queue), "{queue}");
        }
        assert!(!is_fifo("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound"));
    }
}
