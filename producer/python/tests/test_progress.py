"""Progress, beyond the cases of the vectors."""

import asyncio
import json

import pytest
from clocks import VirtualClock, in_thread, run, until
from queues import Asynchronous, MemoryQueue
from test_async import SilentQueue
from threads import HeldQueue, VirtualThreads

from streamer_producer import AsyncProducer, Message, Producer, ProgressError, SendError

URL = "http://127.0.0.1/outbound"


def contents(queue):
    payloads = [json.loads(body)["payload"] for body in queue.bodies]
    return [(payload["type"], payload.get("progress", payload.get("result"))) for payload in payloads]


def begin(queue, clock):
    return Producer(URL, client=queue, _clock=clock).progress(Message.connection("c").request("r"))


def test_request_has_one_end():
    queue = MemoryQueue()
    progress = begin(queue, VirtualClock())
    progress.complete(1)
    for call in [lambda: progress.fail("late", "a second end"), lambda: progress.update(100)]:
        with pytest.raises(ProgressError) as raised:
            call()
        assert raised.value.kind == "ended"
    progress.flush()
    assert contents(queue) == [("complete", 1)]


def test_at_most_ten_updates_leave_per_second():
    queue, clock = MemoryQueue(), VirtualClock()
    progress = begin(queue, clock)
    for step in range(1024):
        clock.time = step / 1024
        progress.update(step * 100 // 1024)
    assert len(queue.bodies) == 10


def test_end_has_a_time_limit_of_its_own():
    clock = VirtualClock()
    progress = begin(MemoryQueue(lambda *_: ["throttled"]), clock)
    ends = [progress.complete, progress.respond, lambda result, **limit: progress.fail("internal", result, **limit)]
    for end in ends:
        began = clock.time
        with pytest.raises(SendError):
            end("x", timeout=3)
        assert clock.time - began == pytest.approx(3, abs=0.1)


def test_asynchronous_end_has_a_time_limit_of_its_own():
    async def play():
        producer = AsyncProducer(URL, Asynchronous(MemoryQueue(lambda *_: ["throttled"])))
        progress = producer.progress(Message.connection("c").request("r"))
        for end in [progress.complete, progress.respond, lambda data, **limit: progress.fail("x", data, **limit)]:
            began = asyncio.get_running_loop().time()
            with pytest.raises(SendError):
                await end("x", timeout=3)
            assert asyncio.get_running_loop().time() - began == pytest.approx(3, abs=0.1)

    run(play)


def test_block_sends_its_last_update():
    queue = MemoryQueue()
    with begin(queue, VirtualClock()) as progress:
        progress.update(1)
        progress.update(2)
    assert contents(queue) == [("progress", 1), ("progress", 2)]


def test_failed_block_keeps_its_update():
    queue, clock = MemoryQueue(), VirtualClock()
    with pytest.raises(ZeroDivisionError), begin(queue, clock) as progress:
        progress.update(1)
        progress.update(2)
        print(1 / 0)
    assert contents(queue) == [("progress", 1)]
    progress.fail("internal", "no report")
    assert contents(queue) == [("progress", 1), ("progress", 2), ("error", None)]

    async def play():
        producer = AsyncProducer(URL, Asynchronous(queue))
        async with producer.progress(Message.connection("c").request("r")) as progress:
            await progress.update(3)
            await progress.update(4)
            print(1 / 0)

    with pytest.raises(ZeroDivisionError):
        run(play)
    assert contents(queue)[3:] == [("progress", 3)]


def test_block_reports_an_update_that_failed():
    queue = MemoryQueue(lambda call, entries: ["throttled" if call else "taken"])
    with pytest.raises(SendError), begin(queue, VirtualClock()) as progress:
        progress.update(1)
        progress.update(2)


def test_update_does_not_wait_for_another_thread():
    queue = HeldQueue()
    progress = begin(queue, VirtualThreads())
    first = in_thread(lambda: progress.update(10))
    until(lambda: queue.arrived == [1])
    progress.update(20)
    progress.update(30)
    end = in_thread(lambda: progress.complete("done"))
    queue.gate.release(3)
    assert (first(), end()) == (("result", None), ("result", None))
    assert contents(queue) == [("progress", 10), ("progress", 30), ("complete", "done")]
    seqs = [json.loads(body)["request"]["seq"] for body in queue.bodies]
    assert seqs == sorted(set(seqs))


def is_end(entries):
    return '"complete"' in entries[0]["MessageBody"]


def test_failed_update_uses_half_the_time():
    queue, clock = MemoryQueue(lambda _, entries: ["taken" if is_end(entries) else "throttled"]), VirtualClock()
    progress = begin(queue, clock)
    with pytest.raises(SendError):
        progress.update(1)
    assert clock.now() == pytest.approx(10, abs=0.02)
    progress.complete("done")
    assert clock.now() == pytest.approx(15, abs=0.04)
    assert contents(queue) == [("complete", "done")]


def test_failed_end_keeps_its_time_limit():
    queue, clock = MemoryQueue(lambda _, entries: ["throttled"]), VirtualClock()
    progress = begin(queue, clock)
    for end in [10, 20]:
        with pytest.raises(SendError):
            progress.update(1) if end == 10 else progress.complete("done")
        assert clock.now() == pytest.approx(end, abs=0.04)


@pytest.mark.parametrize("call", ["update", "complete"])
def test_wait_for_another_thread_has_a_limit(call):
    queue, clock = MemoryQueue(lambda _, entries: ["throttled"]), VirtualClock()
    waits = []

    def acquire(lock, seconds):
        """The other thread sends for 4 s, and then, for longer than the limit."""
        waits.append(seconds)
        clock.time += 4 if len(waits) == 1 else seconds
        return len(waits) == 1 and lock.acquire()

    clock.acquire = acquire
    progress = begin(queue, clock)
    with pytest.raises(SendError):
        progress.update(1) if call == "update" else progress.complete(1)
    assert clock.now() == pytest.approx(10, abs=0.04)
    calls = len(queue.calls)
    with pytest.raises(SendError) as raised:
        progress.update(2) if call == "update" else progress.complete(1)
    cause = "because another thread was sending the progress of this request"
    assert str(raised.value) == f"nothing was sent within 10 s, {cause}: call it again"
    assert (raised.value.kind, waits, len(queue.calls)) == ("timed_out", [10, 10], calls)


def test_wait_for_another_task_has_a_limit():
    async def play():
        loop, ended = asyncio.get_running_loop(), []
        progress = AsyncProducer(URL, SilentQueue()).progress(Message.connection("c").request("r"), timeout=5)

        async def call(delay, function):
            await asyncio.sleep(delay)
            with pytest.raises(SendError) as raised:
                await function()
            ended.append((loop.time(), str(raised.value)[:40]))

        calls = [(0, lambda: progress.update(1)), (1, lambda: progress.complete(1)), (1, progress.flush)]
        await asyncio.gather(*(call(delay, function) for delay, function in calls))
        return ended

    times = run(play)
    assert [time for time, _ in times] == [5, 6, 6]
    # The second had the turn for 1 s, and the third not at all.
    texts = [text for _, text in times]
    assert sorted(texts)[0].startswith("nothing was sent within 5 s") and "did not confirm" in sorted(texts)[1]


def test_overlapping_calls_are_made_in_order():
    queue = MemoryQueue()

    async def play():
        producer = AsyncProducer(URL, Asynchronous(queue))
        async with producer.progress(Message.connection("c").request("r")) as progress:
            calls = [progress.update(10), progress.update(20), progress.update(30), progress.complete("done")]
            await asyncio.gather(*calls)

    run(play)
    assert contents(queue) == [("progress", 10), ("progress", 30), ("complete", "done")]


def test_end_that_failed_has_dropped_its_update():
    is_failing = True
    queue = MemoryQueue(lambda _, entries: ["throttled" if is_failing else "taken"])
    progress = begin(queue, VirtualClock())
    for call in [lambda: progress.update(1), lambda: progress.complete("done")]:
        with pytest.raises(SendError):
            call()
    is_failing = False
    progress.complete("done")
    assert contents(queue) == [("complete", "done")]


def test_overlapping_flushes_send_an_update_once():
    queue = MemoryQueue()

    async def play():
        progress = AsyncProducer(URL, Asynchronous(queue)).progress(Message.connection("c").request("r"))
        await progress.update(1)
        await progress.update(2)
        await asyncio.gather(progress.flush(), progress.flush())

    run(play)
    assert contents(queue) == [("progress", 1), ("progress", 2)]


def test_threads_flush_an_update_once():
    queue = HeldQueue()
    progress = begin(queue, VirtualThreads())
    queue.gate.release()
    progress.update(1)
    progress.update(2)
    flushes = [in_thread(progress.flush) for _ in range(2)]
    until(lambda: len(queue.arrived) == 2)
    queue.gate.release(3)
    assert [flush() for flush in flushes] == [("result", None)] * 2
    assert contents(queue) == [("progress", 1), ("progress", 2)]
