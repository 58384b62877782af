"""The engine in virtual time: when batches leave, and what is in flight."""

import heapq
import itertools
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer_producer._buffer import LINGER
from streamer_producer._engine import Engine
from streamer_producer._entry import Entry
from streamer_producer._failures import Failure
from streamer_producer._jobs import new_send

THROTTLED = Failure("not_taken", "throttled")


def entry(key=None, size=100):
    return Entry("x", size, key=key)


class Sends:
    """An engine, and its calls in the order of their beginnings."""

    def __init__(self, strict_order=False):
        self.engine = Engine(strict_order, lambda: 0.5)
        self.calls = []

    def begin(self, *entries, at=0.0, timeout=10.0):
        send = new_send(enumerate(entries), range(len(entries)), timeout, at, lambda: None)
        self.engine.begin(send, at)
        return send

    def poll(self, at):
        """Returns the sizes of the calls that begin."""
        calls = self.engine.poll(at)
        self.calls += calls
        return [len(call.jobs) for call in calls]

    def answer(self, place, at, result=None):
        call = self.calls[place]
        call.results[:] = [result] * len(call.jobs)
        self.engine.end_call(call, at)


def test_batch_fills_for_20_ms_during_a_call():
    sends = Sends()
    sends.begin(entry())
    assert sends.poll(0) == [1]
    for at in [0.001, 0.006, 0.011]:
        sends.begin(entry(), at=at)
        assert sends.poll(at) == []
    assert sends.engine.wake_at() == pytest.approx(0.021)
    assert sends.poll(0.0209) == []
    assert sends.poll(0.0211) == [3]


def test_batch_leaves_when_no_call_is_in_flight():
    sends = Sends()
    sends.begin(entry())
    sends.poll(0)
    sends.begin(entry(), at=0.001)
    sends.answer(0, 0.002)
    assert sends.poll(0.002) == [1]


def test_full_batch_leaves_at_once():
    sends = Sends()
    sends.begin(entry())
    sends.poll(0)
    sends.begin(*[entry()] * 25, at=0.001)
    assert sends.poll(0.001) == [10, 10]


def test_calls_in_flight_are_at_most_eight():
    sends = Sends()
    sends.begin(*[entry()] * 200)
    assert sends.poll(0) == [10] * 8
    assert sends.poll(1) == []
    sends.answer(0, 1)
    assert sends.poll(1) == [10]


def test_sends_over_16_mib_wait_for_capacity():
    """First come, first served: a small message does not overtake a large one."""
    sends = Sends()
    large = [sends.begin(entry(size=131_000), timeout=1 if number < 127 else 0.5) for number in range(136)]
    small = sends.begin(entry(), timeout=0.5)
    sends.poll(0)
    assert [group.has_capacity for group in small.groups] == [False]
    sends.poll(0.5)
    assert all("the producer's buffer is full" in str(send.errors[0]) for send in large[127:])
    assert not any(send.is_done for send in large[:127])
    sends.poll(1)
    later = sends.begin(entry(), at=1, timeout=1)
    for place in range(8):
        sends.answer(place, 1)
    sends.poll(1)
    sends.poll(2)
    assert "the queue has not answered" in str(later.errors[0])


def test_capacity_is_free_after_many_sends():
    sends = Sends()
    for number in range(500):
        sends.begin(entry(size=131_000), at=number, timeout=0.5)
        sends.poll(number)
        if number % 2:
            sends.answer(-1, number)
        sends.poll(number + 0.5)
        if not number % 2:
            sends.answer(-1, number)
    assert sends.engine._free == 16 * 1024 * 1024
    assert sends.engine.is_idle and sends.engine.wake_at() == float("inf")


def test_call_ends_after_five_seconds():
    sends = Sends()
    send = sends.begin(entry())
    sends.poll(0)
    assert sends.engine.wake_at() == 5
    assert sends.poll(5) == []
    # The pause is half of 100 ms. Then it lingers, because the first call has not ended.
    assert sends.poll(5.05) == []
    assert sends.poll(5.0699) == []
    assert sends.poll(5.0701) == [1]
    sends.answer(1, 5.1)
    assert send.is_done and not send.errors
    # The late answer.
    sends.answer(0, 6, THROTTLED)
    assert sends.engine.is_idle and not send.errors


def test_abandoned_entries_block_until_call_ends():
    sends = Sends(strict_order=True)
    sends.begin(entry("a"), timeout=1)
    sends.poll(0)
    sends.begin(entry("a"), at=0.5)
    sends.poll(1)
    assert sends.poll(2) == []
    sends.answer(0, 3)
    assert sends.poll(3) == [1]


def test_entry_given_up_in_a_pause_makes_way():
    sends = Sends(strict_order=True)
    first = sends.begin(entry("a"))
    sends.poll(0)
    sends.begin(entry("a"))
    sends.answer(0, 0, THROTTLED)
    assert sends.poll(0) == []
    sends.engine.give_up(first, 0.01)
    assert sends.poll(0.01) == [1]
    sends.answer(1, 0.02)
    assert sends.engine.wake_at() == float("inf")


