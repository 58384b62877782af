"""Random messages to LocalStack's SQS, through boto3 and aiobotocore, with faults between the two.

The queue holds each message that it can take, and nothing else. `SQS_ENDPOINT` is the address of LocalStack.
"""

import asyncio
import os
import uuid
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

import boto3.session
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config
from examples import examples
from faults import AsyncFaultyClient, FaultyClient
from hypothesis import given
from hypothesis import strategies as st
from messages import Entry, entries, message_of, plans, pools, progress_of, progress_plans

from streamer_producer import AsyncProducer, Message, Producer, SendAllError, SendError

MIB = 1024 * 1024
ENDPOINT = os.environ.get("SQS_ENDPOINT")
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}

#: Shared, because it reads the descriptions of the service once.
SESSION = get_session()

pytestmark = pytest.mark.skipif(
    ENDPOINT is None, reason="without LocalStack: set SQS_ENDPOINT to its address, such as http://127.0.0.1:4566"
)

entry_answers = st.lists(st.sampled_from(["taken", "taken", "throttled", "unmentioned"]), min_size=10, max_size=10)
answers = st.one_of(
    st.just("taken"),
    entry_answers,
    st.sampled_from([{"error": code} for code in ("InternalError", "RequestThrottled", "InvalidMessageContents")]),
    st.sampled_from(["reset", "reset_after"]),
)

#: Time limits in seconds: mostly one that is never reached.
timeouts = st.sampled_from([30.0] * 8 + [0.0, 0.005, 0.02])


@dataclass
class Scenario:
    is_fifo: bool
    max_size: int
    pool: dict
    #: What is sent at once.
    actions: list
    answers: list


actions = st.one_of(
    st.tuples(st.just("send"), plans, timeouts),
    st.tuples(st.just("send"), plans, timeouts),
    st.tuples(st.just("send_all"), st.lists(plans, min_size=2, max_size=12), timeouts),
    st.tuples(st.just("progress"), progress_plans, st.just(30.0)),
)
scenarios = st.builds(
    Scenario,
    is_fifo=st.booleans(),
    max_size=st.sampled_from([MIB, MIB, 60_000, 5000]),
    pool=pools,
    actions=st.lists(actions, min_size=4, max_size=10),
    answers=st.lists(answers, min_size=3, max_size=12),
)


@pytest.fixture(scope="module")
def sqs():
    config = Config(retries={"total_max_attempts": 1}, read_timeout=60)
    return boto3.session.Session().client("sqs", endpoint_url=ENDPOINT, config=config, **KEYS)


@contextmanager
def new_queue(sqs, is_fifo=False, max_size=MIB):
    """Creates a queue for messages of up to so many bytes. Its context is its URL."""
    attributes = {"MaximumMessageSize": str(max_size), **({"FifoQueue": "true"} if is_fifo else {})}
    name = f"python-{uuid.uuid4()}{'.fifo' if is_fifo else ''}"
    url = sqs.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]
    try:
        yield url
    finally:
        sqs.delete_queue(QueueUrl=url)


def drain(sqs, url):
    """Receives all messages of a queue."""
    options = {"MaxNumberOfMessages": 10, "VisibilityTimeout": 3600, "MessageSystemAttributeNames": ["All"]}
    received = []
    while messages := sqs.receive_message(QueueUrl=url, **options).get("Messages"):
        for message in messages:
            attributes = map(message["Attributes"].get, ("MessageGroupId", "MessageDeduplicationId", "AWSTraceHeader"))
            received.append(Entry(message["Body"], *attributes))
        handles = [{"Id": str(place), "ReceiptHandle": message["ReceiptHandle"]} for place, message in enumerate(messages)]
        sqs.delete_message_batch(QueueUrl=url, Entries=handles)
    return received


#: The line of the sends of a task: those of one line begin in their order, which threads do not keep.
LINE = ContextVar("line", default=0)


@dataclass
class Record:
    """A message that was sent, and its error."""

    message: Message
    line: int
    error: SendError | None = None
    #: Whether it was sent again.
    is_late: bool = False


class Records(list):
    """The messages that were sent, in the order of the calls."""

    @contextmanager
    def sending(self, messages):
        """Records messages, and the errors of the call that sends them."""
        records = [Record(message, LINE.get()) for message in messages]
        self.extend(records)
        try:
            yield
        except SendError as error:
            records[0].error = error
            raise
        except SendAllError as error:
            for unsent in error.unsent:
                records[unsent.index].error = unsent.error
            raise


class Recorder(Producer):
    def __init__(self, url, client):
        # Without pauses between attempts.
        super().__init__(url, client=client, _random=lambda: 0.0)
        self.records = Records()

    def send(self, message, *, timeout=None):
        with self.records.sending([message]):
            super().send(message, timeout=timeout)

    def send_all(self, messages, *, timeout=None):
        with self.records.sending(messages):
            super().send_all(messages, timeout=timeout)


class AsyncRecorder(AsyncProducer):
    def __init__(self, url, client):
        super().__init__(url, client, _random=lambda: 0.0)
        self.records = Records()

    async def send(self, message, *, timeout=None):
        with self.records.sending([message]):
            await super().send(message, timeout=timeout)

    async def send_all(self, messages, *, timeout=None):
        with self.records.sending(messages):
            await super().send_all(messages, timeout=timeout)


async def settle(sent):
    """Ignores an error of a message, which is in its record."""
    with suppress(SendError, SendAllError):
        await sent


