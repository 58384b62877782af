"""Calls to the queue, and their results for each entry. Pure: the producers make the calls."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from botocore.exceptions import ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError

from ._codes import is_final, is_message_fault, is_refusal
from ._entry import Entry

#: Time limit of the calls for a batch in seconds; after it, the entries without an answer are retried.
CALL_TIMEOUT = 5.0


class Client(Protocol):
    """The method of an SQS client that a producer calls."""

    @property
    def send_message_batch(self) -> Callable[..., Any]:
        """Sends up to 10 messages."""


@dataclass(frozen=True)
class Failure:
    """Why the queue does not have an entry.

    It would refuse it again; or no call can be made, because the client lacks its configuration; or a retry can succeed,
    and the entry may be on the queue.
    """

    kind: Literal["refused", "not_configured", "not_taken"]
    #: A text for people.
    cause: str
    #: The code of SQS, if the entry was refused.
    code: str = ""


NO_ANSWER = Failure("not_taken", f"the queue did not answer within {CALL_TIMEOUT:g} s")

#: The result of an entry: nothing if the queue has it.
Result = Failure | None

#: The answer to a call: the result of each entry, or the failure of the whole call.
Answer = list[Result] | Failure


def is_fifo(url: str) -> bool:
    """Returns whether the queue at a URL is a FIFO queue."""
    return url.endswith(".fifo")


def request_of(url: str, entries: Sequence[Entry]) -> dict[str, object]:
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


def answer_of(output: Mapping[str, Any], entries: int) -> Answer:
    """Returns the results of so many entries. An entry that the output does not mention counts as not taken."""
    taken = {entry["Id"] for entry in output.get("Successful") or ()}
    failed = {entry["Id"]: entry for entry in output.get("Failed") or ()}
    return [None if str(place) in taken else _result_of(failed.get(str(place))) for place in range(entries)]


def _result_of(failed: Mapping[str, Any] | None) -> Failure:
    if failed is None:
        return Failure("not_taken", "the queue's answer does not mention it")
    code, message = str(failed.get("Code", "")), str(failed.get("Message", ""))
    is_refused = is_refusal(code, failed.get("SenderFault") is True)
    return Failure("refused" if is_refused else "not_taken", f"{code}: {message}", code)


def failure_of(error: Exception) -> Failure:
    """Returns the failure of a whole call. The text of an error that is no answer of SQS is left out."""
    if isinstance(error, ClientError):
        details: Mapping[str, Any] = error.response.get("Error", {})
        # The second is the code before `x-amzn-query-error` replaces it.
        codes = [str(details.get("Code", "")), str(details.get("QueryErrorCode", ""))]
        final = next((code for code in codes if is_final(code)), None)
        code = codes[0] if final is None else final
        return Failure("not_taken" if final is None else "refused", f"{code}: {details.get('Message', '')}", code)
    if isinstance(error, NoRegionError):
        return Failure("not_configured", "there is no Region")
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        return Failure("not_configured", "there are no credentials")
    return Failure("not_taken", f"no answer: {type(error).__name__}")


def attempts(
    entries: Sequence[Entry], results: list[Result], is_over: Callable[[], bool]
) -> Generator[Sequence[Entry], Answer, None]:
    """Yields the entries of each call that a batch needs, and writes the result of each entry as soon as it is known.

    One entry may have failed a call as a whole: then each goes alone, so that the others can succeed.
    """
    answer = yield entries
    if isinstance(answer, list):
        results[:] = answer
        return
    if len(entries) == 1 or answer.kind != "refused" or not is_message_fault(answer.code):
        results[:] = [answer] * len(entries)
        return
    for place, entry in enumerate(entries):
        if is_over():
            return
        answer = yield [entry]
        results[place] = answer[0] if isinstance(answer, list) else answer
