"""Virtual time: it passes only while nothing else can happen."""

import asyncio
import math
import selectors
import threading
import time

from streamer_producer._clock import Clock


class VirtualClock(Clock):
    """Virtual time, which passes only while a thread waits for its send. Calls are made by the driver when it waits."""

    def __init__(self):
        self.time = 0.0
        self._functions = []
        self._lock = threading.Lock()
        self._drivers = set()
        #: When the threads that wait for their sends want to wake.
        self._waits = {}

    def now(self):
        return self.time

    def start(self, function):
        self._functions.append(function)

    def start_driver(self, function):
        def drive():
            self._drivers.add(threading.get_ident())
            function()
            self._drivers.discard(threading.get_ident())

        threading.Thread(target=drive, daemon=True).start()

    def get(self, queue, seconds=math.inf):
        if threading.get_ident() in self._drivers:
            return self._drive(queue, seconds)
        with self._lock:
            self._waits[queue] = self.time + seconds
        until(lambda: not queue.empty(), 0.0001)
        with self._lock:
            del self._waits[queue]
            return queue.get()

    def _drive(self, bell, seconds):
        if self._functions:
            return self._functions.pop(0)()
        wakes_at = self.time + seconds
        until(lambda: not bell.empty() or self._pass(wakes_at), 0.0001)

    def _pass(self, wakes_at):
        """Passes time, if a thread waits, and returns whether that is so."""
        with self._lock:
            waits = {queue: at for queue, at in self._waits.items() if queue.empty()}
            at = min([wakes_at, *waits.values()])
            if not waits or at == math.inf:
                return False
            self.time = max(self.time, at)
            for queue in [queue for queue, at in waits.items() if at <= self.time]:
                queue.put(None)
            return True


class FastClock(Clock):
    """Real time, which passes faster."""

    def __init__(self, factor):
        self.factor = factor

    def now(self):
        return time.monotonic() * self.factor

    def get(self, queue, seconds=math.inf):
        return super().get(queue, seconds / self.factor)


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


def until(condition, pause=0.001):
    """Waits for a condition, at most 10 s."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "the condition did not hold within 10 s"
        time.sleep(pause)
