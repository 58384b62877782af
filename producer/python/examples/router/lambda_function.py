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

from streamer_producer import Message, MessageBuilder, MessageError, Producer, SendError, percent_of

# Outside the handler, so that all invocations of an environment share them.
producer = Producer(os.environ["QUEUE_URL"])
dynamo = boto3.client("dynamodb")

#: The longest time that a report takes, in seconds. The Lambda's timeout must be longer.
MAX_REPORT_SECONDS = 20.0
REPORT_SECONDS = 0.2
UPDATES = 10

#: The time limits of an update and of the end of a report in seconds: the queue may fail for a while.
UPDATE_TIMEOUT = 1.0
END_TIMEOUT = 5.0

EXPECTED = (
    "expected a JSON object with the `type` echo and a `text`, with the `type` ping, or with the `type` report and "
    "optionally `seconds` and `keep`; and optionally a `request_id` of 1 to 128 characters"
)
FAILED = "the request could not be answered"


def lambda_handler(event: dict[str, Any], context: object) -> dict[str, int]:
    connection = event["requestContext"]["connectionId"]
    request = json_of(event.get("body"))
    reply, request_id = reply_to(connection, request)
    try:
        if not is_valid(request) or (request_id is None and "request_id" in request):
            log("WARN", request_id=request_id, message="invalid request")
            producer.send(reply.error("invalid_request", EXPECTED))
        else:
            answer(request, reply, connection)
    except Exception as error:
        # The cause is logged. The client only learns that no further answer will come.
        log("ERROR", request_id=request_id, message=str(error))
        producer.send(reply.error("internal", FAILED))
    # Without a body, because API Gateway would send it to the client in addition to the answer.
    return {"statusCode": 200}


def log(level: str, **fields: object) -> None:
    print(json.dumps({"level": level, **fields}))


def json_of(body: str | None) -> Any:
    """Returns a client's JSON, or nothing if it is not valid."""
    try:
        return json.loads(body or "")
    except (ValueError, RecursionError):
        return None


def reply_to(connection: str, request: Any) -> tuple[MessageBuilder, str | None]:
    """Returns the builder for the answers to a client, with the id of its request if that is valid."""
    reply = Message.connection(connection)
    try:
        return reply.request(request["request_id"]), request["request_id"]
    except (TypeError, KeyError, MessageError):
        return reply, None


def is_valid(request: Any) -> bool:
    if not isinstance(request, dict):
        return False
    kind, seconds = request.get("type"), request.get("seconds", REPORT_SECONDS)
    is_number = isinstance(seconds, (int, float)) and seconds >= 0
    return kind == "ping" or (kind == "report" and is_number) or (kind == "echo" and isinstance(request.get("text"), str))


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
    # More often than the default, to show how updates that come too fast supersede each other.
    progress = producer.progress(kept, min_interval=0.02, timeout=UPDATE_TIMEOUT)
    seconds = min(request.get("seconds", REPORT_SECONDS), MAX_REPORT_SECONDS)
    try:
        producer.send(to.acknowledgment("the report is being written"))
        for update in range(1, UPDATES + 1):
            # A real router would write a part of the report here.
            time.sleep(seconds / UPDATES)
            try:
                progress.update(percent_of(update, UPDATES), "writing")
            except SendError as error:
                # The report goes on: the next update, or the end, says more.
                log("WARN", request_id=request["request_id"], message=str(error))
        progress.complete({"rows": 1280}, timeout=END_TIMEOUT)
    except Exception as error:
        log("ERROR", request_id=request["request_id"], message=str(error))
        # Every recipient of the report waits for its end.
        progress.fail("internal", FAILED, timeout=END_TIMEOUT)
