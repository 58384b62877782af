"""The sends of the threads of one process, and their calls, each in a thread of its own.

There is no background thread. One of the threads that wait for their sends, the *timekeeper*, wakes for the engine's
timers. A thread can be interrupted anywhere, by the exception of a signal handler: then its send is given up, and a call
that it has not begun ends without being made.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from functools import partial
from inspect import isawaitable

from ._batch import Batch
from ._clock import Clock
from ._engine import Engine
from ._failures import NOT_MADE, Failure
from ._jobs import Call, Send
from ._queue import Attempt, Client, attempts, is_fifo

_WRONG_CLIENT = Failure("not_configured", "its answer is awaitable", remedy="use AsyncProducer for such a client")


class _Waiter:
    """A thread that waits for its send."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.send: Send | None = None
        #: The calls that it begins.
        self.calls: list[Call] = []


class Threads:
    """The sends of the threads of one process, and their calls."""

    def __init__(self, url: str, clock: Clock, random: Callable[[], float], is_closed: bool = False) -> None:
        self._url = url
        self._clock = clock
        self._engine = Engine(is_fifo(url), random)
        #: Held while a thread is in the engine, and never during a call.
        self._lock = threading.Lock()
        #: The threads that wait for their sends.
        self._waiters: dict[_Waiter, None] = {}
        #: The one of them that wakes for the engine's timers, and when it does.
        self._timekeeper: _Waiter | None = None
        self._wakes_at = math.inf
        self.is_closed = is_closed
        #: The threads that wait until nothing is being sent.
        self._closers: set[threading.Event] = set()

    def send(self, client: Client, batch: Batch, timeout: float) -> None:
        """Sends messages. The error of each that is not on the queue is in the batch."""
        waiter = _Waiter()
        try:
            send = self._begin(waiter, batch, timeout)
            if send is None:
                batch.close()
                return
            self._wait(client, waiter, send)
        finally:
            self._leave(client, waiter)
        batch.errors.update(send.errors)

    def close(self, timeout: float | None) -> bool:
        """Refuses later sends, and waits until nothing is being sent. Returns whether that is so within the time."""
        deadline = math.inf if timeout is None else self._clock.now() + timeout
        closer = threading.Event()
        with self._lock:
            self.is_closed = True
            self._closers.add(closer)
        try:
            while True:
                with self._lock:
                    closer.clear()
                    left = deadline - self._clock.now()
                    if self._engine.is_idle or left <= 0:
                        return self._engine.is_idle
                self._clock.wait(closer, None if math.isinf(left) else left)
        finally:
            with self._lock:
                self._closers.discard(closer)

    def _begin(self, waiter: _Waiter, batch: Batch, timeout: float) -> Send | None:
        with self._lock:
            if self.is_closed:
                return None
            now = self._clock.now()
            # First, so that an interrupted beginning is given up, too.
            send = waiter.send = batch.send(timeout, now, waiter.event.set)
            self._waiters[waiter] = None
            self._engine.begin(send, now)
            return send

    def _wait(self, client: Client, waiter: _Waiter, send: Send) -> None:
        while True:
            with self._lock:
                waiter.event.clear()
                waiter.calls += self._poll()
                if self._timekeeper in (None, waiter):
                    self._timekeeper, self._wakes_at = waiter, self._engine.wake_at()
                seconds = self._wakes_at - self._clock.now() if self._timekeeper is waiter else None
                is_done = send.is_done
            # A call that this thread made itself has taken time.
            is_current = self._start(client, waiter.calls, waiter)
            if is_done:
                return
            if is_current:
                self._clock.wait(waiter.event, seconds)

    def _leave(self, client: Client, waiter: _Waiter) -> None:
        try:
            # Not empty only if an exception, such as KeyboardInterrupt, has ended the wait.
            self._skip(waiter.calls)
            with self._lock:
                self._waiters.pop(waiter, None)
                if waiter.send is not None and not waiter.send.is_done:
                    self._engine.give_up(waiter.send, self._clock.now())
                    # Those behind it may leave now.
                    waiter.calls += self._poll()
                self._hand_over(waiter)
                self._wake_closers()
            self._start(client, waiter.calls, waiter)
        finally:
            self._skip(waiter.calls)

    def _hand_over(self, waiter: _Waiter) -> None:
        """Makes another thread watch the time."""
        if self._timekeeper is waiter:
            self._timekeeper = next((other for other in self._waiters if other is not waiter), None)
            self._wakes_at = math.inf
            self._wake_timekeeper()

    def _wake_timekeeper(self) -> None:
        if self._timekeeper is not None:
            self._timekeeper.event.set()

    def _wake_closers(self) -> None:
        for closer in self._closers:
            closer.set()

    def _poll(self) -> list[Call]:
        """Returns the calls that are due, and makes sure that a thread wakes when the next ones are."""
        calls = self._engine.poll(self._clock.now())
        if self._engine.wake_at() < self._wakes_at:
            self._wake_timekeeper()
        return calls

    def _start(self, client: Client, calls: list[Call], waiter: _Waiter | None) -> bool:
        """Makes calls, each in a thread of its own, and removes them from the list.

        While no thread can be started, at the end of the interpreter or at the limit of a container, this thread makes
        the calls itself, and those that are due after them, until its send has ended. That may be after its time limit.
        Returns whether that was not necessary.
        """
        has_threads = True
        while calls:
            try:
                self._clock.start(partial(self._work, client, calls[0]))
            except RuntimeError:
                has_threads = False
                if not self._may_block(waiter):
                    self._skip(calls)
                    break
                self._make(client, calls[0], calls)
            del calls[0]
        return has_threads

    def _may_block(self, waiter: _Waiter | None) -> bool:
        """Returns whether a thread may make a call itself, and makes another thread watch the time."""
        if waiter is None:
            return True
        with self._lock:
            self._hand_over(waiter)
        return waiter.send is not None and not waiter.send.is_done

    def _work(self, client: Client, call: Call) -> None:
        """Makes a call, in a thread of its own."""
        calls: list[Call] = []
        try:
            self._make(client, call, calls)
            self._start(client, calls, None)
        finally:
            self._skip(calls)

    def _make(self, client: Client, call: Call, following: list[Call]) -> None:
        """Makes a call, unless that has begun, and adds the calls that are due after it to a list."""
        with self._lock:
            if call.is_begun:
                return
            call.is_begun = True
        try:
            for attempt in attempts(self._url, call):
                _try(client, attempt)
        finally:
            with self._lock:
                self._engine.end_call(call, self._clock.now())
                following += self._poll()
                self._wake_closers()

    def _skip(self, calls: list[Call]) -> None:
        """Ends calls that have not begun, and empties the list."""
        if not calls:
            return
        with self._lock:
            for call in calls:
                if not call.is_begun:
                    call.is_begun = True
                    call.fail(NOT_MADE)
                    self._engine.end_call(call, self._clock.now())
            calls.clear()
            self._wake_timekeeper()
            self._wake_closers()


def _try(client: Client, attempt: Attempt) -> None:
    try:
        output = client.send_message_batch(**attempt.request)
        if isawaitable(output):
            # Otherwise, Python warns that a coroutine was never awaited.
            getattr(output, "close", lambda: None)()
            attempt.answer = _WRONG_CLIENT
        else:
            attempt.take(output)
    except Exception as error:
        attempt.fail(error)
