"""Exceptions at any point of a send, as signal handlers raise them; and processes in which no thread can be started."""

import gc
import itertools
import math
import os
import signal
import sys
import threading
from pathlib import Path
from random import Random

import pytest
from clocks import VirtualClock, in_thread, until
from queues import MemoryQueue
from threads import HeldQueue, SharedClock, VirtualThreads

from streamer_producer import Message, Producer, SendAllError
from streamer_producer import _batch as batches
from streamer_producer import _threads as threads
from streamer_producer._clock import Clock
from streamer_producer._engine import Engine
from streamer_producer._entry import entries_of
from streamer_producer._jobs import new_send
from streamer_producer._queue import Attempt

URL = "http://127.0.0.1/outbound"


def message(number):
    return Message.connection("c").id(f"m{number}").payload("s3cret")


def messages(count):
    return [message(number) for number in range(count)]


def raise_interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture
def alarm():
    """Returns a function that raises `KeyboardInterrupt` in this thread, wherever it is after these seconds."""
    before = signal.signal(signal.SIGALRM, raise_interrupt)
    # An exception in a callback of the collector, such as that of Hypothesis, would only be a warning.
    gc.disable()
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    gc.enable()


def interrupted(alarm, seconds, send):
    """Returns the error of a send that is interrupted after these seconds, if it has not ended."""
    try:
        try:
            alarm(seconds)
            send()
        finally:
            alarm(0)
    except BaseException as error:
        return error


def check_usable(producer):
    """A send begins and ends, and nothing is left of those before it."""
    assert in_thread(lambda: producer.send(message(0)))() == ("result", None)
    assert in_thread(producer.close)() == ("result", True)
    until(lambda: not producer._threads._turn.locked())
    assert producer._threads._engine._free == 16 * 1024 * 1024


@pytest.mark.parametrize("has_threads", [True, False])
def test_send_may_be_interrupted_anywhere(alarm, has_threads):
    """At many moments from the beginning of a send to its end."""
    random, errors, clock = Random(7), [], Clock()
    if not has_threads:
        clock.start = clock.start_driver = refuse
    for _ in range(int(os.environ.get("RUNS", 300))):
        producer = Producer(URL, client=MemoryQueue(), _clock=clock)
        error = interrupted(alarm, random.uniform(1e-5, 8e-4), lambda producer=producer: producer.send_all(messages(10)))
        errors.append(error)
        check_usable(producer)
    assert {type(error) for error in errors} <= {type(None), KeyboardInterrupt}
    assert not any("s3cret" in str(error) for error in errors)


def test_interrupt_leaves_other_sends_alone(alarm):
    random, queue = Random(7), MemoryQueue()
    producer, ended = Producer(URL, client=queue), threading.Event()

    def send():
        sent = 0
        while not ended.is_set():
            producer.send_all(messages(10))
            sent += 10
        return sent

    other = in_thread(send)
    for _ in range(200):
        interrupted(alarm, random.uniform(1e-5, 8e-4), lambda: producer.send_all(messages(10)))
    ended.set()
    outcome, sent = other()
    assert outcome == "result" and len(queue.taken) >= sent > 0
    check_usable(producer)


def test_send_may_be_interrupted_at_every_line():
    """Of the package and of `threading`, in the thread that sends."""
    files = (str(Path(threads.__file__).parent), threading.__file__)
    for interrupted_at in itertools.count(1):
        producer, seen = Producer(URL, client=MemoryQueue()), itertools.count(1)

        def trace(frame, event, _, seen=seen, interrupted_at=interrupted_at):
            if not frame.f_code.co_filename.startswith(files):
                return None
            if event == "line" and next(seen) == interrupted_at:
                sys.settrace(None)
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            producer.send_all(messages(3))
            break
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        check_usable(producer)
    # No interrupt was lost: the last send had fewer lines.
    assert 50 < next(seen) <= interrupted_at


def test_text_of_entries_holds_no_payload():
    [entry] = entries_of(message(0)._fields, False)
    send = new_send([(0, entry)], [0], 1, 0, lambda: None)
    engine = Engine(False, lambda: 0.5)
    engine.begin(send, 0)
    [call] = engine.poll(0)
    [job] = call.jobs
    texts = [repr(value) for value in (entry, send, call, job, job.group, message(0)._fields, Attempt([entry], {}))]
    assert not any("s3cret" in text for text in texts)


def test_error_of_the_driver_ends_all_sends(monkeypatch):
    """The queue may have their messages. The driver goes on with the sends after them."""
    queue = HeldQueue()
    producer = Producer(URL, client=queue, _clock=VirtualThreads())
    send = in_thread(lambda: producer.send(message(0)))
    until(lambda: queue.arrived == [1])

    def fail(*_):
        raise MemoryError("s3cret")

    with monkeypatch.context() as patch:
        patch.setattr(batches, "entries_of", fail)
        errors = [in_thread(lambda: producer.send(message(1)))()[1], send()[1]]
    texts = ["the producer failed with MemoryError, and the queue may have the message: send it again with the same id"]
    assert [(error.kind, str(error)) for error in errors] == [("timed_out", text) for text in texts * 2]
    queue.gate.release(2)
    check_usable(producer)


