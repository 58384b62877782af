"""Progress of a request, at a limited rate, from an event loop."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING

from ._errors import SendError
from ._progress import End, Updates

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

    async def update(self, percent: int, message: str | None = None) -> None:
        """Reports how much of the work is done, a whole number from 0 to 100. `message` is for people.

        Returns at once if the update is kept for later, and otherwise when the queue has it. An update that could not be
        sent is kept for the next call.

        Raises `MessageError` or `ProgressError`: a value that is not valid, or lower than before, is ignored. Raises
        `SendError`.
        """
        if self._updates.add(percent, message):
            await self.flush()

    async def flush(self) -> None:
        """Sends the pending update, if there is one, regardless of the rate. Raises `SendError`."""
        async with self._turn:
            await self._flush(self._timeout)

    async def complete(self, result: object) -> None:
        """Ends the request with its result, any JSON."""
        await self._end(lambda to: to.complete(result))

    async def respond(self, data: object) -> None:
        """Ends the request with an answer, any JSON, for a client that expects a `response`."""
        await self._end(lambda to: to.response(data))

    async def fail(self, code: str, message: str, details: object = None) -> None:
        """Ends the request with an error. `code` is for programs, `message` for people, `details` any JSON."""
        await self._end(lambda to: to.error(code, message, details))

    async def __aenter__(self) -> AsyncProgress:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Sends the pending update. The request still needs an end."""
        try:
            await self.flush()
        except SendError:
            # The error of the block says more.
            if error is None:
                raise

    async def _end(self, build: End) -> None:
        async with self._turn:
            self._updates.check_open()
            # Builds the end before the update leaves: an end that is not valid changes nothing.
            build(self._updates.ends)
            # An update that cannot be sent must not use up the time for the end.
            try:
                await self._flush(self._timeout / 2)
            except SendError:
                self._updates.drop_all()
            # Built again after the update, so that its `seq` is higher.
            await self._producer.send(build(self._updates.ends), timeout=self._timeout)
            self._updates.is_ended = True

    async def _flush(self, timeout: float) -> None:
        taken = self._updates.take()
        if taken is None:
            return
        message, update = taken
        await self._producer.send(message, timeout=timeout)
        self._updates.drop(update)
