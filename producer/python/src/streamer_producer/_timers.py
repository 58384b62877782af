"""Timers of a pure state machine: functions that are due at a time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

#: The number of cancelled timers that may remain beside the live ones.
_MAX_CANCELLED = 64


class Timer:
    """A function that is due at a time."""

    __slots__ = ("at", "number", "function")

    def __init__(self, at: float, number: int, function: Callable[[float], None]) -> None:
        self.at = at
        self.number = number
        #: Nothing, if the timer is cancelled.
        self.function: Callable[[float], None] | None = function

    def __lt__(self, other: Timer) -> bool:
        return (self.at, self.number) < (other.at, other.number)


class Timers:
    """Timers, in the order of their times."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._added = 0
        self._cancelled = 0

    def add(self, at: float, function: Callable[[float], None]) -> Timer:
        """Adds a function that is due at a time."""
        self._added += 1
        timer = Timer(at, self._added, function)
        heapq.heappush(self._heap, timer)
        return timer

    def cancel(self, timer: Timer) -> None:
        """Cancels a timer. Without effect for one that was due."""
        if timer.function is None:
            return
        timer.function = None
        self._cancelled += 1
        if self._cancelled > _MAX_CANCELLED + len(self._heap) // 2:
            self._heap = [timer for timer in self._heap if timer.function is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0

    def next(self) -> float:
        """Returns the time of the next timer, or infinity."""
        while self._heap and self._heap[0].function is None:
            heapq.heappop(self._heap)
            self._cancelled -= 1
        return self._heap[0].at if self._heap else math.inf

    def run(self, now: float) -> None:
        """Calls the functions that are due."""
        while self.next() <= now:
            timer = heapq.heappop(self._heap)
            function, timer.function = timer.function, None
            # `next` has removed the cancelled ones.
            assert function is not None
            function(now)
