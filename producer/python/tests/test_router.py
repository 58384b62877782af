"""The example of a router, with a queue in memory. Its tests on the local stack are those of the stack."""

import importlib.util
import json
from pathlib import Path

import pytest
from clocks import VirtualClock
from queues import MemoryQueue

from streamer_producer import Producer, SendError

URL = "http://127.0.0.1/outbound"
#: A send ends up to 10 ms before its limit, in which no further attempt would begin.
EARLY = 0.2

FILE = Path(__file__).parents[1] / "examples/router/lambda_function.py"


class Table:
    def get_item(self, *, TableName, Key):
        return {"Item": {"tenant_id": {"S": "acme"}, "user_id": {"S": "anna"}}}


@pytest.fixture(scope="module")
def router():
    settings = {"AWS_DEFAULT_REGION": "eu-central-1", "QUEUE_URL": URL, "CONNECTIONS_TABLE": "connections"}
    monkeypatch = pytest.MonkeyPatch()
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    spec = importlib.util.spec_from_file_location("router", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.dynamo, module.REPORT_SECONDS = Table(), 0
    yield module
    monkeypatch.undo()


def answers(router, request, script=lambda call, entries: "taken", clock=None):
    """Returns the messages that a request leads to."""
    queue = MemoryQueue(script)
    router.producer = Producer(URL, client=queue, _clock=clock or VirtualClock())
    body = request if isinstance(request, str) else json.dumps(request)
    event = {"requestContext": {"connectionId": "c="}, "body": body}
    assert router.lambda_handler(event, None) == {"statusCode": 200}
    return [json.loads(body) for body in queue.bodies]


def kinds(messages):
    return [message["payload"]["type"] for message in messages]


def failing(*types):
    """Returns a script that throttles the messages of these types."""
    return lambda _, entries: [
        "throttled" if json.loads(entry["MessageBody"])["payload"]["type"] in types else "taken" for entry in entries
    ]


@pytest.mark.parametrize("request_id, answered", [("r", "r"), ("", None), (7, None), (None, None)])
def test_invalid_request_is_answered_by_its_id(router, request_id, answered):
    [message] = answers(router, {"type": "unknown", "request_id": request_id})
    assert message["payload"]["error"]["code"] == "invalid_request"
    assert message["payload"].get("request_id") == answered


@pytest.mark.parametrize("body", ["", "{", "[]", '"x"', "7", "null", '{"type": "ping", "request_id": "\\ud800"}'])
def test_invalid_bodies_are_answered(router, body):
    [message] = answers(router, body)
    assert message["payload"]["error"]["code"] == "invalid_request" and "request_id" not in message["payload"]


def test_report_ends_although_its_updates_fail(router, capsys):
    clock = VirtualClock()
    messages = answers(router, {"type": "report", "request_id": "r"}, failing("progress"), clock)
    assert kinds(messages) == ["acknowledgment", "complete"]
    # 10 updates of 1 s, and half of the 5 s of the end.
    assert clock.time == pytest.approx(12.5, abs=EARLY)
    assert "did not confirm" in capsys.readouterr().out


@pytest.mark.parametrize("keep", [False, True])
def test_failed_report_ends_with_an_error(router, keep):
    request = {"type": "report", "request_id": "r", "keep": keep}
    for failed in ["acknowledgment", "complete"]:
        *_, end = answers(router, request, failing(failed))
        assert end["payload"]["error"]["code"] == "internal" and end["payload"]["request_id"] == "r"
        assert (end.get("keep"), "user" in end["to"]) == ((3600, True) if keep else (None, False))


def test_report_ends_within_its_time(router):
    clock = VirtualClock()
    with pytest.raises(SendError):
        answers(router, {"type": "report", "request_id": "r"}, failing("progress", "complete", "error"), clock)
    # 10 updates of 1 s; the result, the error and the error of the handler's own.
    assert clock.time == pytest.approx(10 + 5 + 5 + 10, abs=EARLY)


def test_failed_answer_is_reported_to_the_client(router):
    [message] = answers(router, {"type": "echo", "request_id": "r", "text": "x"}, failing("response"))
    assert message["payload"]["error"]["code"] == "internal" and message["payload"]["request_id"] == "r"
    with pytest.raises(SendError):
        answers(router, {"type": "ping"}, failing("response", "error"))
