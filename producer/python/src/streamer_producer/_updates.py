"""The updates of a request's progress, and its end: which messages are sent, and when. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import replace

from ._errors import MessageError, ProgressError, SendError
from ._ids import new_message_id
from ._message import Message, MessageBuilder
from ._percent import check_percent

#: Default interval between two updates in seconds: 10 updates per second.
MIN_INTERVAL = 0.1

#: Builds an end of a request.
End = Callable[[MessageBuilder], Message]

#: An update: the percentage, and a text for people.
Update = tuple[int, str | None]

#: The messages that a handle sends one after another, each with its time limit in seconds. A `SendError` is thrown in.
Steps = Generator[tuple[Message, float], None, None]


class Updates:
    """The updates of one request, and its end."""

    def __init__(self, to: MessageBuilder, min_interval: float, now: Callable[[], float]) -> None:
        options = to._options
        if options.request is None:
            raise MessageError("no_request", "progress belongs to a request: name it with `request`")
        self._updates = MessageBuilder(replace(options, id=None, keep=None, receipt=False))
        #: All ends have the same id.
        self._ends = MessageBuilder(replace(options, id=options.id or new_message_id()))
        # Reports values that are not valid now, and not with the first update.
        self._ends.acknowledgment()
        self._min_interval = min_interval
        self.now = now
        #: Held while a thread reads and changes the fields below, and not while it sends.
        self._lock = threading.Lock()
        #: When the last update left.
        self._left_at: float | None = None
        self._reached = 0
        self._pending: Update | None = None
        self._is_ended = False

    def add(self, percent: int, message: str | None) -> bool:
        """Makes an update the pending one, and returns whether it may leave now."""
        with self._lock:
            self._check_open()
            check_percent(percent)
            if percent < self._reached:
                values = f"it was at {self._reached} percent, got {percent}"
                raise ProgressError("backwards", f"progress cannot go backwards: {values}")
            # Checks the text.
            self._updates.progress(percent, message)
            self._reached = percent
            self._pending = (percent, message)
            return self._left_at is None or self.now() - self._left_at >= self._min_interval

    def flush(self, deadline: float) -> Steps:
        """Sends the pending update, if there is one."""
        with self._lock:
            update = None if self._is_ended else self._pending
            if update is None:
                return
            self._left_at = self.now()
            message = self._updates.progress(*update)
        yield message, self._left(deadline)
        with self._lock:
            # Unless a newer one has come.
            if self._pending is update:
                self._pending = None

    def end(self, build: End, deadline: float) -> Steps:
        """Sends the pending update, and then an end."""
        self._check_open()
        # Builds the end before the update leaves: an end that is not valid changes nothing.
        build(self._ends)
        # An update that cannot be sent must not use up the time for the end.
        try:
            yield from self.flush(self.now() + self._left(deadline) / 2)
        except SendError:
            with self._lock:
                self._pending = None
        # Built again after the update, so that its `seq` is higher.
        yield build(self._ends), self._left(deadline)
        with self._lock:
            self._is_ended = True

    def _left(self, deadline: float) -> float:
        return max(deadline - self.now(), 0.0)

    def _check_open(self) -> None:
        if self._is_ended:
            raise ProgressError("ended", "the request has ended: begin the progress of another one")


def busy(timeout: float, other: str) -> SendError:
    """Returns the error of a call that waited for another one on the same handle."""
    cause = f"another {other} was sending the progress of this request"
    return SendError("timed_out", f"nothing was sent within {timeout:g} s, because {cause}: call it again")
