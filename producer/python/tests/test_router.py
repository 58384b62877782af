"""The example of a router, with a queue in memory. Its tests on the local stack are those of the stack."""

import importlib.util
import json
from pathlib import Path

import pytest
from clocks import VirtualClock
from queues import MemoryQueue

from streamer_producer import Producer, SendError

URL = "http://127.0.0.1/outbound"
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


def answers(router, request, script=lambda call, entries: "taken"):
    """Returns the messages that a request leads to."""
    queue = MemoryQueue(script)
    router.producer = Producer(URL, client=queue, timeout=1, _clock=VirtualClock())
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
    messages = answers(router, {"type": "report", "request_id": "r"}, failing("progress"))
    assert kinds(messages) == ["acknowledgment", "complete"]
    assert "did not confirm" in capsys.readouterr().out


@pytest.mark.parametrize("keep", [False, True])
def test_failed_report_ends_with_an_error(router, keep):
    request = {"type": "report", "request_id": "r", "keep": keep}
    for failed in ["acknowledgment", "complete"]:
        *_, end = answers(router, request, failing(failed))
        assert end["payload"]["error"]["code"] == "internal" and end["payload"]["request_id"] == "r"
        assert (end.get("keep"), "user" in end["to"]) == ((3600, True) if keep else (None, False))


def test_failed_answer_is_reported_to_the_client(router):
    [message] = answers(router, {"type": "echo", "request_id": "r", "text": "x"}, failing("response"))
    assert message["payload"]["error"]["code"] == "internal" and message["payload"]["request_id"] == "r"
    with pytest.raises(SendError):
        answers(router, {"type": "ping"}, failing("response", "error"))
