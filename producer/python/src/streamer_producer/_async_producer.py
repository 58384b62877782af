"""The asynchronous producer."""

from __future__ import annotations

import asyncio
import math
import random as _random
from collections.abc import Callable, Iterable
from functools import partial
from types import TracebackType
from typing import Any

from ._async_progress import AsyncProgress
from ._engine import Engine
from ._jobs import Call
from ._message import Message, MessageBuilder
from ._progress import MIN_INTERVAL, Updates
from ._queue import Answer, Client, answer_of, attempts, failure_of, is_fifo, request_of
from ._sending import TIMEOUT, Batch, check_seconds, check_url


class AsyncProducer:
    """Sends messages to the outbound queue from an event loop, through a client of aiobotocore or aioboto3.

    It behaves as `Producer` does: sends at the same time share calls. When a send has ended, also by its cancellation,
    nothing of it goes on: a call whose sends have all ended is cancelled.
    """

    def __init__(
        self,
        queue_url: str,
        client: Client,
        *,
        timeout: float = TIMEOUT,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Returns a producer for a queue.

        `client` is an open SQS client of aiobotocore or aioboto3. Create it with
        `AioConfig(retries={"total_max_attempts": 1})`, because the producer retries. `timeout` is the time that a send
        may take in seconds, retries included.
        """
        self._url = check_url(queue_url)
        self._client = client
        self._timeout = check_seconds("timeout", timeout)
        self._is_fifo = is_fifo(queue_url)
        self._engine = Engine(self._is_fifo, random)
        self._calls: set[asyncio.Task[None]] = set()
        self._timer: asyncio.Handle | None = None
        self._is_scheduled = False
        self._is_closed = False
        self._closing: set[asyncio.Future[None]] = set()

    async def send(self, message: Message, *, timeout: float | None = None) -> None:
        """Sends a message to the queue. Returns when the queue has it for all its recipients.

        `timeout` is the time that the send may take in seconds. The default is that of the producer.

        Raises `SendError`, also if the queue has the message for some of its recipients. To retry, send the message
        again: it has its id, by which clients can drop a second delivery.
        """
        batch = Batch([message], self._is_fifo)
        await self._send(batch, timeout)
        batch.raise_first()

    async def send_all(self, messages: Iterable[Message], *, timeout: float | None = None) -> None:
        """Sends messages to the queue, all of them within the time limit: for many thousands, increase it.

        Returns when the queue has all of them. Raises `SendAllError`, which names the messages that are not on the
        queue: send those again.
        """
        batch = Batch(messages, self._is_fifo)
        await self._send(batch, timeout)
        batch.raise_all()

    def progress(
        self, to: MessageBuilder, *, min_interval: float = MIN_INTERVAL, timeout: float | None = None
    ) -> AsyncProgress:
        """Returns a handle for the progress of one request.

        `to` has an audience and a request. `min_interval` is the minimum time between two updates in seconds.
        """
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)

        def now() -> float:
            return asyncio.get_running_loop().time()

        return AsyncProgress(self, Updates(to, check_seconds("min_interval", min_interval), now), limit)

    async def close(self) -> None:
        """Refuses later sends, and waits until all sends in progress have completed, with their calls."""
        self._is_closed = True
        while not self._engine.is_idle:
            ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._closing.add(ended)
            await ended

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, batch: Batch, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        if self._is_closed:
            batch.close()
            return
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def notify() -> None:
            if not done.done():
                done.set_result(None)

        send = self._engine.begin(batch.items(), limit, loop.time(), notify)
        self._schedule(loop)
        try:
            await done
        finally:
            # If the caller was cancelled.
            if not send.is_done:
                self._engine.give_up(send, loop.time())
                self._schedule(loop)
            self._notify_closing()
        batch.errors.update(send.errors)

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins calls after the current sends, so that all that are sent at the same time can share a call."""
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._begin, loop)

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begins the calls that are due, and waits for the time at which the next one is."""
        self._is_scheduled = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for call in self._engine.poll(loop.time()):
            task = loop.create_task(self._call(call))
            call.abort = task.cancel
            # The loop itself holds tasks weakly.
            self._calls.add(task)
            task.add_done_callback(partial(self._end_call, call, loop))
        wake_at = self._engine.wake_at()
        if wake_at < math.inf:
            self._timer = loop.call_at(wake_at, self._begin, loop)

    def _end_call(self, call: Call, loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        self._engine.end_call(call, loop.time())
        self._schedule(loop)
        self._notify_closing()

    async def _call(self, call: Call) -> None:
        steps = attempts(call.entries, call.results, lambda: call.is_over)
        try:
            entries = next(steps)
            while True:
                entries = steps.send(await self._attempt(request_of(self._url, entries), len(entries)))
        except StopIteration:
            pass

    async def _attempt(self, request: dict[str, Any], entries: int) -> Answer:
        try:
            return answer_of(await self._client.send_message_batch(**request), entries)
        except Exception as error:
            return failure_of(error)

    def _notify_closing(self) -> None:
        for ended in self._closing:
            if not ended.done():
                ended.set_result(None)
        self._closing.clear()
