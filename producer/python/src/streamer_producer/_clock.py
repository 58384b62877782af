"""Time and threads of a synchronous producer. Tests replace them by virtual ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

#: The longest wait in seconds. After it, the caller looks at the time again.
_MAX_WAIT = 3600.0


class Clock:
    """The time of this machine, and its threads."""

    def now(self) -> float:
        """Returns the time in seconds since any moment. It never goes backwards."""
        return time.monotonic()

    def wait(self, event: threading.Event, seconds: float | None) -> None:
        """Waits until the event is set, at most for this time."""
        event.wait(None if seconds is None else max(min(seconds, _MAX_WAIT), 0.0))

    def acquire(self, lock: threading.Lock, seconds: float) -> bool:
        """Acquires a lock, and returns whether that was possible within this time."""
        return lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def start(self, function: Callable[[], None]) -> None:
        """Begins a function in a thread of its own. Raises `RuntimeError` if no thread can be started."""
        # It does not keep the process alive: the program waits for the sends that it cares about.
        threading.Thread(target=function, name="streamer-producer", daemon=True).start()
