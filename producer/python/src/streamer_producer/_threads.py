"""The sends of the threads of one process, and their calls, each in a thread of its own.

One thread at a time, the *driver*, is in the engine. It begins with a send, and ends when nothing is being sent and no call
is in flight. The other threads only append to its events, and wait. The exceptions of signal handlers, such as
`KeyboardInterrupt`, are raised in the main thread, which is never the driver while threads can be started. So they can
interrupt a send anywhere: the driver gives it up, and the others go on. An error in the driver, or an interrupt of one in
the main thread, ends all sends in progress, and the next driver begins with another engine.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from inspect import isawaitable
from queue import SimpleQueue

from ._batch import Batch
from ._clock import Clock
from ._engine import Engine
from ._failures import Failure
from ._jobs import Call, Send
from ._queue import Attempt, Client, attempts, is_fifo

_WRONG_CLIENT = Failure("not_configured", "its answer is awaitable", remedy="use AsyncProducer for such a client")


class Threads:
    """The sends of the threads of one process, and their calls."""

    def __init__(self, url: str, clock: Clock, random: Callable[[], float], is_closed: bool = False) -> None:
        self._url = url
        self._clock = clock
        self._new_engine = partial(Engine, is_fifo(url), random)
        self._engine = self._new_engine()
        #: Held by the driver.
        self._turn = threading.Lock()
        #: Functions that the driver calls, in order: at least once each, since the driver can fail.
        self._events: deque[Callable[[float], None]] = deque()
        #: Wakes the driver.
        self._bell: SimpleQueue[object] = SimpleQueue()
        #: The calls that are due, and have not begun.
        self._calls: deque[Call] = deque()
        self.is_closed = is_closed
        #: Wake the threads that wait for their sends, or until nothing is being sent.
        self._waiters: set[Callable[[], None]] = set()

    def send(self, client: Client, batch: Batch, timeout: float) -> None:
        """Sends messages. The error of each that is not on the queue is in the batch."""
        self._client = client
        done: SimpleQueue[object] = SimpleQueue()
        wake = partial(done.put, True)
        send = batch.send(timeout, self._clock.now(), wake)

        def is_done() -> bool:
            return send.is_done

        try:
            self._waiters.add(wake)
            self._post(partial(self._begin, batch, send))
            while not send.is_done:
                self._ensure_driver(is_done)
                self._clock.get(done)
        except BaseException:
            self._post(partial(self._give_up, send))
            self._ensure_driver(is_done)
            raise
        finally:
            self._waiters.discard(wake)
        batch.errors.update(send.errors)

    def close(self, timeout: float | None) -> bool:
        """Refuses later sends, and waits until nothing is being sent. Returns whether that is so within the time."""
        until = math.inf if timeout is None else self._clock.now() + timeout
        idle: SimpleQueue[object] = SimpleQueue()
        wake = partial(idle.put, True)
        self.is_closed = True
        self._waiters.add(wake)
        try:
            while not self._is_idle() and self._clock.now() < until:
                self._ensure_driver(self._is_idle, until)
                self._clock.get(idle, until - self._clock.now())
            return self._is_idle()
        finally:
            self._waiters.discard(wake)

    def _is_idle(self) -> bool:
        return not self._events and self._engine.is_idle

    def _post(self, event: Callable[[float], None]) -> None:
        self._events.append(event)
        self._bell.put(True)

    def _begin(self, batch: Batch, send: Send, now: float) -> None:
        if send.is_done:
            return
        if self.is_closed:
            batch.close()
            send.end()
        else:
            self._engine.begin(send, now)

    def _give_up(self, send: Send, now: float) -> None:
        self._engine.give_up(send, now)
        if not send.is_done:
            # It was interrupted before its beginning.
            send.end()

    def _end_call(self, engine: Engine, call: Call, now: float) -> None:
        if engine is self._engine:
            engine.end_call(call, now)

    def _wake_waiters(self) -> None:
        for wake in tuple(self._waiters):
            wake()

    def _ensure_driver(self, is_done: Callable[[], bool], until: float = math.inf) -> None:
        """Starts a driver, unless there is one.

        While no thread can be started, at the end of the interpreter or at the limit of a container, this thread is the
        driver, until a condition holds, or a time. It makes calls itself, so that may be later by one call.
        """
        if self._turn.locked():
            return
        try:
            self._clock.start_driver(self._drive)
        except RuntimeError:
            try:
                with self._turn:
                    self._run(is_done, until)
            finally:
                # One of the others is the next driver.
                self._wake_waiters()

    def _drive(self) -> None:
        """Is the driver while there is something to do, unless another thread is."""
        while not self._is_idle() and self._turn.acquire(blocking=False):
            # The sends have it as their error.
            with suppress(BaseException):
                self._run(self._is_idle, math.inf)
            self._turn.release()

    def _run(self, is_done: Callable[[], bool], until: float) -> None:
        try:
            while not is_done() and self._clock.now() < until:
                self._step(until)
            if self._is_idle():
                self._wake_waiters()
        except BaseException as error:
            # The engine may be half-changed.
            broken, self._engine = self._engine, self._new_engine()
            self._calls.clear()
            broken.break_off(error)
            raise

    def _step(self, until: float) -> None:
        if self._calls:
            self._start(self._calls.popleft())
        elif not self._events and not self._engine.is_idle:
            self._clock.get(self._bell, min(self._engine.wake_at(), until) - self._clock.now())
        while not self._bell.empty():
            self._bell.get()
        while self._events:
            self._events[0](self._clock.now())
            self._events.popleft()
        self._calls += self._engine.poll(self._clock.now())

    def _start(self, call: Call) -> None:
        work = partial(self._work, self._engine, call)
        try:
            self._clock.start(work)
        except RuntimeError:
            work()

    def _work(self, engine: Engine, call: Call) -> None:
        """Makes a call, in a thread of its own if one can be started."""
        try:
            for attempt in attempts(self._url, call):
                _try(self._client, attempt)
        finally:
            self._post(partial(self._end_call, engine, call))
            self._drive()


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
