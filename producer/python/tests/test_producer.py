"""The synchronous producer."""

import json
import math
import os
import subprocess
import sys
import threading
import traceback
from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from clocks import VirtualClock, in_thread, until
from queues import Endpoint, MemoryQueue
from threads import HeldQueue, SharedClock, VirtualThreads

from streamer_producer import Message, Producer, SendAllError, SendError

URL = "http://127.0.0.1/outbound"


def message(number):
    return Message.connection("c").id(f"m{number}").payload("s3cret")


def messages(count):
    return [message(number) for number in range(count)]


def sizes(queue):
    return [len(entries) for entries in queue.calls]


def failure(function):
    with pytest.raises((SendError, SendAllError)) as raised:
        function()
    return raised.value


def test_threads_share_calls():
    queue = HeldQueue()
    clock = VirtualThreads()
    producer = Producer(URL, client=queue, _clock=clock)
    sends = [in_thread(lambda: producer.send(message(0)))]
    until(lambda: queue.arrived == [1])
    sends += [in_thread(lambda number=number: producer.send(message(number))) for number in range(1, 25)]
    until(lambda: sum(queue.arrived) == 21)
    queue.gate.release(10)
    assert [send() for send in sends] == [("result", None)] * 25
    assert sorted(sizes(queue)) == [1, 4, 10, 10]


def test_lone_message_leaves_at_once():
    clock, queue = VirtualClock(), MemoryQueue()
    Producer(URL, client=queue, _clock=clock).send(message(1))
    assert (sizes(queue), clock.now()) == ([1], 0)


def test_eight_calls_are_in_flight_at_once():
    queue = HeldQueue()
    producer = Producer(URL, client=queue, _clock=VirtualThreads())
    send = in_thread(lambda: producer.send_all(messages(200)))
    until(lambda: len(queue.arrived) == 8)
    queue.gate.release(20)
    assert send() == ("result", None)
    assert (queue.most_in_flight, sizes(queue)) == (8, [10] * 20)


def test_call_without_answer_keeps_its_place():
    """A thread that boto3 holds is not replaced: at most 8 calls exist, whatever the client's own time limits are."""
    queue, clock = HeldQueue(), VirtualClock()
    clock.start = VirtualThreads.start.__get__(clock)
    error = failure(lambda: Producer(URL, client=queue, _clock=clock).send_all(messages(200), timeout=60))
    assert len(error.unsent) == 200
    until(lambda: len(queue.arrived) == 8)
    queue.gate.release(8)


def test_message_without_answer_is_sent_again():
    """After 5 s, in another call. The late answer to the first has no effect."""
    queue, clock = HeldQueue(), SharedClock()
    producer = Producer(URL, client=queue, _clock=clock, _random=lambda: 0)
    send = in_thread(lambda: producer.send(message(1), timeout=9))
    clock.pass_to(5.02, lambda: queue.arrived == [1, 1])
    assert clock.time == pytest.approx(5.02)
    queue.gate.release(2)
    assert send() == ("result", None)
    until(lambda: sizes(queue) == [1, 1])
    assert producer.close()


def test_send_ends_at_its_time_limit():
    queue, clock = HeldQueue(), VirtualClock()
    clock.start = VirtualThreads.start.__get__(clock)
    producer = Producer(URL, client=queue, _clock=clock, _random=lambda: 0)
    error = failure(lambda: producer.send(message(1), timeout=7))
    cause = "the queue did not answer within 5 s"
    text = f"the queue did not confirm the message within 7 s: {cause}; send it again with the same id"
    assert (error.kind, str(error), clock.now()) == ("timed_out", text, 7)
    error = failure(lambda: producer.send(message(2), timeout=0.25))
    assert "within 0.25 s: the queue has not answered; send it again" in str(error)
    queue.gate.release(9)


def test_time_limits_hold_for_every_thread():
    queue, clock = HeldQueue(), SharedClock()
    producer = Producer(URL, client=queue, _clock=clock)
    ended = []

    def send(number, timeout):
        kind = "sent"
        try:
            producer.send(message(number), timeout=timeout)
        except SendError as error:
            kind = error.kind
        ended.append((number, kind, clock.time))

    for number, timeout in enumerate([3, 1, 2, 4]):
        in_thread(lambda number=number, timeout=timeout: send(number, timeout))
        until(lambda number=number: len(producer._threads._engine.sends) == number + 1)
    for end in range(1, 5):
        clock.pass_to(end, lambda end=end: len(ended) == end)
    assert ended == [(1, "timed_out", 1), (2, "timed_out", 2), (0, "timed_out", 3), (3, "timed_out", 4)]
    queue.gate.release(9)


def test_nothing_begins_after_the_time_limit():
    """The call that was in flight ends, and its error leads to no other call."""
    calls = []
    release, ended = threading.Event(), threading.Event()

    class Queue:
        def send_message_batch(self, *, QueueUrl, Entries):
            calls.append(len(Entries))
            assert release.wait(30)
            raise ClientError({"Error": {"Code": "InvalidMessageContents"}}, "SendMessageBatch")

    clock = VirtualClock()

    def start(function):
        threading.Thread(target=lambda: (function(), ended.set()), daemon=True).start()

    clock.start = start
    producer = Producer(URL, client=Queue(), _clock=clock)
    error = failure(lambda: producer.send_all(messages(3), timeout=3))
    assert {unsent.error.kind for unsent in error.unsent} == {"timed_out"}
    release.set()
    assert ended.wait(30)
    assert calls == [3]
    producer.close()


def test_no_thread_remains_after_a_send():
    with Endpoint() as queue:
        producer = Producer(queue.url, client=queue.client())
        producer.send_all(messages(25))
        until(lambda: "streamer-producer" not in [thread.name for thread in threading.enumerate()])
        until(lambda: not producer._threads._turn.locked())


