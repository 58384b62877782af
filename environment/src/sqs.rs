//! SQS's error codes: which failures a retry can mend.

/// Whether a retry of one entry of a batch is in vain. SQS reports throttling as the sender's fault, too.
#[must_use]
pub fn is_refusal(code: &str, sender_fault: bool) -> bool {
    is_final(code) || (sender_fault && !is_throttling(code))
}

/// Whether the queue would answer the same call with the same error again: the message, the call, the caller or the
/// queue is wrong. Every other error is transient. Some codes have a prefix (`AWS.SimpleQueueService.`, `KMS.`).
///
/// Sources: <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html>,
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/CommonErrors.html>, and the codes in the
/// service's model.
#[must_use]
pub fn is_final(code: &str) -> bool {
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
    FINAL.contains(&without_prefix(code)) || is_of_a_message(code)
}

/// Whether an error may be one message's fault.
#[must_use]
pub fn is_of_a_message(code: &str) -> bool {
    const OF_A_MESSAGE: [&str; 5] = [
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MissingParameter",
        "ValidationError",
    ];
    OF_A_MESSAGE.contains(&without_prefix(code))
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
    fn a_sender_fault_is_final_unless_throttled() {
        assert!(is_refusal("ReceiptHandleIsInvalid", true) && !is_refusal("InternalError", false));
        assert!(!is_refusal("AWS.SimpleQueueService.RequestThrottled", true));
        assert!(is_refusal("KMS.DisabledException", false));
    }
}
