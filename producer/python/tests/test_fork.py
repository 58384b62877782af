"""Child processes that begin with a fork."""

import os
import signal
import time

import pytest
from clocks import in_thread, until
from queues import Endpoint
from threads import HeldQueue, VirtualThreads

from streamer_producer import Message, Producer, _ids

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork"),
    # Of Python, which warns of a fork in a program with threads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

URL = "http://127.0.0.1/outbound"


def message():
    return Message.connection("c").request("r").payload(1)


def result_in_child(function):
    """Returns the result of a function in a child process, or nothing if it failed or did not end."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(function())
        finally:
            os._exit(255)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
            return None if code == 255 else code
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_child_sends_during_its_parents_send():
    queue = HeldQueue()
    producer = Producer(URL, client=queue, _clock=VirtualThreads())
    send = in_thread(lambda: producer.send(message()))
    until(lambda: queue.arrived == [1])

    def play():
        queue.gate.release(9)
        producer.send(message())
        # The call of the parent is not waited for.
        return len(queue.taken) if producer.close() else 254

    assert result_in_child(play) == 1
    queue.gate.release()
    assert send() == ("result", None)
    assert len(queue.taken) == 1


def test_locks_of_the_parent_are_free():
    queue = HeldQueue()
    queue.gate.release(9)
    producer = Producer(URL, client=queue, _clock=VirtualThreads())
    with producer._threads._turn, _ids._sequence._lock:
        taken = result_in_child(lambda: producer.send(message()) or len(queue.taken))
    assert taken == 1


def test_closed_producer_stays_closed_in_the_child():
    producer = Producer(URL, client=HeldQueue())
    producer.close()

    def play():
        try:
            producer.send(message())
        except Exception as error:
            return int(error.kind == "closed")

    assert result_in_child(play) == 1


def test_child_opens_connections_of_its_own(monkeypatch):
    with Endpoint() as queue:
        settings = {"ENDPOINT_URL_SQS": queue.base, "DEFAULT_REGION": "eu-central-1"}
        for name, value in {**settings, "ACCESS_KEY_ID": "test", "SECRET_ACCESS_KEY": "test"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        producer = Producer(queue.url)
        producer.send(message())
        client = producer._default_client

        def play():
            producer.send(message())
            return int(producer._default_client is not client)

        assert result_in_child(play) == 1
        producer.send(message())
        assert (len(queue.taken), producer._default_client is client) == (3, True)
