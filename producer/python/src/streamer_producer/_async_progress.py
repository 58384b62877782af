"""Progress of a request, at a limited rate, from an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from ._checks import check_seconds
from ._errors import SendError
from ._updates import End, Steps, Updates, busy

if TYPE_CHECKING:
    from ._async_producer import AsyncProducer


class AsyncProgress:
    """The progress of one request for one audience: updates, and then one end. It behaves as `Progress` does."""

    def __init__(self, producer: AsyncProducer, updates: Updates, timeout: float) -> None:
        self._producer = producer
        self._updates = updates
        self._timeout = timeout
        #: Held while a message is being sent, so that messages are sent one after another.
        self._turn = asyncio.Lock()
        #: The tasks that hold it, or wait for it.
        self._callers = 0

    async def update(self, percent: int, message: str | None = None) -> None:
        """Reports how much of the work is done, as `Progress.update` does."""
        if self._updates.add(percent, message):
            await self.flush()

    async def flush(self) -> None:
        """Sends the pending update, if there is one, regardless of the rate. Raises `SendError`."""
        await self._run(self._updates.flush, self._timeout)

    async def complete(self, result: object, *, timeout: float | None = None) -> None:
        """Ends the request with its result, any JSON."""
        await self._end(lambda to: to.complete(result), timeout)

    async def respond(self, data: object, *, timeout: float | None = None) -> None:
        """Ends the request with an answer, as `Progress.respond` does."""
        await self._end(lambda to: to.response(data), timeout)

    async def fail(self, code: str, message: str, details: object = None, *, timeout: float | None = None) -> None:
        """Ends the request with an error, as `Progress.fail` does."""
        await self._end(lambda to: to.error(code, message, details), timeout)

    async def __aenter__(self) -> AsyncProgress:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sends the pending update, unless the block has raised an error. The request still needs an end."""
        if error is None:
            await self.flush()

    async def _end(self, build: End, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        await self._run(lambda deadline: self._updates.end(build, deadline), limit)

    async def _run(self, steps_until: Callable[[float], Steps], timeout: float) -> None:
        deadline = self._updates.now() + timeout
        self._callers += 1
        try:
            await self._take_turn(timeout)
            try:
                await self._send(steps_until(deadline))
            finally:
                self._turn.release()
        finally:
            self._callers -= 1

    async def _take_turn(self, timeout: float) -> None:
        if self._callers == 1:
            # At once.
            await self._turn.acquire()
            return
        try:
            await asyncio.wait_for(self._turn.acquire(), timeout)
        except asyncio.TimeoutError:
            raise busy(timeout, "task") from None

    async def _send(self, steps: Steps) -> None:
        step = next(steps, None)
        while step is not None:
            message, seconds = step
            try:
                await self._producer.send(message, timeout=seconds)
            except SendError as error:
                step = steps.throw(error)
            else:
                step = next(steps, None)