def test_call_begun_after_the_limit_is_idle():
    queue, clock = MemoryQueue(), VirtualClock()
    late = []
    clock.start = late.append
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(SendAllError):
        producer.send_all(messages(1), timeout=2)
    late[0]()
    assert queue.calls == [] and producer.close()


def refuse(function):
    raise RuntimeError("can't start new thread")


class Threadless(VirtualClock):
    """Virtual time without threads."""

    def start(self, function):
        refuse(function)

    start_driver = start

    def get(self, queue, seconds=math.inf):
        if queue.empty():
            self.time += seconds
            return None
        return queue.get()


def test_sends_without_threads_leave_in_turn():
    queue, clock = MemoryQueue(), Threadless()
    producer = Producer(URL, client=queue, _clock=clock)
    producer.send_all(messages(5000))
    assert [len(entries) for entries in queue.calls] == [10] * 500 and producer.close()


class SlowQueue(MemoryQueue):
    """A queue that takes 0.3 s for each call."""

    def __init__(self, clock, script=lambda call, entries: "taken"):
        super().__init__(script)
        self.clock = clock

    def send_message_batch(self, **request):
        self.clock.time += 0.3
        return super().send_message_batch(**request)


def test_retry_without_threads_is_on_time():
    clock = Threadless()
    queue = SlowQueue(clock, lambda call, _: ["taken" if call else "throttled"])
    Producer(URL, client=queue, _clock=clock, _random=lambda: 1).send(message(0))
    assert clock.time == pytest.approx(0.3 + 0.1 + 0.3)


def test_send_without_threads_leaves_other_calls_alone():
    """Its time is over: another thread makes the calls that are due for that thread."""
    clock, made = SharedClock(), []

    class Queue(MemoryQueue):
        def send_message_batch(self, **request):
            made.append(threading.current_thread())
            if len(made) == 1:
                others.append(in_thread(lambda: producer.send(Message.connection("d").payload(1))))
                until(lambda: len(producer._threads._events) == 1)
                # Over the limit of the first send.
                clock.time = 2
            return super().send_message_batch(**request)

    clock.start = clock.start_driver = refuse
    others = []
    producer = Producer(f"{URL}.fifo", client=Queue(), _clock=clock, _random=lambda: 0.5)
    with pytest.raises(SendAllError):
        producer.send_all(messages(2), timeout=1)
    clock.pass_to(3, lambda: len(made) == 2)
    assert others[0]() == ("result", None)
    assert [thread is threading.current_thread() for thread in made] == [True, False] and producer.close()


def test_send_behind_the_last_without_threads_leaves():
    """It begins when the thread that makes the calls has seen all events, and does not look again."""
    others, waiting, thread = [], [], threading.current_thread()

    class Late(Clock):
        def now(self):
            if queue.calls and not others and threading.current_thread() is thread and producer._threads._engine.is_idle:
                others.append(in_thread(lambda: producer.send(message(1))))
                until(lambda: waiting)
            return super().now()

        def get(self, queue, seconds=math.inf):
            if threading.current_thread() is not thread:
                waiting.append(queue)
            return super().get(queue, seconds)

    queue, clock = MemoryQueue(), Late()
    clock.start = clock.start_driver = refuse
    producer = Producer(URL, client=queue, _clock=clock)
    producer.send(message(0))
    assert others[0]() == ("result", None) and len(queue.taken) == 2


def test_exit_of_a_call_is_retried():
    class Queue(MemoryQueue):
        def send_message_batch(self, **request):
            output = super().send_message_batch(**request)
            if len(self.calls) == 1:
                raise SystemExit
            return output

    queue, clock = Queue(), SharedClock()
    # Otherwise, pytest warns of a thread that ends with an exception.
    clock.start = in_thread
    producer = Producer(URL, client=queue, _clock=clock, _random=lambda: 0.5)
    send = in_thread(lambda: producer.send_all(messages(100)))
    clock.pass_to(1, lambda: not producer._threads._engine.sends and len(queue.calls) >= 11)
    assert send() == ("result", None) and producer.close()


def test_send_without_threads_ends_after_its_limit():
    """With the call that is in flight then."""
    clock = Threadless()
    queue = SlowQueue(clock)
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(SendAllError) as raised:
        producer.send_all(messages(200), timeout=0.7)
    # The third call has ended after the limit, and has its result.
    assert (len(queue.calls), clock.time) == (3, pytest.approx(0.9))
    assert len(raised.value.unsent) == 170 and producer.close()


def test_threads_without_call_threads_take_turns():
    queue, clock = MemoryQueue(), Clock()
    clock.start = clock.start_driver = refuse
    producer = Producer(URL, client=queue, _clock=clock)
    sends = [in_thread(lambda: producer.send_all(messages(300))) for _ in range(4)]
    assert [send() for send in sends] == [("result", None)] * 4
    assert len(queue.taken) == 1200 and producer.close()


def test_closing_ends_at_its_time_limit():
    queue, clock = HeldQueue(), VirtualClock()
    clock.start = VirtualThreads.start.__get__(clock)
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(SendAllError):
        producer.send_all(messages(1), timeout=2)
    assert (producer.close(timeout=3), clock.time) == (False, 5)
    queue.gate.release()
    until(lambda: producer._threads._engine.is_idle)
    assert producer.close()
