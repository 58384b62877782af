"""The asynchronous producer, in virtual time; and with aiobotocore."""

import asyncio
import contextlib
import json

import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from clocks import VirtualLoop, run
from queues import Asynchronous, Endpoint, MemoryQueue

from streamer_producer import AsyncProducer, Message, SendAllError, SendError

URL = "http://127.0.0.1/outbound"


def message(number):
    return Message.connection("c").id(f"m{number}").payload("s3cret")


def sizes(queue):
    return [len(entries) for entries in queue.calls]


class SilentQueue:
    """A queue that never answers."""

    def __init__(self):
        self.sizes = []
        self.cancelled = 0
        self.tasks = []

    async def send_message_batch(self, *, QueueUrl, Entries):
        self.sizes.append(len(Entries))
        self.tasks.append(asyncio.current_task())
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


def others():
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


def test_concurrent_sends_share_calls():
    queue = MemoryQueue()

    async def send():
        producer = AsyncProducer(URL, Asynchronous(queue))
        await asyncio.gather(*(producer.send(message(number)) for number in range(25)))

    run(send)
    assert sizes(queue) == [10, 10, 5]


def test_send_ends_with_its_call_at_limit():
    queue = SilentQueue()

    async def send():
        producer = AsyncProducer(URL, queue, _random=lambda: 0)
        with pytest.raises(SendError) as raised:
            await producer.send(message(1), timeout=7)
        assert asyncio.get_running_loop().time() == 7
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (queue.sizes, queue.cancelled, others()) == ([1, 1], 2, [])
        cause = "the queue did not answer within 5 s"
        text = f"the queue did not confirm the message within 7 s: {cause}; send it again with the same id"
        assert str(raised.value) == text

    run(send)


def test_cancelled_sends_leave_nothing_behind():
    queue = SilentQueue()

    async def send():
        producer = AsyncProducer(f"{URL}.fifo", queue)
        sends = [asyncio.create_task(producer.send_all([message(number)])) for number in range(3)]
        await asyncio.sleep(1)
        for task in sends:
            task.cancel()
        await asyncio.gather(*sends, return_exceptions=True)
        await producer.close()
        await asyncio.sleep(0)
        assert (queue.sizes, queue.cancelled, others()) == ([1], 1, [])
        assert producer._tasks._timer is None

    run(send)


def test_send_cancelled_at_once_frees_its_call():
    """The call's task is cancelled before it begins."""

    async def send():
        producer = AsyncProducer(URL, SilentQueue())
        for _ in range(20):
            task = asyncio.create_task(producer.send(message(1)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await producer.close()

    run(send)


def test_call_continues_for_the_remaining_sends():
    queue = SilentQueue()

    async def send():
        producer = AsyncProducer(URL, queue)
        first, second = [asyncio.create_task(producer.send(message(number))) for number in range(2)]
        await asyncio.sleep(1)
        first.cancel()
        await asyncio.sleep(0.1)
        assert (queue.sizes, queue.cancelled) == ([2], 0)
        second.cancel()
        await asyncio.sleep(0.1)
        assert queue.cancelled == 1

    run(send)


def test_closing_waits_for_sends_in_progress():
    queue = MemoryQueue(lambda call, _: ["throttled"] if call < 3 else "taken")

    async def send():
        async with AsyncProducer(URL, Asynchronous(queue)) as producer:
            task = asyncio.create_task(producer.send(message(1)))
            await asyncio.sleep(0)
        assert (task.done(), task.exception(), len(queue.taken)) == (True, None, 1)
        with pytest.raises(SendError) as raised:
            await producer.send(message(2))
        assert raised.value.kind == "closed"

    run(send)


def test_second_loop_is_refused_during_a_send():
    producer = AsyncProducer(URL, SilentQueue())
    first, second = VirtualLoop(), VirtualLoop()

    async def begin():
        task = asyncio.create_task(producer.send(message(1)))
        await asyncio.sleep(1)
        return task

    async def send():
        with pytest.raises(SendError):
            await producer.send(message(2), timeout=3)
        await producer.close()
        return asyncio.get_running_loop().time()

    task = first.run_until_complete(begin())
    with pytest.raises(RuntimeError, match="sending in another event loop: create one for each loop"):
        second.run_until_complete(producer.send(message(2)))
    # The first send is gone with its loop.
    first.close()
    task.get_coro().close()
    assert second.run_until_complete(send()) == 3
    second.close()
    # Otherwise, asyncio logs that it was destroyed.
    task._log_destroy_pending = False
    for call in producer._client.tasks:
        call._log_destroy_pending = False


def test_idle_producer_changes_its_loop():
    queue = MemoryQueue()
    producer = AsyncProducer(URL, Asynchronous(queue))
    for number in range(2):
        run(lambda number=number: producer.send(message(number)))
    assert sizes(queue) == [1, 1]


@contextlib.asynccontextmanager
async def client_of(queue):
    config = AioConfig(retries={"total_max_attempts": 1})
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
    async with get_session().create_client("sqs", endpoint_url=queue.base, config=config, **keys) as client:
        yield client


def test_cancelled_call_of_aiobotocore_ends():
    """Also one that a time limit ends: the connection is closed, and the next send is not disturbed."""
    with Endpoint(lambda call, _: "dropped" if call < 2 else "taken") as queue:

        async def send():
            async with client_of(queue) as client, AsyncProducer(queue.url, client) as producer:
                task = asyncio.create_task(producer.send(message(1)))
                while not queue.calls:
                    await asyncio.sleep(0.001)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                with pytest.raises(SendError):
                    await producer.send(message(2), timeout=0.1)
                await asyncio.wait_for(producer.close(), 5)
                assert others() == []
                await AsyncProducer(queue.url, client).send(message(3))

        asyncio.run(send())
        assert [json.loads(body)["id"] for body in queue.bodies] == ["m3"]


def test_aiobotocore_sends_and_retries():
    answers = [["taken", "throttled", "refused"], {"error": "InternalError"}, "reset"]
    with Endpoint(lambda call, _: answers[call] if call < len(answers) else "taken") as queue:

        async def send():
            async with client_of(queue) as client:
                producer = AsyncProducer(queue.url, client)
                with pytest.raises(SendAllError) as raised:
                    await producer.send_all([message(number) for number in range(3)])
                assert [(unsent.id, unsent.error.code) for unsent in raised.value.unsent] == [
                    ("m2", "InvalidMessageContents")
                ]

        asyncio.run(send())
        assert sizes(queue) == [3, 1, 1, 1]
