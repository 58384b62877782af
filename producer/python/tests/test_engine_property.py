"""Random sends through the engine in virtual time, compared with a model of the entries that could leave."""

import heapq
import itertools
import os

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer_producer._buffer import LINGER
from streamer_producer._engine import Engine
from streamer_producer._entry import Entry
from streamer_producer._failures import Failure
from streamer_producer._jobs import new_send

THROTTLED = Failure("not_taken", "throttled")

results = st.sampled_from([None, None, None, THROTTLED, Failure("refused", "refused", "InvalidMessageContents")])
#: How long a call takes, and the results of its entries.
played = st.tuples(st.one_of(st.floats(0, 0.2), st.floats(0, 8)), st.lists(results, min_size=10, max_size=10))
begun = st.tuples(
    st.one_of(st.just(0.0), st.floats(0, 1)),  # the time before it
    st.one_of(st.just(10.0), st.floats(0, 12)),  # its time limit
    st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.sampled_from([100, 131_000])), min_size=1, max_size=25),
    st.one_of(st.just(None), st.just(None), st.floats(0, 5)),  # after which time its caller leaves
)


class World:
    """Sends and calls in virtual time."""

    def __init__(self, strict_order, answers):
        self.strict_order = strict_order
        self.engine = Engine(strict_order, lambda: 0.7)
        self.answers = itertools.chain(answers, itertools.repeat((0.01, [None] * 10)))
        self.events = []
        self.order = itertools.count()
        self.in_flight = []
        #: The entries that could leave, and when they must have.
        self.ready = {}
        #: The entries that a result in time has confirmed.
        self.confirmed = set()
        self.begun = []
        self.sends = []
        self.ended = {}

    def at(self, time, function, *arguments):
        heapq.heappush(self.events, (time, next(self.order), function, arguments))

    def begin(self, entries, timeout, leaves_after, now):
        number = len(self.sends)
        items = [(place, Entry(f"{number}/{place}", size, key=key)) for place, (key, size) in enumerate(entries)]
        send = new_send(items, range(len(items)), timeout, now, lambda: self.ended.setdefault(number, self.now))
        self.engine.begin(send, now)
        self.sends.append((send, now, items, leaves_after))
        if leaves_after is not None:
            self.at(now + leaves_after, self.engine.give_up, send)

    def start(self, call, now):
        jobs = call.jobs
        assert len(jobs) <= 10 and sum(job.entry.size for job in jobs) <= 1024 * 1024
        bodies = [job.entry.body for job in jobs]
        assert not self.confirmed.intersection(bodies), "a message was sent again after it was confirmed"
        keys = [job.entry.key for job in jobs if job.entry.key]
        assert not self.strict_order or len(keys) == len(set(keys)), "a group has two messages in one call"
        self.begun.append([job.entry for job in jobs])
        self.in_flight.append(call)
        assert len(self.in_flight) <= 8
        latency, results = next(self.answers)
        self.at(now + latency, self.end, call, results, latency)

    def end(self, call, results, latency, now):
        self.in_flight.remove(call)
        if latency < 5:
            for job, result in zip(call.jobs, results, strict=False):
                if result is None:
                    self.confirmed.add(job.entry.body)
        call.results[:] = results[: len(call.jobs)]
        self.engine.end_call(call, now)

    def play(self):
        while True:
            wake_at = self.engine.wake_at()
            self.now = min(wake_at, self.events[0][0] if self.events else float("inf"))
            self.check_promptness()
            if self.now == float("inf"):
                return
            while self.events and self.events[0][0] <= self.now:
                _, _, function, arguments = heapq.heappop(self.events)
                function(*arguments, self.now)
            for call in self.engine.poll(self.now):
                self.start(call, self.now)
            self.see_ready()

    def see_ready(self):
        """Remembers the entries that could leave, and when they must have. None remains if no call is in flight."""
        jobs = [job for send, *_ in self.sends for group in send.groups for job in group.jobs if not job.is_done]
        first = {}
        for job in sorted(jobs, key=lambda job: job.id):
            first.setdefault(job.entry.key, job)
        # Also those of entries that were given up in flight.
        in_flight = {job.entry.key for call in self.in_flight if not call.is_settled for job in call.jobs}
        ready = {
            job.entry.body: self.now + min(LINGER, (job.group.send.deadline - self.now) / 2)
            for job in jobs
            if job.group.has_capacity
            and job.call is None
            and (job.timer is None or job.timer.function is None)
            and (job.entry.key is None or (first[job.entry.key] is job and job.entry.key not in in_flight))
        }
        assert not ready or self.in_flight, f"{ready} could leave at {self.now}"
        waiting = self.engine._waiting
        assert not waiting or waiting[0].size > self.engine._free, "a send could have capacity"
        self.ready = {body: self.ready.get(body, at) for body, at in ready.items()} if len(self.in_flight) < 8 else {}

    def check_promptness(self):
        """An entry that could leave waits for at most 20 ms, and at most half of the time that it has left."""
        late = [body for body, at in self.ready.items() if self.now > at + 1e-9]
        assert not late, f"{late} could have left before {self.now}"


@settings(max_examples=int(os.environ.get("RUNS", 150)), deadline=None, derandomize="RUNS" not in os.environ)
@given(st.booleans(), st.lists(begun, min_size=1, max_size=12), st.lists(played, max_size=25))
def test_entries_are_confirmed_or_named(strict_order, plan, answers):
    world = World(strict_order, answers)
    time = 0.0
    for after, timeout, entries, leaves_after in plan:
        time += after
        world.at(time, world.begin, entries, timeout, leaves_after)
    world.play()
    assert world.engine.is_idle and world.engine._free == 16 * 1024 * 1024 and not world.engine._buffer._slots
    for number, (send, began, items, leaves_after) in enumerate(world.sends):
        assert send.is_done and world.ended[number] <= began + send.timeout
        unsent = {place for place, entry in items if entry.body not in world.confirmed}
        # An entry that its sender gave up may be confirmed later.
        assert unsent <= set(send.errors)
        for place in set(send.errors) - unsent:
            assert send.errors[place].kind == "timed_out"
            assert leaves_after is not None or world.ended[number] == send.deadline
    check_order(world)


@settings(max_examples=50, deadline=None, derandomize="RUNS" not in os.environ)
@given(st.booleans(), st.lists(begun, min_size=1, max_size=12))
def test_queue_that_answers_gets_every_entry(strict_order, plan):
    world = World(strict_order, [])
    time = 0.0
    for after, _, entries, _ in plan:
        time += after
        world.at(time, world.begin, entries, 10, None)
    world.play()
    assert all(send.is_done and not send.errors for send, *_ in world.sends)


def check_order(world):
    """Entries with the same key leave in order."""
    for key in ["a", "b"]:
        bodies = [entry.body for entries in world.begun for entry in entries if entry.key == key]
        first = list(dict.fromkeys(bodies))
        assert first == sorted(first, key=lambda body: [int(part) for part in body.split("/")])
