"""Sends, their entries and their calls, as the engine keeps them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from ._entry import Entry
from ._errors import SendError
from ._limits import BATCH_BYTES, BATCH_MESSAGES
from ._queue import Result
from ._timers import Timer

#: An entry, and the index of its message.
Item = tuple[int, Entry]


@dataclass(eq=False)
class Job:
    """An entry that is being sent."""

    id: int
    index: int
    entry: Entry
    group: Group
    #: The longest pause before the next attempt.
    pause: float
    #: Why the last attempt failed.
    cause: str | None = None
    call: Call | None = None
    #: The end of the pause before the next attempt.
    timer: Timer | None = None
    is_done: bool = False


@dataclass(eq=False)
class Group:
    """Entries of a send that share their capacity."""

    send: Send
    size: int = 0
    jobs: list[Job] = field(default_factory=list)
    #: The number of entries that have not ended.
    left: int = 0
    has_capacity: bool = False


@dataclass(eq=False)
class Send:
    """A send of one or many messages."""

    batches: Iterator[list[Item]]
    timeout: float
    deadline: float
    #: Called when all its entries have ended.
    notify: Callable[[], None]
    groups: dict[Group, None] = field(default_factory=dict)
    #: The error of each message that is not on the queue.
    errors: dict[int, SendError] = field(default_factory=dict)
    timer: Timer | None = None
    is_done: bool = False


@dataclass(eq=False)
class Call:
    """A call in flight."""

    jobs: list[Job]
    #: The result of each entry, written as soon as it is known.
    results: list[Result]
    #: The number of entries whose send goes on.
    live: int
    timer: Timer | None = None
    #: Whether the results have been used. A result that is written later has no effect.
    is_settled: bool = False
    #: Ends the call early, if the producer can do that.
    abort: Callable[[], object] | None = None

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


def pack(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Packs entries into batches, in order, each as full as the limits allow."""
    batch: list[Item] = []
    size = 0
    for item in items:
        if batch and (len(batch) == BATCH_MESSAGES or size + item[1].size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(item)
        size += item[1].size
    if batch:
        yield batch
