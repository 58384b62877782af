"""The snippets of the documentation run as they are shown."""

import asyncio
import json
import re
from pathlib import Path

import pytest
from queues import Endpoint

FOLDER = Path(__file__).parents[1]
GUIDE = FOLDER.parents[1] / "docs/guide/other-languages.md"


def snippets(text):
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.fixture
def queue(monkeypatch):
    with Endpoint() as queue:
        settings = {
            "QUEUE_URL": queue.url,
            "AWS_ENDPOINT_URL_SQS": queue.base,
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
        }
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield queue


def types(queue):
    payloads = [json.loads(body)["payload"] for body in queue.bodies]
    return [payload["type"] if isinstance(payload, dict) else payload for payload in payloads]


def test_readme_runs(queue):
    first, progress, loop = snippets((FOLDER / "README.md").read_text())
    names = {"write": lambda order: None}
    exec(first, names)
    exec(progress, names)
    names["write_report"]([1, 2])
    assert types(queue) == ["response", "your report is ready", "progress", "progress", "complete"]
    # A program of its own.
    names = {}
    exec(loop, names)
    asyncio.run(names["main"]())
    assert types(queue)[5:] == ["response"]


def test_guide_runs(queue):
    [section] = re.findall(r"\n## Python\n(.*?)\n## ", GUIDE.read_text(), re.DOTALL)
    names = {"write": lambda order: None}
    for snippet in snippets(section):
        exec(snippet, names)
    event = {"requestContext": {"connectionId": "c="}, "body": json.dumps({"request_id": "r", "orders": [1]})}
    assert names["lambda_handler"](event, None) == {"statusCode": 200}
    names["write_report"]([1, 2])
    assert types(queue) == ["response", "progress", "progress", "complete"]
