"""Exceptions at any point of a send, as signal handlers raise them; and processes in which no thread can be started."""

import threading

import pytest
from clocks import VirtualClock, in_thread, until
from queues import MemoryQueue
from threads import HeldQueue, SharedClock, VirtualThreads

from streamer_producer import Message, Producer, SendAllError
from streamer_producer import _batch as batches
from streamer_producer._clock import Clock

URL = "http://127.0.0.1/outbound"


def message(number):
    return Message.connection("c").id(f"m{number}").payload(1)


def messages(count):
    return [message(number) for number in range(count)]


@pytest.mark.parametrize("begins", [False, True])
def test_interrupted_start_of_a_thread_frees_calls(begins):
    """The thread exists, or does not. The calls after it have no thread."""
    queue, clock = HeldQueue(), VirtualThreads()
    started = []

    def start(function):
        started.append(function)
        if len(started) != 3:
            return VirtualThreads.start(clock, function)
        if begins:
            VirtualThreads.start(clock, function)
            until(lambda: len(queue.arrived) == 3)
        raise KeyboardInterrupt

    clock.start = start
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(KeyboardInterrupt):
        producer.send_all(messages(200))
    queue.gate.release(9)
    assert in_thread(lambda: producer.send(message(0)))() == ("result", None)
    assert in_thread(producer.close)() == ("result", True)
    assert len(queue.calls) == (4 if begins else 3)


def test_thread_begun_after_an_interrupt_is_idle():
    """It has started, but its call was given up before."""
    queue, clock = MemoryQueue(), VirtualThreads()
    late = []

    def start(function):
        late.append(function)
        raise KeyboardInterrupt

    clock.start = start
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(KeyboardInterrupt):
        producer.send(message(0))
    late[0]()
    assert queue.calls == [] and producer.close()


def test_thread_begun_after_the_limit_is_idle():
    queue, clock = MemoryQueue(), VirtualClock()
    late = []
    clock.start = late.append
    producer = Producer(URL, client=queue, _clock=clock)
    with pytest.raises(SendAllError):
        producer.send_all(messages(1), timeout=2)
    late[0]()
    assert queue.calls == [] and producer.close()


def test_calls_of_an_interrupted_thread_are_retried():
    """The call held the message of another thread."""
    queue, clock = MemoryQueue(), SharedClock()
    producer = Producer(URL, client=queue, _clock=clock, _random=lambda: 0.5)
    started = []

    def start(function):
        started.append(function)
        if len(started) == 1:
            until(lambda: len(producer._threads._waiters) == 2)
            raise KeyboardInterrupt
        Clock.start(clock, function)

    clock.start = start
    first = in_thread(lambda: producer.send(message(0)))
    until(lambda: len(started) == 1)
    second = in_thread(lambda: producer.send(message(1)))
    assert isinstance(first()[1], KeyboardInterrupt)
    clock.pass_to(1, lambda: len(queue.taken) == 1)
    assert second() == ("result", None) and producer.close()


def test_interrupted_encoding_is_given_up(monkeypatch):
    queue, clock = MemoryQueue(), VirtualClock()
    producer = Producer(URL, client=queue, _clock=clock)
    encoded = []

    def interrupted(*arguments):
        encoded.append(arguments)
        if len(encoded) == 25:
            raise KeyboardInterrupt
        return original(*arguments)

    original = batches.entries_of
    monkeypatch.setattr(batches, "entries_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        producer.send_all(messages(50))
    producer.send(message(0))
    assert producer.close() and not producer._threads._waiters
    # Nothing of the send that was given up.
    assert len(queue.taken) == 1


def test_message_behind_an_interrupted_one_leaves():
    """Also if neither thread watches the time."""
    clock, local = SharedClock(), threading.local()

    class Queue(HeldQueue):
        def send_message_batch(self, *, QueueUrl, Entries):
            if Entries[0]["MessageGroupId"] == "other":
                return super().send_message_batch(QueueUrl=QueueUrl, Entries=Entries)
            return MemoryQueue.send_message_batch(self, QueueUrl=QueueUrl, Entries=Entries)

    queue = Queue(lambda _, entries: ["throttled" if '"m0"' in entries[0]["MessageBody"] else "taken"])
    producer = Producer(f"{URL}.fifo", client=queue, _clock=clock, _random=lambda: 1)
    in_thread(lambda: producer.send(Message.connection("other").payload(1)))
    until(lambda: queue.arrived == [1])

    def wait(event, seconds):
        if getattr(local, "is_interrupted", False):
            until(lambda: len(producer._threads._waiters) == 3 and clock.time > 0 and queue.calls)
            until(lambda: len(clock._waits) == 2)
            raise KeyboardInterrupt
        SharedClock.wait(clock, event, seconds)

    clock.wait = wait

    def interrupted():
        local.is_interrupted = True
        producer.send(message(0))

    first = in_thread(interrupted)
    until(lambda: len(producer._threads._waiters) == 2)
    clock.pass_to(0.02, lambda: queue.calls)
    second = in_thread(lambda: producer.send(message(1)))
    assert isinstance(first()[1], KeyboardInterrupt)
    # 20 ms later, and not at the next timer, which was the end of the pause after 100 ms.
    clock.pass_to(0.06, lambda: len(queue.calls) == 2)
    assert second() == ("result", None)
    queue.gate.release(9)


class Threadless(VirtualClock):
    """Virtual time without threads."""

    def start(self, function):
        raise RuntimeError("can't start new thread")


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

    def start(function):
        raise RuntimeError("can't start new thread")

    class Queue(MemoryQueue):
        def send_message_batch(self, **request):
            made.append(threading.current_thread())
            if len(made) == 1:
                others.append(in_thread(lambda: producer.send(Message.connection("d").payload(1))))
                until(lambda: len(producer._threads._waiters) == 2)
                # Over the limit of the first send.
                clock.time = 2
            return super().send_message_batch(**request)

    clock.start = start
    others = []
    producer = Producer(f"{URL}.fifo", client=Queue(), _clock=clock, _random=lambda: 0.5)
    with pytest.raises(SendAllError):
        producer.send_all(messages(2), timeout=1)
    clock.pass_to(3, lambda: len(made) == 2)
    assert others[0]() == ("result", None)
    assert [thread is threading.current_thread() for thread in made] == [True, False] and producer.close()


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
    clock.pass_to(1, lambda: not producer._threads._waiters and len(queue.calls) >= 11)
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
    class Real(Clock):
        def start(self, function):
            raise RuntimeError("can't start new thread")

    queue = MemoryQueue()
    producer = Producer(URL, client=queue, _clock=Real())
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
