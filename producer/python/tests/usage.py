"""Checked by `mypy --strict`: the interface as its users see it. An error that is not raised is an error."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from typing import Any

import boto3
from botocore.config import Config

from streamer_producer import (
    AsyncProducer,
    Client,
    Message,
    MessageBuilder,
    MessageError,
    Producer,
    ProducerError,
    SendAllError,
    SendError,
    SendKind,
    percent_of,
)

config = Config(retries={"total_max_attempts": 1, "mode": "standard"}, connect_timeout=5, read_timeout=5)
client: Client = boto3.client("sqs", config=config)
producer = Producer("https://sqs.eu-central-1.amazonaws.com/123456789012/outbound", client=client, timeout=5)
reply: MessageBuilder = Message.user("acme", "anna").request("r").keep(timedelta(days=7)).receipt()
message: Message = reply.expires_at(datetime.now(timezone.utc)).response({"rows": 7})
reply.expires_in(5)  # type: ignore[arg-type]
reply.expires_at(1795791600)  # type: ignore[arg-type]
producer.send(reply)  # type: ignore[arg-type]


def report(rows: list[str]) -> None:
    with producer.progress(reply, min_interval=0.2, timeout=2) as progress:
        for row, text in enumerate(rows):
            progress.update(percent_of(row, len(rows)), text)
        progress.complete({"rows": len(rows)})


async def report_asynchronously(client: Any, rows: list[str]) -> None:
    async with AsyncProducer("https://example.com/outbound", client) as producer:
        await producer.send(message, timeout=2)
        async with producer.progress(reply) as progress:
            await progress.update(50, rows[0])
            await progress.respond(None)


def send_all(messages: Iterable[Message]) -> list[str] | str | None:
    try:
        producer.send_all(messages, timeout=60)
    except SendAllError as error:
        return [f"{unsent.index}: {unsent.id}: {unsent.error.kind}" for unsent in error.unsent]
    except SendError as error:
        return error.code if error.is_queue_fault else None
    except MessageError as error:
        return str(error) if error.kind == "payload_too_large" else None
    return None


def close() -> SendKind | None:
    try:
        producer.send(message)
    except SendError as error:
        return error.kind
    except ProducerError:
        return None
    return None if producer.close(timeout=5) else "timed_out"
