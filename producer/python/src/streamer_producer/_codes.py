"""The error codes of SQS: which errors a retry can resolve. Codes may have a prefix, such as `AWS.SimpleQueueService.`."""

#: Codes of errors that SQS would give again to the same call.
_FINAL = frozenset(
    {
        "AccessDenied",
        "AccessDeniedException",
        # Of KMS, which encrypts the queue.
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
    }
)

#: Codes of final errors of a call that one of its messages may have caused.
_MESSAGE_FAULTS = frozenset(
    {
        "BatchRequestTooLong",
        "InvalidMessageContents",
        "InvalidParameterValue",
        "MissingParameter",
        "ValidationError",
    }
)

#: Codes of signature errors, which are not final if the clock of this machine was wrong: the next call has a new signature.
_SIGNATURE = frozenset({"InvalidSignatureException", "SignatureDoesNotMatch"})

#: How the messages of signature errors begin if the clock was skewed.
_CLOCK_SKEW = ("Signature expired", "Signature not yet current")

_THROTTLING = frozenset({"RequestThrottled", "Throttling", "ThrottlingException"})


def _without_prefix(code: str) -> str:
    return code.rpartition(".")[2]


def is_message_fault(code: str) -> bool:
    """Returns whether one message of a call may have caused the error of the whole call."""
    return _without_prefix(code) in _MESSAGE_FAULTS


def is_final(code: str, message: str = "") -> bool:
    """Returns whether the queue would answer the same call with the same error again. `message` is SQS's text."""
    if _without_prefix(code) in _SIGNATURE and message.startswith(_CLOCK_SKEW):
        return False
    return _without_prefix(code) in _FINAL or is_message_fault(code)


def is_refusal(code: str, sender_fault: bool, message: str) -> bool:
    """Returns whether a retry of an entry of a call would fail again.

    SQS reports throttling as the sender's fault, too.
    """
    return is_final(code, message) or (sender_fault and _without_prefix(code) not in _THROTTLING)
