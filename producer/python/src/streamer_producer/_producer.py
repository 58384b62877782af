"""The producer."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

from . import _fork
from ._batch import Batch
from ._checks import TIMEOUT, check_builder, check_seconds, check_url
from ._clients import check_client, new_client
from ._clock import Clock
from ._message import Message, MessageBuilder
from ._progress import Progress
from ._queue import Client, is_fifo
from ._threads import Threads
from ._updates import MIN_INTERVAL, Updates


class Producer:
    """Sends messages to the outbound queue. Share one in the whole program: all threads may use it.

    Sends of several threads at the same time share calls. While no call is in flight, messages leave at once. While one
    is, they fill the next batch, of up to 10 messages and 1 MiB. It leaves when it is full, when no call is in flight
    any more, or after 20 ms. Up to 8 calls are in flight at once.

    The producer retries messages that the queue failed to take, and only those, until the time limit. If only the answer
    to a call was lost, the message is on the queue twice.

    Messages of one request for one audience keep their order; on a FIFO queue, messages for one recipient do. A
    `send` beside a `send_all` of more than 160 messages, or 16 MiB, may pass those that have not begun: wait for the
    first to return.

    At most 16 MiB are being sent at once; beyond that, `send` waits. When a send returns, it leaves nothing behind,
    except a call without an answer at the time limit: boto3 cannot abort it. Its result is not used, and no other call
    follows it, unless the client itself retries.

    A child process that begins with a fork can use the producer: it has none of its parent's sends, and opens
    connections of its own. A `client` of the caller is not replaced: boto3's clients share their connections with the
    parent, so create it, and the producer, after the fork.

    A send may be interrupted anywhere, by the exception of a signal handler such as `KeyboardInterrupt`. It is given up,
    and the queue may have its messages.

    Do not send from a signal handler or from `__del__`: these may run in a thread that is inside of the producer, which
    would wait for itself for ever.
    """

    def __init__(
        self,
        queue_url: str,
        *,
        client: Client | None = None,
        timeout: float = TIMEOUT,
        _clock: Clock | None = None,
        _random: Callable[[], float] = random.random,
    ) -> None:
        """Returns a producer for a queue.

        `client` calls the queue. Create it with `Config(retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=5, read_timeout=5)`, because the producer retries; it warns of a client that does so, too. The
        default is such a client, which reads Region, credentials and endpoint from the environment, as all AWS SDKs do.
        `timeout` is the time that a send may take in seconds, retries included.

        Raises `SendError` if the environment has no Region.
        """
        self._url = check_url(queue_url)
        self._timeout = check_seconds("timeout", timeout)
        self._given_client = None if client is None else check_client(client)
        self._default_client: Any = new_client() if client is None else None
        self._clock = Clock() if _clock is None else _clock
        self._random = _random
        self._threads = Threads(self._url, self._clock, self._random)
        _fork.register(self)

    def send(self, message: Message, *, timeout: float | None = None) -> None:
        """Sends a message to the queue. Returns when the queue has it for all its recipients.

        `timeout` is the time that the send may take in seconds. In Lambda, that is at most the time that is left of the
        invocation. The default is that of the producer.

        Raises `SendError`, also if the queue has the message for some of its recipients. To retry, send the message
        again: it has its id, by which clients can drop a second delivery.
        """
        self._send([message], timeout).raise_first()

    def send_all(self, messages: Iterable[Message], *, timeout: float | None = None) -> None:
        """Sends messages to the queue, all of them within the time limit: for many thousands, increase it.

        Returns when the queue has all of them. Raises `SendAllError`, which names the messages that are not on the
        queue: send those again.
        """
        self._send(messages, timeout).raise_all()

    def progress(self, to: MessageBuilder, *, min_interval: float = MIN_INTERVAL, timeout: float | None = None) -> Progress:
        """Returns a handle for the progress of one request.

        `to` has an audience and a request. `min_interval` is the minimum time between two updates in seconds. `timeout`
        is the time that each call on the handle may take; an end may have another one.
        """
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        updates = Updates(check_builder(to), check_seconds("min_interval", min_interval), self._clock.now)
        return Progress(self, updates, limit, self._clock)

    def close(self, *, timeout: float | None = None) -> bool:
        """Refuses later sends, and waits until all sends in progress have ended, with their calls.

        Returns whether that is so within `timeout` in seconds. Without it, a call that the client does not end is waited
        for without a limit. Closes the default client, but not one of the caller.
        """
        is_idle = self._threads.close(None if timeout is None else check_seconds("timeout", timeout))
        if is_idle and self._default_client is not None:
            self._default_client.close()
        return is_idle

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, messages: Iterable[Message], timeout: float | None) -> Batch:
        batch = Batch(messages, is_fifo(self._url))
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        if self._given_client is None and self._default_client is None:
            self._default_client = new_client()
        self._threads.send(self._given_client or self._default_client, batch, limit)
        return batch

    def _after_fork(self) -> None:
        """Begins again in a child process, without the sends and the connections of the parent."""
        self._default_client = None
        self._threads = Threads(self._url, self._clock, self._random, self._threads.is_closed)
