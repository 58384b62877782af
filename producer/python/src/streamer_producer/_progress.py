"""Progress of a request, at a limited rate."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ._checks import check_seconds
from ._clock import Clock
from ._errors import SendError
from ._updates import End, Steps, Updates, busy

if TYPE_CHECKING:
    from ._producer import Producer


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

    Messages of several threads are sent one after another. Each call ends within the time limit, also if it has to wait
    for another thread: then it raises a `SendError` of the kind `timed_out`.

    After an interrupt, such as `KeyboardInterrupt`, in a call, begin another handle: this one may stay busy.

    If the block of `with` raises an error, its end sends nothing: the pending update leaves with the next call, such as
    `fail`.
    """

    def __init__(self, producer: Producer, updates: Updates, timeout: float, clock: Clock) -> None:
        self._producer = producer
        self._updates = updates
        self._timeout = timeout
        self._clock = clock
        #: Held while a message is being sent, so that messages are sent one after another.
        self._turn = threading.Lock()

    def update(self, percent: int, message: str | None = None) -> None:
        """Reports how much of the work is done, a whole number from 0 to 100. `message` is for people.

        Returns at once if the update is kept for later, and otherwise when the queue has it. An update that could not be
        sent is kept for the next call.

        Raises `MessageError` or `ProgressError`: a value that is not valid, or lower than before, is ignored. Raises
        `SendError`.
        """
        if self._updates.add(percent, message):
            self.flush()

    def flush(self) -> None:
        """Sends the pending update, if there is one, regardless of the rate. Raises `SendError`."""
        self._run(self._updates.flush, self._timeout)

    def complete(self, result: object, *, timeout: float | None = None) -> None:
        """Ends the request with its result, any JSON.

        `timeout` is the time that the end may take in seconds, including that of the pending update. The default is that
        of the handle.
        """
        self._end(lambda to: to.complete(result), timeout)

    def respond(self, data: object, *, timeout: float | None = None) -> None:
        """Ends the request with an answer, any JSON, for a client that expects a `response`."""
        self._end(lambda to: to.response(data), timeout)

    def fail(self, code: str, message: str, details: object = None, *, timeout: float | None = None) -> None:
        """Ends the request with an error. `code` is for programs, `message` for people, `details` any JSON."""
        self._end(lambda to: to.error(code, message, details), timeout)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sends the pending update, unless the block has raised an error. The request still needs an end."""
        if error is None:
            self.flush()

    def _end(self, build: End, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        self._run(lambda deadline: self._updates.end(build, deadline), limit)

    def _run(self, steps_until: Callable[[float], Steps], timeout: float) -> None:
        deadline = self._clock.now() + timeout
        if not self._clock.acquire(self._turn, timeout):
            raise busy(timeout, "thread")
        try:
            self._send(steps_until(deadline))
        finally:
            self._turn.release()

    def _send(self, steps: Steps) -> None:
        step = next(steps, None)
        while step is not None:
            message, seconds = step
            try:
                self._producer.send(message, timeout=seconds)
            except SendError as error:
                step = steps.throw(error)
            else:
                step = next(steps, None)
