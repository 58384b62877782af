"""Virtual time: it passes only while nothing else can happen."""

import asyncio
import selectors
import threading
import time

from streamer_producer._clock import Clock


class VirtualClock(Clock):
    """Virtual time for one thread. Calls are made in it, one after another, when it waits."""

    def __init__(self):
        self.time = 0.0
        self._functions = []
        self._planned = []

    def now(self):
        return self.time

    def start(self, function):
        self._functions.append(function)

    def at(self, time, function):
        """Calls a function at a time."""
        self._planned.append((time, function))
        self._planned.sort(key=lambda planned: planned[0])

    def wait(self, event, seconds):
        if event.is_set():
            return
        if self._functions:
            self._functions.pop(0)()
            return
        until = float("inf") if seconds is None else self.time + max(seconds, 0)
        if self._planned and self._planned[0][0] <= until:
            at, function = self._planned.pop(0)
            self.time = max(self.time, at)
            function()
            return
        assert until < float("inf"), "nothing would ever end this wait"
        self.time = until


class FastClock(Clock):
    """Real time, which passes faster."""

    def __init__(self, factor):
        self.factor = factor

    def now(self):
        return time.monotonic() * self.factor

    def wait(self, event, seconds):
        super().wait(event, None if seconds is None else seconds / self.factor)


class _Selector(selectors.DefaultSelector):
    """Passes virtual time instead of waiting."""

    loop = None

    def select(self, timeout=None):
        ready = super().select(0)
        if not ready:
            assert timeout is not None, "nothing would ever end this wait"
            self.loop.virtual_time += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time, without input and output."""

    def __init__(self):
        self.virtual_time = 0.0
        selector = _Selector()
        selector.loop = self
        super().__init__(selector)

    def time(self):
        return self.virtual_time


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes faster."""

    factor = 50

    def time(self):
        return super().time() * self.factor

    def __init__(self):
        class Selector(selectors.DefaultSelector):
            def select(self, timeout=None):
                return super().select(None if timeout is None else timeout / FastLoop.factor)

        super().__init__(Selector())


def run(function, loop_class=VirtualLoop):
    """Runs an asynchronous function in an event loop with virtual or fast time."""
    loop = loop_class()
    try:
        return loop.run_until_complete(function())
    finally:
        loop.close()


def in_thread(function):
    """Begins a function in a thread, and returns a function that waits for its result or error."""
    outcome = []

    def target():
        try:
            outcome.append(("result", function()))
        except BaseException as error:
            outcome.append(("error", error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()

    def join():
        thread.join(30)
        assert outcome, "the thread did not end"
        return outcome[0]

    return join


def until(condition):
    """Waits for a condition, at most 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 10 s"
        time.sleep(0.001)
