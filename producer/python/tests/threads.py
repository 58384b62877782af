"""Threads whose calls and time a test controls."""

import threading
import time

from clocks import VirtualClock
from queues import MemoryQueue

from streamer_producer._clock import Clock


class HeldQueue(MemoryQueue):
    """A queue that answers when the test says so."""

    def __init__(self, script=lambda call, entries: "taken"):
        super().__init__(script)
        self.gate = threading.Semaphore(0)
        self.arrived = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.lock = threading.Lock()

    def send_message_batch(self, *, QueueUrl, Entries):
        with self.lock:
            self.arrived.append(len(Entries))
            self.in_flight += 1
            self.most_in_flight = max(self.in_flight, self.most_in_flight)
        assert self.gate.acquire(timeout=30)
        with self.lock:
            self.in_flight -= 1
            return super().send_message_batch(QueueUrl=QueueUrl, Entries=Entries)


class VirtualThreads(VirtualClock):
    """Virtual time that never passes, for several threads, with real calls."""

    def __init__(self):
        super().__init__()
        #: The number of threads that wait.
        self.waiting = 0
        self._lock = threading.Lock()

    def start(self, function):
        threading.Thread(target=function, daemon=True).start()

    def start_driver(self, function):
        Clock.start_driver(self, function)

    def get(self, queue, seconds=float("inf")):
        with self._lock:
            self.waiting += 1
        item = queue.get(timeout=30)
        with self._lock:
            self.waiting -= 1
        return item


class SharedClock(Clock):
    """Virtual time for several threads, which passes when the test says so. Calls have real threads."""

    def __init__(self):
        self.time = 0.0
        self._lock = threading.Lock()
        #: When the threads that wait want to wake.
        self._waits = {}

    def now(self):
        return self.time

    def get(self, queue, seconds=float("inf")):
        with self._lock:
            self._waits[queue] = self.time + seconds
        item = queue.get(timeout=30)
        with self._lock:
            self._waits.pop(queue, None)
        return item

    def pass_to(self, end, condition):
        """Passes time up to an end, from wake to wake, until a condition holds, at most 10 s in real time."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, f"the condition did not hold at {end}"
            with self._lock:
                wakes = [at for at in self._waits.values() if self.time < at <= end]
                self.time = min(wakes, default=self.time)
                for queue in [queue for queue, at in self._waits.items() if at <= self.time]:
                    del self._waits[queue]
                    queue.put(None)
            time.sleep(0.001)
