"""Compares the producer with boto3 alone, in one run: `python bench/bench.py [MESSAGES]`.

The queue is another process on this machine, and answers at once, so the figures are the CPU time of the sender and not the
latency of SQS.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3.session
from botocore.config import Config

from streamer_producer import AsyncProducer, Message, Producer

ROUNDS = 3

#: The number of messages that a program sends at the same time.
CONCURRENT = 100

#: The threads that send them.
THREADS = 20

Ids = range

#: A way to send the messages with these numbers.
Way = Callable[[Ids], object]

KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}


def body_of(id: int) -> str:
    payload = {"type": "response", "data": "hello", "id": f"m{id}"}
    return json.dumps({"version": 1, "id": f"m{id}", "to": {"connection": "c"}, "payload": payload})


def message(id: int) -> Message:
    return Message.connection("c").id(f"m{id}").response("hello")


def ways(client: Any, url: str, threads: ThreadPoolExecutor) -> dict[str, Way]:
    producer = Producer(url, client=client)

    def send_one(id: int) -> None:
        client.send_message(QueueUrl=url, MessageBody=body_of(id))

    def send_batch(ids: range) -> None:
        client.send_message_batch(QueueUrl=url, Entries=[{"Id": str(id), "MessageBody": body_of(id)} for id in ids])

    def batches(ids: Ids) -> Iterator[range]:
        return (ids[first : first + 10] for first in range(0, len(ids), 10))

    return {
        "SendMessage for each": lambda ids: list(threads.map(send_one, ids)),
        "SendMessageBatch by hand": lambda ids: list(threads.map(send_batch, batches(ids))),
        "producer.send for each": lambda ids: list(threads.map(lambda id: producer.send(message(id)), ids)),
        "producer.send_all": lambda ids: producer.send_all(message(id) for id in ids),
    }


def measure(way: Way, messages: int) -> tuple[float, float]:
    """Returns the messages per second and the microseconds of CPU time per message."""
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, messages, CONCURRENT):
        way(range(first, min(first + CONCURRENT, messages)))
    return messages / (time.perf_counter() - began), (time.process_time() - cpu) / messages * 1e6


@contextmanager
def asynchronous(base: str, url: str) -> Iterator[Way]:
    """Gives the way through aiobotocore."""
    from aiobotocore.config import AioConfig
    from aiobotocore.session import get_session

    loop = asyncio.new_event_loop()
    config = AioConfig(retries={"total_max_attempts": 1})
    context = get_session().create_client("sqs", endpoint_url=base, config=config, **KEYS)
    producer = AsyncProducer(url, loop.run_until_complete(context.__aenter__()))

    async def send(ids: Ids) -> None:
        await asyncio.gather(*(producer.send(message(id)) for id in ids))

    yield lambda ids: loop.run_until_complete(send(ids))
    loop.run_until_complete(context.__aexit__(None, None, None))
    loop.close()


def compare(messages: int) -> None:
    with subprocess.Popen(
        [sys.executable, __file__, "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as queue:
        assert queue.stdout is not None
        url = queue.stdout.readline().strip()
        base = url.rsplit("/", 2)[0]
        config = Config(retries={"total_max_attempts": 1}, max_pool_connections=THREADS)
        client = boto3.session.Session().client("sqs", endpoint_url=base, config=config, **KEYS)
        with ThreadPoolExecutor(THREADS) as threads, asynchronous(base, url) as send:
            all_ways = {**ways(client, url, threads), "await producer.send for each": send}
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in all_ways}
            # Each way once in each round, so that the load of the machine is the same for all. The first round warms up.
            for round in range(ROUNDS + 1):
                for name, way in all_ways.items():
                    result = measure(way, messages)
                    if round:
                        results[name].append(result)
        # Ends the queue.
        queue.communicate()
    print(f"{messages} messages, {CONCURRENT} at the same time, {THREADS} threads, median of {ROUNDS} rounds")
    for name, figures in results.items():
        rate, cpu = (statistics.median(values) for values in zip(*figures, strict=True))
        print(f"{name:30}{rate:7.0f} messages/s{cpu:6.0f} µs of CPU time a message")


def serve() -> None:
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from queues import Endpoint

    with Endpoint() as queue:
        print(queue.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        compare(int(sys.argv[1]) if sys.argv[1:] else 2000)
