"""The errors of the producer. Their texts say what to do, and hold no payload. All but `SendAllError` have a `kind`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ._codes import is_final, is_message_fault

MessageKind = Literal[
    "id",
    "no_recipient",
    "expiry",
    "duration",
    "keep",
    "keep_audience",
    "kept_payload",
    "no_request",
    "percent",
    "text",
    "payload_not_json",
    "payload_too_large",
]
SendKind = Literal["tenant_on_fifo", "refused", "not_configured", "timed_out", "closed"]
ProgressKind = Literal["backwards", "ended"]


class ProducerError(Exception):
    """Any error of this package, except for `TypeError` and `ValueError`, which report wrong arguments."""


class MessageError(ProducerError, ValueError):
    """A message cannot be built: correct the value that the text names."""

    #: The kind of the error.
    kind: MessageKind

    def __init__(self, kind: MessageKind, text: str) -> None:
        # All arguments, so that the error can be pickled.
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])


class SendError(ProducerError):
    """A message is not on the queue for all its recipients.

    With the kind `timed_out`, or after an error of the client itself, the queue may have it nevertheless. With `refused`
    and `not_configured`, the queue may have it for some: a message for more than 100 connections is several on the queue,
    and on a FIFO queue, each connection has its own.

    If SQS has answered the call with an error, that `ClientError` of botocore is the `__cause__`.
    """

    #: The kind of the error.
    kind: SendKind
    #: The code of SQS, such as `InvalidMessageContents`, if the queue refused the message.
    code: str | None

    def __init__(self, kind: SendKind, text: str, code: str | None = None) -> None:
        super().__init__(kind, text, code)
        self.kind = kind
        self.code = code

    def __str__(self) -> str:
        return str(self.args[1])

    @property
    def is_queue_fault(self) -> bool:
        """Whether the queue or the client is at fault instead of the message, and permanently.

        Every other message would fail, too. A program that sends many messages ends at such an error.
        """
        if self.kind == "refused":
            code = self.code or ""
            return is_final(code) and not is_message_fault(code)
        return self.kind in ("not_configured", "closed")


@dataclass(frozen=True)
class Unsent:
    """A message that is not on the queue for all its recipients."""

    #: Its place in the call.
    index: int
    #: Its id.
    id: str
    #: Why it is not on the queue.
    error: SendError


class SendAllError(ProducerError):
    """Some of many messages are not on the queue; the others are."""

    #: The number of messages that were to be sent.
    total: int
    #: The messages that are not on the queue. Send these again.
    unsent: Sequence[Unsent]

    def __init__(self, total: int, unsent: Sequence[Unsent]) -> None:
        super().__init__(total, unsent)
        self.total = total
        self.unsent = unsent

    def __str__(self) -> str:
        first = self.unsent[0]
        counts = f"{len(self.unsent)} of {self.total} messages are not on the queue"
        return f"{counts}; the first: {first.id}: {first.error}"


class ProgressError(ProducerError):
    """An update or an end of a request's progress is not valid at this point."""

    #: The kind of the error.
    kind: ProgressKind

    def __init__(self, kind: ProgressKind, text: str) -> None:
        super().__init__(kind, text)
        self.kind = kind

    def __str__(self) -> str:
        return str(self.args[1])
