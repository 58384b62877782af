"""The engine in virtual time: when batches leave, and what is in flight."""

import pytest

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


def test_batch_fills_during_a_call():
    sends = Sends()
    sends.begin(entry())
    assert sends.poll(0) == [1]
    for at in [0.001, 0.006, 0.011]:
        sends.begin(entry(), at=at)
        assert sends.poll(at) == []
    assert sends.engine.wake_at() == pytest.approx(0.021)
    assert sends.poll(0.0209) == []
    assert sends.poll(0.0211) == [3]


def test_short_time_limit_has_an_attempt():
    sends = Sends()
    sends.begin(entry())
    sends.poll(0)
    sends.begin(entry(), timeout=0.015)
    assert sends.poll(0.0074) == []
    assert sends.poll(0.0076) == [1]


def test_batch_leaves_without_a_call_in_flight():
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


def test_entry_cancelled_in_a_pause_makes_way():
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


def test_pause_is_at_most_half_the_rest():
    sends = Sends()
    send = sends.begin(entry(), timeout=0.04)
    sends.poll(0)
    sends.answer(0, 0, THROTTLED)
    assert sends.poll(0.0199) == []
    assert sends.poll(0.0201) == [1]
    sends.answer(1, 0.035, THROTTLED)
    assert "throttled" in str(send.errors[0])


def test_entries_of_failed_calls_share_the_next():
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


def test_confirmed_messages_have_no_error_at_limit():
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


def test_known_results_count_at_the_limit():
    """The call goes on: its entries are sent one by one."""
    sends = Sends()
    send = sends.begin(*[entry()] * 4, timeout=1)
    sends.poll(0)
    sends.calls[0].results[:3] = [None, INVALID, THROTTLED]
    sends.poll(1)
    assert {index: error.kind for index, error in send.errors.items()} == {1: "refused", 2: "timed_out", 3: "timed_out"}
    assert "throttled" in str(send.errors[2]) and "has not answered" in str(send.errors[3])


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
