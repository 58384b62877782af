"""The sends of the tasks of one event loop, and their calls, each in a task of its own."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from functools import partial
from inspect import isawaitable

from ._batch import Batch
from ._engine import Engine
from ._failures import Failure
from ._jobs import Call
from ._queue import Attempt, Client, attempts, is_fifo

_WRONG_CLIENT = Failure("not_configured", "its answer is not awaitable", remedy="use Producer for such a client")


class Tasks:
    """The sends of the tasks of one event loop, and their calls."""

    def __init__(self, url: str, client: Client, loop: asyncio.AbstractEventLoop, random: Callable[[], float]) -> None:
        self.loop = loop
        self._url = url
        self._client = client
        self._engine = Engine(is_fifo(url), random)
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._is_scheduled = False
        self._closers: set[asyncio.Future[None]] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent, and no call is in flight."""
        return self._engine.is_idle

    async def send(self, batch: Batch, timeout: float) -> None:
        """Sends messages. The error of each that is not on the queue is in the batch."""
        done: asyncio.Future[None] = self.loop.create_future()

        def notify() -> None:
            if not done.done():
                done.set_result(None)

        send = batch.send(timeout, self.loop.time(), notify)
        self._engine.begin(send, self.loop.time())
        self._schedule()
        try:
            await done
        finally:
            # If the caller was cancelled, or its loop was closed.
            if not send.is_done and not self.loop.is_closed():
                self._engine.give_up(send, self.loop.time())
                self._schedule()
            self._wake_closers()
        batch.errors.update(send.errors)

    async def wait(self) -> None:
        """Waits until nothing is being sent."""
        while not self.is_idle:
            ended: asyncio.Future[None] = self.loop.create_future()
            self._closers.add(ended)
            await ended

    def _schedule(self) -> None:
        """Begins calls after the current sends, so that all that are sent at the same time can share a call."""
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._begin)

    def _begin(self) -> None:
        """Begins the calls that are due, and waits for the time at which the next one is."""
        self._is_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in self._engine.poll(self.loop.time()):
            task = self.loop.create_task(self._make(call))
            call.abort = task.cancel
            # The loop itself holds tasks weakly.
            self._calls.add(task)
            task.add_done_callback(partial(self._end_call, call))
        wake_at = self._engine.wake_at()
        if wake_at < math.inf:
            self._timer = self.loop.call_at(wake_at, self._begin)

    def _end_call(self, call: Call, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._engine.end_call(call, self.loop.time())
        self._schedule()
        self._wake_closers()

    async def _make(self, call: Call) -> None:
        for attempt in attempts(self._url, call):
            await self._try(attempt)

    async def _try(self, attempt: Attempt) -> None:
        try:
            output = self._client.send_message_batch(**attempt.request)
            if isawaitable(output):
                attempt.take(await output)
            else:
                attempt.answer = _WRONG_CLIENT
        except Exception as error:
            attempt.fail(error)

    def _wake_closers(self) -> None:
        for ended in self._closers:
            if not ended.done():
                ended.set_result(None)
        self._closers.clear()
