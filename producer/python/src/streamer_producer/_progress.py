"""Progress of a request, at a limited rate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING

from ._errors import MessageError, ProgressError, SendError
from ._ids import new_message_id
from ._message import Message, MessageBuilder
from ._percent import check_percent

if TYPE_CHECKING:
    from ._producer import Producer

#: Default interval between two updates in seconds: 10 updates per second.
MIN_INTERVAL = 0.1

#: Builds an end of a request.
End = Callable[[MessageBuilder], Message]

#: An update: the percentage, and a text for people.
Update = tuple[int, str | None]


class Updates:
    """The updates of one request, and when they may leave. No I/O."""

    def __init__(self, to: MessageBuilder, min_interval: float, now: Callable[[], float]) -> None:
        options = to._options
        if options.request is None:
            raise MessageError("no_request", "progress belongs to a request: name it with `request`")
        self._updates = MessageBuilder(replace(options, id=None, keep=None, receipt=False))
        #: All ends have the same id.
        self.ends = MessageBuilder(replace(options, id=options.id or new_message_id()))
        # Reports values that are not valid now, and not with the first update.
        self.ends.acknowledgment()
        self._min_interval = min_interval
        self._now = now
        #: When the last update left.
        self._left_at: float | None = None
        self._reached = 0
        self._pending: Update | None = None
        self.is_ended = False

    def add(self, percent: int, message: str | None) -> bool:
        """Makes an update the pending one, and returns whether it may leave now."""
        self.check_open()
        check_percent(percent)
        if percent < self._reached:
            values = f"it was at {self._reached} percent, got {percent}"
            raise ProgressError("backwards", f"progress cannot go backwards: {values}")
        # Checks the text.
        self._updates.progress(percent, message)
        self._reached = percent
        self._pending = (percent, message)
        return self._left_at is None or self._now() - self._left_at >= self._min_interval

    def take(self) -> tuple[Message, Update] | None:
        """Returns the pending update, which leaves now."""
        update = self._pending
        if update is None or self.is_ended:
            return None
        self._left_at = self._now()
        return self._updates.progress(*update), update

    def drop(self, update: Update | None) -> None:
        """Removes an update, unless a newer one has come."""
        if self._pending is update:
            self._pending = None

    def drop_all(self) -> None:
        """Removes the pending update."""
        self._pending = None

    def check_open(self) -> None:
        """Raises an error if the request has ended."""
        if self.is_ended:
            raise ProgressError("ended", "the request has ended: begin the progress of another one")


class Progress:
    """The progress of one request for one audience: updates, and then one end.

    The program may call `update` at any rate. The first update leaves at once. Of the updates within 100 ms of the last
    one that left, only the latest is kept. It leaves with the first call after the 100 ms, with `flush`, at the end of
    `with`, or before the end of the request. So at most 10 updates per second leave, and the last is never dropped. There
    is no timer: before a pause, call `flush`.

    `complete`, `fail` and `respond` end the progress, after every update. An end that has failed can be repeated; all
    ends have the same id. If the builder keeps the message or asks for a receipt, that applies to the end, and not to the
    updates.

    An end first sends the pending update. If that fails within half the time limit, the end drops the update.
    """

    def __init__(self, producer: Producer, updates: Updates, timeout: float) -> None:
        self._producer = producer
        self._updates = updates
        self._timeout = timeout
        #: Held for a moment.
        self._state = threading.Lock()
        #: Held while a message is being sent, so that messages are sent one after another.
        self._turn = threading.Lock()

    def update(self, percent: int, message: str | None = None) -> None:
        """Reports how much of the work is done, a whole number from 0 to 100. `message` is for people.

        Returns at once if the update is kept for later, and otherwise when the queue has it. An update that could not be
        sent is kept for the next call.

        Raises `MessageError` or `ProgressError`: a value that is not valid, or lower than before, is ignored. Raises
        `SendError`.
        """
        with self._state:
            may_leave = self._updates.add(percent, message)
        if may_leave:
            self.flush()

    def flush(self) -> None:
        """Sends the pending update, if there is one, regardless of the rate. Raises `SendError`."""
        with self._turn:
            self._flush(self._timeout)

    def complete(self, result: object) -> None:
        """Ends the request with its result, any JSON."""
        self._end(lambda to: to.complete(result))

    def respond(self, data: object) -> None:
        """Ends the request with an answer, any JSON, for a client that expects a `response`."""
        self._end(lambda to: to.response(data))

    def fail(self, code: str, message: str, details: object = None) -> None:
        """Ends the request with an error. `code` is for programs, `message` for people, `details` any JSON."""
        self._end(lambda to: to.error(code, message, details))

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sends the pending update. The request still needs an end."""
        try:
            self.flush()
        except SendError:
            # The error of the block says more.
            if error is None:
                raise

    def _end(self, build: End) -> None:
        with self._turn:
            self._updates.check_open()
            # Builds the end before the update leaves: an end that is not valid changes nothing.
            build(self._updates.ends)
            # An update that cannot be sent must not use up the time for the end.
            try:
                self._flush(self._timeout / 2)
            except SendError:
                with self._state:
                    self._updates.drop_all()
            # Built again after the update, so that its `seq` is higher.
            self._producer.send(build(self._updates.ends), timeout=self._timeout)
            with self._state:
                self._updates.is_ended = True

    def _flush(self, timeout: float) -> None:
        with self._state:
            taken = self._updates.take()
        if taken is None:
            return
        message, update = taken
        self._producer.send(message, timeout=timeout)
        with self._state:
            self._updates.drop(update)