def test_interrupted_send_is_given_up():
    queue, clock = HeldQueue(), VirtualThreads()
    producer = Producer(f"{URL}.fifo", client=queue, _clock=clock)
    waits = []

    def interrupt(waited, seconds=math.inf):
        if threading.current_thread() is not threading.main_thread():
            return VirtualThreads.get(clock, waited, seconds)
        waits.append(waited)
        until(lambda: queue.arrived == [1])
        raise KeyboardInterrupt

    clock.get = interrupt
    with pytest.raises(KeyboardInterrupt):
        producer.send_all(messages(3))
    del clock.get
    queue.gate.release(9)
    producer.close()
    assert (len(waits), queue.arrived) == (1, [1])


def test_message_that_was_given_up_makes_way():
    clock = VirtualClock()
    queue = MemoryQueue(lambda _, entries: ["throttled" if '"m0"' in entries[0]["MessageBody"] else "taken"])
    producer = Producer(f"{URL}.fifo", client=queue, _clock=clock, _random=lambda: 0.999)
    error = failure(lambda: producer.send_all([message(0)], timeout=0.25))
    assert "within 0.25 s: RequestThrottled: scripted; send it again" in str(error)
    producer.send(message(1))
    assert [json.loads(body)["id"] for body in queue.bodies] == ["m1"]


def test_closing_waits_for_sends_in_progress():
    queue, clock = HeldQueue(), VirtualThreads()
    producer = Producer(URL, client=queue, _clock=clock)
    send = in_thread(lambda: producer.send(message(1)))
    until(lambda: queue.arrived == [1])
    closed = []
    closes = [in_thread(lambda: closed.append(producer.close())) for _ in range(3)]
    # With the sender and the driver.
    until(lambda: clock.waiting == 5)
    error = failure(lambda: producer.send_all(messages(2)))
    text = "2 of 2 messages are not on the queue; the first: m0: the producer is closed: send through another one"
    assert (str(error), error.total) == (text, 2)
    assert [(unsent.index, unsent.id) for unsent in error.unsent] == [(0, "m0"), (1, "m1")]
    assert error.unsent[0].error.is_queue_fault
    assert closed == []
    queue.gate.release()
    assert send() == ("result", None)
    assert [close() for close in closes] == [("result", None)] * 3 and closed == [True] * 3


def test_wrong_arguments_say_the_remedy():
    with pytest.raises(TypeError, match=r"such as os.environ\['QUEUE_URL'\]"):
        Producer(os.environ.get("NO_SUCH_QUEUE"))
    producer = Producer(URL, client=MemoryQueue())
    with pytest.raises(TypeError, match="end the builder with its content"):
        producer.send(Message.connection("c"))
    for timeout in ["2 s", True, [2]]:
        with pytest.raises(TypeError, match="`timeout` is a number of seconds, such as 2.5, got type"):
            producer.send(message(1), timeout=timeout)
    for timeout, text in [(-1, "at least 0 seconds, got -1"), (float("nan"), "got nan"), (10**400, "at most 31536000")]:
        with pytest.raises(ValueError, match=text):
            producer.send(message(1), timeout=timeout)
        with pytest.raises(ValueError, match=text):
            producer.progress(Message.connection("c").request("r"), min_interval=timeout)
    with pytest.raises(TypeError, match="got a Message, which has its content already"):
        producer.progress(Message.connection("c").request("r").payload(1))


def test_fifo_queue_refuses_only_tenants():
    queue = MemoryQueue()
    user = Message.user("acme", "anna").id("m2").payload(1)
    error = failure(
        lambda: Producer(f"{URL}.fifo", client=queue).send_all(
            [message(0), Message.tenant("acme").id("m1").payload(1), user]
        )
    )
    assert [(unsent.index, unsent.error.kind) for unsent in error.unsent] == [(1, "tenant_on_fifo")]
    assert sorted(json.loads(body)["id"] for body in queue.bodies) == ["m0", "m2"]


def test_errors_hide_payloads_and_secrets():
    for answer in ["reset", {"error": "AccessDenied"}, ["refused"], ["throttled"], "dropped"]:
        with Endpoint(lambda _call, _entries, answer=answer: answer) as queue:
            producer = Producer(queue.url, client=queue.client(read_timeout=0.1), timeout=0.3)
            error = failure(lambda producer=producer: producer.send(message(1)))
        shown = "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))
        assert error.__cause__ is None or isinstance(error.__cause__, ClientError)
        assert not [secret for secret in ("s3cret", "Signature", "Credential") if secret in shown], shown


def test_unreachable_queue_is_named_as_such():
    with Endpoint() as queue:
        client = queue.client()
    error = failure(lambda: Producer(queue.url, client=client).send(message(1), timeout=0.3))
    text = "the queue did not confirm the message within 0.3 s: no answer: EndpointConnectionError; "
    assert str(error).startswith(text)


def test_process_ends_with_its_last_send():
    script = """
import sys
from streamer_producer import Message, Producer, SendError
producer = Producer(sys.argv[1])
try:
    producer.send(Message.connection("c").payload(1), timeout=0.2)
except SendError as error:
    print(error.kind)
producer.send(Message.connection("c").payload(1))
"""
    with Endpoint(lambda call, _: "taken" if call else "dropped") as queue:
        variables = {
            "AWS_ENDPOINT_URL_SQS": queue.base,
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        command = [sys.executable, "-c", script, queue.url]
        folder = Path(__file__).parent
        output = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, timeout=60)
        assert (output.stdout, output.stderr, len(queue.calls)) == (b"timed_out\n", b"", 2)
