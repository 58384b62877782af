"""The asynchronous producer."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from types import TracebackType

from ._async_progress import AsyncProgress
from ._batch import Batch
from ._checks import TIMEOUT, check_builder, check_seconds, check_url
from ._clients import check_asynchronous_client
from ._message import Message, MessageBuilder
from ._queue import Client, is_fifo
from ._tasks import Tasks
from ._updates import MIN_INTERVAL, Updates


class AsyncProducer:
    """Sends messages to the outbound queue from an event loop, through a client of aiobotocore or aioboto3.

    It behaves as `Producer` does: sends at the same time share calls. When a send has ended, also by its cancellation, it
    leaves nothing behind: a call whose sends have all ended is cancelled.

    Like its client, it belongs to one event loop. Create it in the process and the loop that use it.
    """

    def __init__(
        self,
        queue_url: str,
        client: Client,
        *,
        timeout: float = TIMEOUT,
        _random: Callable[[], float] = random.random,
    ) -> None:
        """Returns a producer for a queue.

        `client` is an open SQS client of aiobotocore or aioboto3. Create it with
        `AioConfig(retries={"total_max_attempts": 1, "mode": "standard"})`, because the producer retries; it warns of a
        client that does so, too. `timeout` is the time that a send may take in seconds, retries included.
        """
        self._url = check_url(queue_url)
        self._client = check_asynchronous_client(client)
        self._timeout = check_seconds("timeout", timeout)
        self._random = _random
        self._is_closed = False
        #: The sends of the current event loop.
        self._tasks: Tasks | None = None

    async def send(self, message: Message, *, timeout: float | None = None) -> None:
        """Sends a message to the queue. Returns when the queue has it for all its recipients.

        `timeout` is the time that the send may take in seconds. The default is that of the producer.

        Raises `SendError`, also if the queue has the message for some of its recipients. To retry, send the message
        again: it has its id, by which clients can drop a second delivery.
        """
        batch = await self._send([message], timeout)
        batch.raise_first()

    async def send_all(self, messages: Iterable[Message], *, timeout: float | None = None) -> None:
        """Sends messages to the queue, all of them within the time limit: for many thousands, increase it.

        Returns when the queue has all of them. Raises `SendAllError`, which names the messages that are not on the
        queue: send those again.
        """
        batch = await self._send(messages, timeout)
        batch.raise_all()

    def progress(
        self, to: MessageBuilder, *, min_interval: float = MIN_INTERVAL, timeout: float | None = None
    ) -> AsyncProgress:
        """Returns a handle for the progress of one request.

        `to` has an audience and a request. `min_interval` is the minimum time between two updates in seconds. `timeout`
        is the time that each call on the handle may take; an end may have another one.
        """
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)

        def now() -> float:
            return asyncio.get_running_loop().time()

        return AsyncProgress(self, Updates(check_builder(to), check_seconds("min_interval", min_interval), now), limit)

    async def close(self) -> None:
        """Refuses later sends, and waits until all sends in progress have ended, with their calls.

        That is at the latest after the time limits of the sends.
        """
        self._is_closed = True
        await self._tasks_of_loop().wait()

    async def __aenter__(self) -> AsyncProducer:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, messages: Iterable[Message], timeout: float | None) -> Batch:
        batch = Batch(messages, is_fifo(self._url))
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        if self._is_closed:
            batch.close()
        else:
            await self._tasks_of_loop().send(batch, limit)
        return batch

    def _tasks_of_loop(self) -> Tasks:
        loop, tasks = asyncio.get_running_loop(), self._tasks
        if tasks is None or tasks.loop is not loop:
            # The sends of a closed loop are gone.
            if tasks is not None and not tasks.is_idle and not tasks.loop.is_closed():
                raise RuntimeError("the AsyncProducer is sending in another event loop: create one for each loop")
            tasks = self._tasks = Tasks(self._url, self._client, loop, self._random)
        return tasks
