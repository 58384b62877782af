"""Time and threads of a synchronous producer. Tests replace them by virtual ones."""

from __future__ import annotations

import _thread
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue

#: The longest wait in seconds. After it, the caller looks at the time again.
_MAX_WAIT = 3600.0


class Clock:
    """The time of this machine, and its threads."""

    def now(self) -> float:
        """Returns the time in seconds since any moment. It never goes backwards."""
        return time.monotonic()

    def get(self, queue: SimpleQueue[object], seconds: float = math.inf) -> object:
        """Waits for an item of a queue. Returns nothing after this time, or earlier."""
        with suppress(Empty):
            return queue.get(timeout=max(min(seconds, _MAX_WAIT), 0.0))
        return None

    def acquire(self, lock: threading.Lock, seconds: float) -> bool:
        """Acquires a lock, and returns whether that was possible within this time."""
        return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def start(self, function: Callable[[], None]) -> None:
        """Begins a call in a thread of its own. Raises `RuntimeError` if no thread can be started."""
        # It does not keep the process alive: the program waits for the sends that it cares about.
        threading.Thread(target=function, name="streamer-producer", daemon=True).start()

    def start_driver(self, function: Callable[[], None]) -> None:
        """Begins the driver in a thread of its own. Raises `RuntimeError` if no thread can be started."""
        # `Thread.start` is Python code, which the exception of a signal handler can interrupt. This is one step.
        _thread.start_new_thread(function, ())
