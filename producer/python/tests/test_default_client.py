"""The client that a producer makes for itself from the environment."""

import os

import pytest
from queues import Endpoint, MemoryQueue
from test_producer import failure, message

from streamer_producer import Producer

URL = "http://127.0.0.1/outbound"


@pytest.fixture
def environment(monkeypatch):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", "/nonexistent")
    return monkeypatch.setenv


def test_default_client_leaves_retries_to_the_producer(environment):
    with Endpoint(lambda call, _: {"error": "InternalError"} if call < 3 else "taken") as queue:
        environment("AWS_ENDPOINT_URL_SQS", queue.base)
        environment("AWS_REGION", "eu-central-1")
        environment("AWS_DEFAULT_REGION", "eu-central-1")
        environment("AWS_ACCESS_KEY_ID", "test")
        environment("AWS_SECRET_ACCESS_KEY", "test")
        environment("AWS_MAX_ATTEMPTS", "5")
        pauses = []
        producer = Producer(queue.url, _random=lambda: pauses.append(1) or 0)
        producer.send(message(1))
    # One pause for each call that failed: the client itself made no retry.
    assert (len(queue.calls), len(pauses)) == (4, 3)


def test_missing_region_is_reported_at_once(environment):
    error = failure(lambda: Producer("https://sqs.example.com/outbound"))
    text = "the queue cannot be called: You must specify a region; set the client's credentials, Region and endpoint"
    assert (error.kind, error.is_queue_fault, str(error)) == ("not_configured", True, text)


def test_missing_credentials_are_not_retried(environment):
    environment("AWS_DEFAULT_REGION", "eu-central-1")
    error = failure(lambda: Producer("http://127.0.0.1:9/outbound").send(message(1)))
    text = "the queue cannot be called: there are no credentials; set the client's credentials, Region and endpoint"
    assert (error.kind, error.is_queue_fault, str(error)) == ("not_configured", True, text)


def test_default_client_is_closed_with_its_producer(environment, monkeypatch):
    environment("AWS_DEFAULT_REGION", "eu-central-1")
    closed = []
    producer = Producer(URL)
    monkeypatch.setattr(producer._default_client, "close", lambda: closed.append("default"))
    assert producer.close() is True

    class Queue(MemoryQueue):
        def close(self):
            closed.append("given")

    Producer(URL, client=Queue()).close()
    assert closed == ["default"]
