"""Calls to the queue, and their results for each entry. Pure: the producers make the calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ._codes import is_message_fault
from ._entry import Entry
from ._failures import NOT_MADE, Answer, failure_of, failure_of_entry
from ._jobs import Call


class Client(Protocol):
    """The method of an SQS client that a producer calls."""

    @property
    def send_message_batch(self) -> Callable[..., Any]:
        """Sends up to 10 messages."""


def is_fifo(url: str) -> bool:
    """Returns whether the queue at a URL is a FIFO queue."""
    return url.endswith(".fifo")


def _request_of(url: str, entries: Sequence[Entry]) -> dict[str, Any]:
    """Returns the arguments of a call of `send_message_batch`."""
    return {"QueueUrl": url, "Entries": [_entry(place, entry) for place, entry in enumerate(entries)]}


def _entry(place: int, entry: Entry) -> dict[str, object]:
    fields: dict[str, object] = {"Id": str(place), "MessageBody": entry.body}
    if entry.group is not None:
        fields["MessageGroupId"] = entry.group
    if entry.deduplication is not None:
        fields["MessageDeduplicationId"] = entry.deduplication
    if entry.trace is not None:
        attribute = {"DataType": "String", "StringValue": entry.trace}
        fields["MessageSystemAttributes"] = {"AWSTraceHeader": attribute}
    return fields


@dataclass(repr=False)
class Attempt:
    """An attempt to send entries, and its answer, which the producer writes into it."""

    entries: Sequence[Entry]
    #: The arguments of `send_message_batch`.
    request: dict[str, Any]
    answer: Answer = NOT_MADE

    def take(self, output: Mapping[str, Any]) -> None:
        """Takes an answer of SQS. An entry that it does not mention counts as not taken."""
        taken = {entry["Id"] for entry in output.get("Successful") or ()}
        failed = {entry["Id"]: entry for entry in output.get("Failed") or ()}
        ids = [str(place) for place in range(len(self.entries))]
        self.answer = [None if id in taken else failure_of_entry(failed.get(id)) for id in ids]

    def fail(self, error: Exception) -> None:
        """Takes an error of the client."""
        self.answer = failure_of(error)


def attempts(url: str, call: Call) -> Iterator[Attempt]:
    """Yields the attempts that a call needs, and writes the result of each entry as soon as it is known.

    One entry may have failed the call as a whole: then each goes alone, so that the others can succeed.
    """
    # The thread of the call may have begun late.
    if call.is_over:
        return
    entries, results = call.entries, call.results
    attempt = Attempt(entries, _request_of(url, entries))
    yield attempt
    answer = attempt.answer
    if isinstance(answer, list):
        results[:] = answer
        return
    if len(entries) == 1 or answer.kind != "refused" or not is_message_fault(answer.code):
        call.fail(answer)
        return
    for place, entry in enumerate(entries):
        if call.is_over:
            return
        attempt = Attempt([entry], _request_of(url, [entry]))
        yield attempt
        results[place] = attempt.answer[0] if isinstance(attempt.answer, list) else attempt.answer