def test_call_is_over_with_its_last_send():
    sends = Sends()
    first, second = sends.begin(entry()), sends.begin(entry())
    sends.poll(0)
    [call] = sends.calls
    aborted = []
    call.abort = lambda: aborted.append(True)
    sends.engine.give_up(first, 1)
    assert (call.is_over, aborted) == (False, [])
    sends.engine.give_up(second, 2)
    assert (call.is_over, aborted) == (True, [True])


def test_pause_is_at_most_half_of_the_time_left():
    sends = Sends()
    send = sends.begin(entry(), timeout=0.04)
    sends.poll(0)
    sends.answer(0, 0, THROTTLED)
    assert sends.poll(0.0199) == []
    assert sends.poll(0.0201) == [1]
    sends.answer(1, 0.035, THROTTLED)
    assert "throttled" in str(send.errors[0])


def test_entries_of_a_failed_call_share_the_next():
    shares = iter([0.2, 0.9, 0.4])
    sends = Sends()
    sends.engine = Engine(False, lambda: next(shares))
    sends.begin(*[entry()] * 10)
    assert sends.poll(0) == [10]
    sends.answer(0, 0, THROTTLED)
    assert sends.poll(0.0199) == []
    assert sends.poll(0.0201) == [10]
    assert next(shares) == 0.9


def test_entries_are_not_made_after_the_limit():
    """Their messages have an error all the same: also the one that is half in flight."""
    sends, made = Sends(), []

    def items():
        for number in range(30_000):
            made.append(number)
            # Each message has three entries.
            yield number // 3, entry(size=100_000)

    send = new_send(items(), [*range(10_000)], 1, 0, lambda: None)
    sends.engine.begin(send, 0)
    sends.poll(0)
    before = len(made)
    sends.poll(1)
    assert len(made) == before < 200 and send.is_done and sends.engine._free == 16 * 1024 * 1024
    assert sorted(send.errors) == [*range(10_000)]
    in_flight, waiting = str(send.errors[0]), str(send.errors[9_999])
    assert "the queue has not answered" in in_flight and "it waited behind others and was in no call" in waiting


def test_confirmed_messages_have_no_error_after_the_limit():
    sends = Sends()
    send = new_send(((number // 3, entry()) for number in range(900)), [*range(300)], 1, 0, lambda: None)
    sends.engine.begin(send, 0)
    sends.poll(0)
    for place in range(8):
        sends.answer(place, 0.5)
    sends.poll(1)
    # 80 entries are confirmed: those of 26 messages, and two of the next.
    assert sorted(send.errors) == [*range(26, 300)]


DENIED = Failure("refused", "denied", "AccessDenied")
INVALID = Failure("refused", "invalid", "InvalidMessageContents")


@pytest.mark.parametrize("results", [[DENIED, INVALID], [INVALID, DENIED], [DENIED, THROTTLED]])
def test_fault_of_the_queue_is_reported_first(results):
    """Of a message with several entries."""
    sends = Sends()
    send = new_send([(0, entry()), (0, entry())], [0], 1, 0, lambda: None)
    sends.engine.begin(send, 0)
    [call] = sends.engine.poll(0)
    call.results[:] = results
    sends.engine.end_call(call, 0.995)
    assert send.is_done and send.errors[0].code == "AccessDenied" and send.errors[0].is_queue_fault


def test_timers_of_ended_sends_are_removed():
    """Also those behind the timer of a call that is in flight."""
    sends = Sends()
    sends.begin(entry())
    sends.poll(0)
    for _ in range(1000):
        sends.begin(*[entry()] * 10)
        sends.poll(0)
        sends.answer(-1, 0)
    assert len(sends.engine._timers._heap) < 200


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
        #: The entries that could leave, and since when.
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
        """Remembers the entries that could leave, and since when. None remains if no call is in flight."""
        jobs = [job for send, *_ in self.sends for group in send.groups for job in group.jobs if not job.is_done]
        first = {}
        for job in sorted(jobs, key=lambda job: job.id):
            first.setdefault(job.entry.key, job)
        # Also those of entries that were given up in flight.
        in_flight = {job.entry.key for call in self.in_flight if not call.is_settled for job in call.jobs}
        ready = {
            job.entry.body
            for job in jobs
            if job.group.has_capacity
            and job.call is None
            and (job.timer is None or job.timer.function is None)
            and (job.entry.key is None or (first[job.entry.key] is job and job.entry.key not in in_flight))
        }
        assert not ready or self.in_flight, f"{ready} could leave at {self.now}"
        waiting = self.engine._waiting
        assert not waiting or waiting[0].size > self.engine._free, "a send could have capacity"
        self.ready = {body: self.ready.get(body, self.now) for body in ready} if len(self.in_flight) < 8 else {}

    def check_promptness(self):
        """An entry that could leave waits for at most 20 ms."""
        late = [body for body, since in self.ready.items() if self.now > since + LINGER + 1e-9]
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
