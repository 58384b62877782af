"""The producer."""

from __future__ import annotations

import math
import random as _random
import threading
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any

import boto3.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from ._clock import Clock
from ._engine import Engine, not_configured
from ._jobs import Call, Send
from ._message import Message, MessageBuilder
from ._progress import MIN_INTERVAL, Progress, Updates
from ._queue import CALL_TIMEOUT, Answer, Client, answer_of, attempts, failure_of, is_fifo, request_of
from ._sending import TIMEOUT, Batch, check_seconds, check_url


def _new_client() -> Client:
    """Returns a client that reads Region, credentials and endpoint from the environment, as all AWS SDKs do."""
    config = Config(
        # The producer retries.
        retries={"total_max_attempts": 1, "mode": "standard"},
        connect_timeout=CALL_TIMEOUT,
        read_timeout=CALL_TIMEOUT,
    )
    try:
        # A session of its own, because the default one is not safe to use in several threads.
        client: Client = boto3.session.Session().client("sqs", config=config)
    except (BotoCoreError, ValueError) as error:
        raise not_configured(str(error).rstrip(".")) from error
    return client


class _Waiter:
    """A thread that waits for its send."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.send: Send | None = None


class Producer:
    """Sends messages to the outbound queue. Share one in the whole program: all threads may use it.

    Sends of several threads at the same time share calls. While no call is in flight, messages leave at once. While one
    is, they fill the next batch, of up to 10 messages and 1 MiB. It leaves when it is full, when no call is in flight
    any more, or after 20 ms. Up to 8 calls are in flight at once.

    The producer retries messages that the queue failed to take, and only those, until the time limit. If only the answer
    to a call was lost, the message is on the queue twice.

    Messages of one request for one audience keep their order; on a FIFO queue, messages for one recipient do.

    At most 16 MiB are being sent at once; beyond that, `send` waits. When a send returns, nothing of it goes on; only a
    call without an answer at the time limit ends by itself, because boto3 cannot abort it. Its result is not used.
    """

    def __init__(
        self,
        queue_url: str,
        *,
        client: Client | None = None,
        timeout: float = TIMEOUT,
        clock: Clock | None = None,
        random: Callable[[], float] = _random.random,
    ) -> None:
        """Returns a producer for a queue.

        `client` calls the queue. Give it `Config(retries={"total_max_attempts": 1}, read_timeout=5, connect_timeout=5)`,
        because the producer retries. The default is a client that reads Region, credentials and endpoint from the
        environment, as all AWS SDKs do. `timeout` is the time that a send may take in seconds, retries included.

        Raises `SendError` if the environment has no Region.
        """
        self._url = check_url(queue_url)
        self._timeout = check_seconds("timeout", timeout)
        self._client = _new_client() if client is None else client
        self._clock = Clock() if clock is None else clock
        self._is_fifo = is_fifo(queue_url)
        self._engine = Engine(self._is_fifo, random)
        #: Held while a thread is in the engine, and never during a call.
        self._lock = threading.Lock()
        #: The threads that wait for their sends.
        self._waiters: dict[_Waiter, None] = {}
        #: The one of them that wakes for the engine's timers, and when it does.
        self._timekeeper: _Waiter | None = None
        self._wakes_at = math.inf
        self._is_closed = False
        self._closing = threading.Event()

    def send(self, message: Message, *, timeout: float | None = None) -> None:
        """Sends a message to the queue. Returns when the queue has it for all its recipients.

        `timeout` is the time that the send may take in seconds. In Lambda, that is at most the time that is left of the
        invocation. The default is that of the producer.

        Raises `SendError`, also if the queue has the message for some of its recipients. To retry, send the message
        again: it has its id, by which clients can drop a second delivery.
        """
        batch = Batch([message], self._is_fifo)
        self._send(batch, timeout)
        batch.raise_first()

    def send_all(self, messages: Iterable[Message], *, timeout: float | None = None) -> None:
        """Sends messages to the queue, all of them within the time limit: for many thousands, increase it.

        Returns when the queue has all of them. Raises `SendAllError`, which names the messages that are not on the
        queue: send those again.
        """
        batch = Batch(messages, self._is_fifo)
        self._send(batch, timeout)
        batch.raise_all()

    def progress(self, to: MessageBuilder, *, min_interval: float = MIN_INTERVAL, timeout: float | None = None) -> Progress:
        """Returns a handle for the progress of one request.

        `to` has an audience and a request. `min_interval` is the minimum time between two updates in seconds.
        """
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        return Progress(self, Updates(to, check_seconds("min_interval", min_interval), self._clock.now), limit)

    def close(self) -> None:
        """Refuses later sends, and waits until all sends in progress have completed, with their calls."""
        with self._lock:
            self._is_closed = True
        while True:
            with self._lock:
                self._closing.clear()
                if self._engine.is_idle:
                    return
            self._clock.wait(self._closing, None)

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, batch: Batch, timeout: float | None) -> None:
        limit = self._timeout if timeout is None else check_seconds("timeout", timeout)
        waiter = _Waiter()
        with self._lock:
            if self._is_closed:
                batch.close()
                return
            now = self._clock.now()
            send = waiter.send = self._engine.begin(batch.items(), limit, now, waiter.event.set)
            self._waiters[waiter] = None
        try:
            self._wait(waiter, send)
        finally:
            self._leave(waiter, send)
        batch.errors.update(send.errors)

    def _wait(self, waiter: _Waiter, send: Send) -> None:
        while True:
            with self._lock:
                waiter.event.clear()
                calls = self._poll()
                if self._timekeeper in (None, waiter):
                    self._timekeeper, self._wakes_at = waiter, self._engine.wake_at()
                seconds = self._wakes_at - self._clock.now() if self._timekeeper is waiter else None
                is_done = send.is_done
            self._start(calls)
            if is_done:
                return
            self._clock.wait(waiter.event, seconds)

    def _leave(self, waiter: _Waiter, send: Send) -> None:
        with self._lock:
            del self._waiters[waiter]
            # Only if an exception, such as KeyboardInterrupt, has ended the wait.
            if not send.is_done:
                self._engine.give_up(send, self._clock.now())
            if self._timekeeper is waiter:
                self._timekeeper = next(iter(self._waiters), None)
                self._wake_timekeeper()
            self._closing.set()

    def _wake_timekeeper(self) -> None:
        if self._timekeeper is not None:
            self._timekeeper.event.set()

    def _poll(self) -> list[Call]:
        """Returns the calls that are due, and makes sure that a thread wakes when the next ones are."""
        calls = self._engine.poll(self._clock.now())
        if self._engine.wake_at() < self._wakes_at:
            self._wake_timekeeper()
        return calls

    def _start(self, calls: list[Call]) -> None:
        for call in calls:
            self._clock.start(lambda call=call: self._call(call))  # type: ignore[misc]

    def _call(self, call: Call) -> None:
        """Makes a call, in a thread of its own."""
        steps = attempts(call.entries, call.results, lambda: call.is_over)
        try:
            entries = next(steps)
            while True:
                entries = steps.send(self._attempt(request_of(self._url, entries), len(entries)))
        except StopIteration:
            pass
        with self._lock:
            self._engine.end_call(call, self._clock.now())
            calls = self._poll()
            self._closing.set()
        self._start(calls)

    def _attempt(self, request: dict[str, Any], entries: int) -> Answer:
        try:
            return answer_of(self._client.send_message_batch(**request), entries)
        except Exception as error:
            return failure_of(error)
