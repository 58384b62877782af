"""The entries that are being sent, and the choice of the next batch. Pure: the caller passes the time, and there is no I/O.

An entry takes its turn when its sender asks for it. It is *reserved* until there is capacity for it, then *waiting*, *in
flight* in a call, or *backing off* between two attempts. Entries with the same key keep their order: an entry leaves when
all earlier ones have completed, or behind them in the same call. With strict order, they never share a call, because a
queue may take the second entry of a call and fail the first.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ._limits import BATCH_BYTES, BATCH_MESSAGES

#: Maximum number of calls in flight.
MAX_CALLS = 8

#: The longest time that an entry waits for a batch to fill while calls are in flight, in seconds.
LINGER = 0.020

T = TypeVar("T")

_RESERVED, _WAITING, _IN_FLIGHT, _ABANDONED, _BACKING_OFF = range(5)


@dataclass
class _Slot(Generic[T]):
    key: Hashable | None
    size: int
    state: int = _RESERVED
    #: When the entry no longer waits for its batch to fill.
    due: float = 0.0
    content: T | None = None


def _remove(ids: list[int], id: int) -> None:
    """Removes an id from a sorted list, if it is in there."""
    place = bisect_left(ids, id)
    if place < len(ids) and ids[place] == id:
        del ids[place]


class SendBuffer(Generic[T]):
    """The entries that are being sent."""

    def __init__(self, strict_order: bool) -> None:
        self._strict_order = strict_order
        self._slots: dict[int, _Slot[T]] = {}
        #: The entries of each key, in order.
        self._by_key: dict[Hashable, list[int]] = {}
        #: The waiting entries that are the first of their key, or have no key, in order.
        self._ready: list[int] = []
        self._calls = 0
        self._next_id = 0

    @property
    def calls(self) -> int:
        """The number of calls in flight."""
        return self._calls

    def reserve(self, key: Hashable | None, size: int) -> int:
        """Adds a reserved entry behind all others, and returns its id."""
        id = self._next_id
        self._next_id += 1
        self._slots[id] = _Slot(key, size)
        if key is not None:
            self._by_key.setdefault(key, []).append(id)
        return id

    def enqueue(self, id: int, content: T, due: float) -> None:
        """Makes an entry wait that was reserved or backing off. When it is due, its batch leaves although not full."""
        slot = self._slots.get(id)
        if slot is None:
            return
        slot.state, slot.due, slot.content = _WAITING, due, content
        self._update_ready(id, slot.key)

    def next(self, now: float) -> list[T] | float | None:
        """Begins a call and returns its entries.

        Otherwise, returns the time at which the next batch leaves although it is not full, or nothing if that depends
        on another event.
        """
        if self._calls >= MAX_CALLS or not self._ready:
            return None
        ids, is_full = self._select()
        if self._calls and not is_full:
            at = min(self._slots[id].due for id in ids)
            if now < at:
                return at
        self._calls += 1
        return [self._start(id) for id in ids]

    def _select(self) -> tuple[list[int], bool]:
        """Returns the entries that may leave together, and whether the batch is full."""
        ids: list[int] = []
        size = 0
        # Of each key, the first entry; once that is selected, the next.
        candidates = self._ready[:BATCH_MESSAGES]
        while candidates:
            id = candidates.pop(0)
            slot = self._slots[id]
            if size + slot.size > BATCH_BYTES and ids:
                return ids, True
            size += slot.size
            ids.append(id)
            if len(ids) == BATCH_MESSAGES:
                return ids, True
            following = None if self._strict_order else self._after(id, slot.key)
            if following is not None and self._slots[following].state == _WAITING:
                insort(candidates, following)
        return ids, False

    def _after(self, id: int, key: Hashable | None) -> int | None:
        """Returns the next entry of a key."""
        ids = [] if key is None else self._by_key[key]
        place = bisect_right(ids, id)
        return ids[place] if place < len(ids) else None

    def _start(self, id: int) -> T:
        slot = self._slots[id]
        content, slot.content, slot.state = slot.content, None, _IN_FLIGHT
        self._update_ready(id, slot.key)
        # Only waiting entries are ready, and these have their content.
        assert content is not None
        return content

    def complete(self, id: int, retry: bool) -> None:
        """Ends an attempt to send an entry."""
        slot = self._slots.get(id)
        if retry and slot is not None and slot.state == _IN_FLIGHT:
            slot.state = _BACKING_OFF
        else:
            self._remove(id)

    def end_call(self) -> None:
        """Ends a call."""
        self._calls -= 1

    def cancel(self, id: int) -> None:
        """Removes an entry whose send has ended.

        An entry in flight is removed when its call completes, so that later entries of its key do not overtake it.
        Without effect for an entry that has completed.
        """
        slot = self._slots.get(id)
        if slot is None or slot.state == _ABANDONED:
            return
        if slot.state == _IN_FLIGHT:
            slot.state = _ABANDONED
        else:
            self._remove(id)

    def _remove(self, id: int) -> None:
        slot = self._slots.pop(id, None)
        if slot is None:
            return
        if slot.key is not None:
            _remove(self._by_key[slot.key], id)
        self._update_ready(id, slot.key)

    def _update_ready(self, id: int, key: Hashable | None) -> None:
        """Updates the ready entries after a change of an entry."""
        _remove(self._ready, id)
        first: int | None = id
        if key is not None:
            ids = self._by_key[key]
            first = ids[0] if ids else None
            if first is None:
                del self._by_key[key]
        slot = None if first is None else self._slots.get(first)
        if first is None or slot is None or slot.state != _WAITING:
            return
        place = bisect_left(self._ready, first)
        if place == len(self._ready) or self._ready[place] != first:
            self._ready.insert(place, first)
