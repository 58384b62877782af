"""A router: the Lambda behind `$default` of a WebSocket API.

It answers clients through the queue, so it returns as soon as the queue has the answer, and slow or closed connections do
not delay it.

A request is `{"type": "echo", "request_id": "…", "text": "…"}`, or has the type `ping` or `report` and no text. A report
with `"keep": true` is for all devices of the client's user, and its result waits for those that are away.
"""

from __future__ import annotations

import json
import os
import time
from datetime import timedelta
from typing import Any

import boto3

from streamer_producer import Message, MessageBuilder, MessageError, Producer, percent_of

# Outside the handler, so that all invocations of an environment share them.
producer = Producer(os.environ["QUEUE_URL"])
dynamo = boto3.client("dynamodb")

#: The longest time that a report takes, in seconds. The Lambda's timeout must be longer.
MAX_REPORT_SECONDS = 20.0
REPORT_SECONDS = 0.2
UPDATES = 10

EXPECTED = (
    "expected a JSON object with the `type` echo and a `text`, with the `type` ping, or with the `type` report and "
    "optionally `seconds` and `keep`; and optionally a `request_id` of 1 to 128 characters"
)


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, int]:
    connection = event["requestContext"]["connectionId"]
    request = request_of(event.get("body"))
    reply = Message.connection(connection)
    if request is None:
        log("WARN", message="invalid request")
        producer.send(reply.error("invalid_request", EXPECTED))
        return {"statusCode": 200}
    if "request_id" in request:
        reply = reply.request(request["request_id"])
    try:
        answer(request, reply, connection)
    except Exception as error:
        # The cause is logged. The client only learns that no further answer will come.
        log("ERROR", request_id=request.get("request_id"), message=str(error))
        producer.send(reply.error("internal", "the request could not be answered"))
    # Without a body, because API Gateway would send it to the client in addition to the answer.
    return {"statusCode": 200}


def log(level: str, **fields: object) -> None:
    print(json.dumps({"level": level, **fields}))


def request_of(body: str | None) -> dict[str, Any] | None:
    """Returns a client's request, or nothing if it is not valid."""
    try:
        request = json.loads(body or "")
        if not isinstance(request, dict):
            return None
        if "request_id" in request:
            Message.connection("any").request(request["request_id"])
    except (ValueError, MessageError, RecursionError):
        return None
    kind, seconds = request.get("type"), request.get("seconds", REPORT_SECONDS)
    is_number = isinstance(seconds, (int, float)) and seconds >= 0
    is_known = (
        kind == "ping" or (kind == "report" and is_number) or (kind == "echo" and isinstance(request.get("text"), str))
    )
    return request if is_known else None


def answer(request: dict[str, Any], reply: MessageBuilder, connection: str) -> None:
    if request["type"] == "echo":
        producer.send(reply.response(request["text"]))
    elif request["type"] == "ping":
        producer.send(reply.response("pong"))
    elif "request_id" not in request:
        producer.send(reply.error("invalid_request", "a report needs a `request_id`"))
    elif request.get("keep") is not True:
        write_report(reply, reply, request)
    else:
        to = user_of(connection, request["request_id"])
        # Otherwise, the client has left, and sends its request again on its next connection.
        if to is not None:
            write_report(to, to.keep(timedelta(hours=1)), request)


def user_of(connection: str, request_id: str) -> MessageBuilder | None:
    """Addresses the user of a connection, since a report may outlive the connection."""
    table = os.environ["CONNECTIONS_TABLE"]
    row = dynamo.get_item(TableName=table, Key={"connection_id": {"S": connection}}).get("Item")
    return row and Message.user(row["tenant_id"]["S"], row["user_id"]["S"]).request(request_id)


def write_report(to: MessageBuilder, kept: MessageBuilder, request: dict[str, Any]) -> None:
    producer.send(to.acknowledgment("the report is being written"))
    seconds = min(request.get("seconds", REPORT_SECONDS), MAX_REPORT_SECONDS)
    # More often than the default, to show how updates that come too fast supersede each other.
    with producer.progress(kept, min_interval=0.02) as progress:
        for update in range(1, UPDATES + 1):
            # A real router would write a part of the report here.
            time.sleep(seconds / UPDATES)
            progress.update(percent_of(update, UPDATES), "writing")
        progress.complete({"rows": 1280})