async def report(producer, call, builder, plan):
    """Makes the updates of a progress, and its end."""
    handle = producer.progress(builder, min_interval=0, timeout=30.0)
    for percent in plan.percents:
        await settle(call(handle.update, percent))
    await settle(call(handle.complete, plan.result))


async def play(scenario, producer, call):
    """Makes the sends at once. Returns the expected fields of each message by its id."""
    expected = {}
    reports = {}

    def build(plan, number):
        built = message_of(plan, number, scenario.pool, scenario.is_fifo)
        if built is None:
            return []
        expected[built[0].id] = built[1]
        return [built[0]]

    async def act(number, action):
        kind, plan, timeout = action
        if call is in_thread:
            LINE.set(number)
        if kind == "progress":
            builder, fields = progress_of(plan, number, scenario.pool)
            reports[fields[0].request] = fields
            await report(producer, call, builder, plan)
        elif kind == "send":
            for message in build(plan, number):
                await settle(call(producer.send, message, timeout=timeout))
        else:
            messages = [message for place, plan in enumerate(plan) for message in build(plan, f"{number}.{place}")]
            await settle(call(producer.send_all, messages, timeout=timeout))

    tasks = [asyncio.create_task(act(number, action)) for number, action in enumerate(scenario.actions)]
    await asyncio.gather(*tasks)
    for request, fields in reports.items():
        sent = [record.message for record in producer.records if (record.message._fields.request or [""])[0] == request]
        expected |= dict(zip([message.id for message in sent], fields, strict=True))
    return expected


async def in_thread(function, *arguments, **options):
    return await asyncio.to_thread(function, *arguments, **options)


async def in_loop(function, *arguments, **options):
    return await function(*arguments, **options)


async def send_again(records, producer, call):
    """Sends again the messages of which the queue did not say in time whether it has them, as their errors ask for."""
    for record in [record for record in records if record.error is not None and record.error.kind == "timed_out"]:
        record.error, record.is_late = None, True
        try:
            await call(producer.send, record.message, timeout=30.0)
        except SendError as error:
            record.error = error


def check(scenario, records, expected, received, lost):
    """Compares the queue with the messages, and each error with its message."""
    places, groups, seqs = defaultdict(list), defaultdict(list), defaultdict(list)
    for place, entry in enumerate(received):
        places[entry].append(place)
    for record in records:
        error, on_queue = record.error, entries(record.message, expected[record.message.id], scenario.is_fifo)
        too_large = [entry for entry in on_queue if len(entry.body.encode()) > scenario.max_size]
        if record.message._fields.request:
            seqs[record.line].append(record.message._fields.request[1])
        if not on_queue:
            assert error is not None and error.kind == "tenant_on_fifo"
        elif too_large:
            assert error is not None and error.kind == "refused" and "InvalidParameterValue" in error.code
        else:
            assert error is None, error
        for entry in on_queue:
            copies = places.pop(entry, [])
            most = 1 if scenario.is_fifo else 1 + lost[entry.body] + record.is_late
            assert (not copies) if entry in too_large else 1 <= len(copies) <= most, f"{len(copies)} copies of {entry}"
            if copies and scenario.is_fifo and not record.is_late:
                groups[record.line, entry.group].append(copies[0])
    assert not places, "messages that were not sent"
    for order in groups.values():
        assert order == sorted(order), "the order of a group"
    for order in seqs.values():
        assert order == sorted(set(order)), "the order of sequence numbers"


@examples(30)
@given(scenario=scenarios)
def test_queue_holds_each_message_that_it_can_take(sqs, scenario):
    with new_queue(sqs, scenario.is_fifo, scenario.max_size) as url:
        client = FaultyClient(sqs, scenario.answers)

        async def send():
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(8))
            with Recorder(url, client) as producer:
                expected = await play(scenario, producer, in_thread)
                await send_again(producer.records, Producer(url, client=client), in_thread)
            return producer.records, expected

        records, expected = asyncio.run(send())
        assert client.errors == [], "the queue refused a whole call"
        check(scenario, records, expected, drain(sqs, url), client.lost)


@examples(30)
@given(scenario=scenarios)
def test_queue_holds_each_asynchronous_message(sqs, scenario):
    with new_queue(sqs, scenario.is_fifo, scenario.max_size) as url:

        async def send():
            config = AioConfig(retries={"total_max_attempts": 1}, read_timeout=60)
            async with SESSION.create_client("sqs", endpoint_url=ENDPOINT, config=config, **KEYS) as real:
                client = AsyncFaultyClient(real, scenario.answers)
                async with AsyncRecorder(url, client) as producer:
                    expected = await play(scenario, producer, in_loop)
                    await send_again(producer.records, AsyncProducer(url, client), in_loop)
                await client.settled()
                return client, producer.records, expected

        client, records, expected = asyncio.run(send())
        assert client.errors == [], "the queue refused a whole call"
        check(scenario, records, expected, drain(sqs, url), client.lost)


@pytest.mark.parametrize(("above", "sizes"), [(0, [8]), (1, [7, 1])])
def test_calls_have_at_most_one_mib(sqs, above, sizes):
    def message(number):
        def build(size):
            return Message.connection("c").id(str(number)).payload("x" * size)

        return build(MIB // 8 + (above if number == 7 else 0) - len(build(0).bodies()[0]))

    messages = [message(number) for number in range(8)]
    with new_queue(sqs) as url:
        client = FaultyClient(sqs, [])
        Producer(url, client=client).send_all(messages)
        assert (client.sizes, client.errors) == (sizes, [])
        received = sorted(entry.body for entry in drain(sqs, url))
        assert received == sorted(body for message in messages for body in message.bodies())
