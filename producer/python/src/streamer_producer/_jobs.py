"""Sends, their entries and their calls, as the engine keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from ._entry import Entry
from ._errors import SendError
from ._failures import NO_ANSWER, Failure, Result
from ._limits import BATCH_BYTES, BATCH_MESSAGES
from ._timers import Timer

#: An entry, and the index of its message.
Item = tuple[int, Entry]

#: Entries that leave together if they can, and the index of the message of the entry after them.
Packed = tuple[list[Item], int | None]


@dataclass(eq=False, repr=False)
class Job:
    """An entry that is being sent."""

    id: int
    index: int
    entry: Entry
    group: Group
    #: The longest pause before the next attempt.
    pause: float
    #: Why the last attempt failed.
    failure: Failure | None = None
    call: Call | None = None
    #: Its place in the call.
    place: int = 0
    #: The end of the pause before the next attempt.
    timer: Timer | None = None
    is_done: bool = False


@dataclass(eq=False, repr=False)
class Group:
    """Entries of a send that share their capacity."""

    send: Send
    size: int = 0
    jobs: list[Job] = field(default_factory=list)
    #: The number of entries that have not ended.
    left: int = 0
    has_capacity: bool = False


@dataclass(eq=False, repr=False)
class Send:
    """A send of one or many messages."""

    batches: Iterator[Packed]
    #: The indexes of its messages, in order.
    indexes: Sequence[int]
    timeout: float
    deadline: float
    #: Called when all its entries have ended.
    notify: Callable[[], None]
    #: The index of the first message with an entry that has not taken its turn.
    rest: int | None
    groups: dict[Group, None] = field(default_factory=dict)
    #: The error of each message that is not on the queue.
    errors: dict[int, SendError] = field(default_factory=dict)
    timer: Timer | None = None
    is_done: bool = False

    def end(self) -> None:
        """Ends the send."""
        self.is_done = True
        self.notify()

    def fail(self, index: int, error: SendError) -> None:
        """Sets the error of a message. One that also concerns every other message is kept."""
        known = self.errors.get(index)
        if known is None or not known.is_queue_fault:
            self.errors[index] = error


def new_send(items: Iterable[Item], indexes: Sequence[int], timeout: float, now: float, notify: Callable[[], None]) -> Send:
    """Returns a send of the messages with these indexes, which `items` names in order, with their entries."""
    return Send(pack(items), indexes, timeout, now + timeout, notify, indexes[0] if indexes else None)


@dataclass(eq=False, repr=False)
class Call:
    """A call in flight."""

    jobs: list[Job]
    #: The number of entries whose send goes on.
    live: int
    #: The result of each entry, written as soon as it is known.
    results: list[Result] = field(default_factory=list)
    timer: Timer | None = None
    #: Whether the results have been used. A result that is written later has no effect.
    is_settled: bool = False
    #: Ends the call early, if the producer can do that.
    abort: Callable[[], object] | None = None

    def __post_init__(self) -> None:
        self.fail(NO_ANSWER)

    def fail(self, failure: Failure) -> None:
        """Gives all entries the same result."""
        self.results[:] = [failure] * len(self.jobs)

    @property
    def entries(self) -> list[Entry]:
        """The entries of the call."""
        return [job.entry for job in self.jobs]

    @property
    def is_over(self) -> bool:
        """Whether no send waits for the call any more."""
        return self.is_settled or not self.live

    def end_early(self) -> None:
        """Ends the call, if the producer can do that."""
        if self.abort is not None:
            self.abort()


def pack(items: Iterable[Item]) -> Iterator[Packed]:
    """Packs entries into batches, in order, each as full as the limits allow."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_MESSAGES or size + item[1].size > BATCH_BYTES):
            yield batch, item[0]
            batch, size = [], 0
        batch.append(item)
        size += item[1].size
    if batch:
        yield batch, None
