"""Many sends through boto3 and aiobotocore to a queue that fails entries and calls, loses answers and throttles.

Each message that was accepted is on the queue, each other one has an error that says so, and no limit is exceeded.
"""

import asyncio
import json
import threading
import time
from dataclasses import dataclass, field
from queue import SimpleQueue

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from clocks import FastClock, FastLoop, run
from examples import examples
from hypothesis import given
from hypothesis import strategies as st
from queues import Endpoint

from streamer_producer import AsyncProducer, Message, Producer, SendAllError, SendError

#: Virtual seconds that pass in a second.
FACTOR = FastLoop.factor

entry_answers = st.lists(st.sampled_from(["taken"] * 3 + ["throttled", "unmentioned"]), min_size=10, max_size=10)
answers = st.one_of(
    *[st.just("taken")] * 2,
    *[entry_answers] * 2,
    st.sampled_from([{"error": "InternalError"}, {"error": "RequestThrottled"}]),
    st.sampled_from(["lost", "dropped", "reset", "reset_after"]),
)


@dataclass
class Planned:
    """A message for one of 3 connections, the time before it in virtual seconds, and the sender's time limit."""

    connection: int
    has_request: bool
    is_at_fault: bool
    size: int
    after: float
    timeout: float

    def message(self, number):
        builder = Message.connection(f"c{self.connection}").id(f"m{number}")
        content = ("fault" if self.is_at_fault else "") + "x" * self.size
        return (builder.request("r") if self.has_request else builder).payload(content)


sends = st.builds(
    Planned,
    connection=st.integers(0, 2),
    has_request=st.booleans(),
    is_at_fault=st.sampled_from([False] * 9 + [True]),
    size=st.one_of(*[st.integers(0, 300)] * 3, st.integers(100_000, 131_000)),
    after=st.one_of(*[st.just(0.0)] * 3, st.floats(0.001, 2)),
    timeout=st.one_of(*[st.just(10.0)] * 4, st.floats(0, 8)),
)


@dataclass
class Scenario:
    is_fifo: bool
    sends: list
    answers: list


scenarios = st.builds(
    Scenario, st.booleans(), st.lists(sends, min_size=1, max_size=30), st.lists(answers, min_size=0, max_size=12)
)


def number_of(entry):
    return number_in(entry["MessageBody"])


def number_in(body):
    return int(json.loads(body)["id"][1:])


@dataclass
class Made:
    """A call: its messages, and those that the answer confirms."""

    numbers: list
    size: int
    in_flight: int
    confirmed: set = field(default_factory=set)


class Recorder:
    """A client that records its calls."""

    def __init__(self, client):
        self.client = client
        self.made = []
        self.in_flight = 0
        #: The messages that an answer has confirmed before the engine gave up their call.
        self.confirmed = set()
        self.sent_again = set()
        self.lock = threading.Lock()

    def begin(self, entries):
        with self.lock:
            self.in_flight += 1
            size = sum(len(entry["MessageBody"].encode()) for entry in entries)
            self.made.append(Made([number_of(entry) for entry in entries], size, self.in_flight))
            self.sent_again |= self.confirmed.intersection(self.made[-1].numbers)
            return self.made[-1]

    def confirm(self, made, output):
        made.confirmed = {made.numbers[int(entry["Id"])] for entry in output.get("Successful", ())}
        return output

    def watch(self, engine):
        """Sees the calls that end, as the engine does."""

        def end_call(call, now):
            with self.lock:
                if not call.is_settled:
                    taken = [job for job, result in zip(call.jobs, call.results, strict=True) if result is None]
                    self.confirmed |= {number_in(job.entry.body) for job in taken}
            original(call, now)

        original, engine.end_call = engine.end_call, end_call

    def end(self):
        with self.lock:
            self.in_flight -= 1

    def send_message_batch(self, *, QueueUrl, Entries):
        made = self.begin(Entries)
        try:
            return self.confirm(made, self.client.send_message_batch(QueueUrl=QueueUrl, Entries=Entries))
        finally:
            self.end()


class AsyncRecorder(Recorder):
    async def send_message_batch(self, *, QueueUrl, Entries):
        made = self.begin(Entries)
        try:
            return self.confirm(made, await self.client.send_message_batch(QueueUrl=QueueUrl, Entries=Entries))
        finally:
            self.end()


def url_of(scenario, queue):
    return f"{queue.url}.fifo" if scenario.is_fifo else queue.url


def play(scenario, queue, client):
    """Makes the sends in threads, and returns the error of each, or nothing."""
    clock = FastClock(FACTOR)
    producer = Producer(url_of(scenario, queue), client=client, _clock=clock)
    client.watch(producer._threads._engine)
    errors = [None] * len(scenario.sends)
    threads = []

    def send(number, planned):
        try:
            producer.send(planned.message(number), timeout=planned.timeout)
        except SendError as error:
            errors[number] = error

    for number, planned in enumerate(scenario.sends):
        clock.get(SimpleQueue(), planned.after)
        before = producer._threads._engine._buffer._next_id
        threads.append(threading.Thread(target=send, args=(number, planned)))
        threads[-1].start()
        # The next one is behind it.
        while producer._threads._engine._buffer._next_id == before:
            time.sleep(0.0001)
    for thread in threads:
        thread.join()
    made = len(client.made)
    producer.close()
    assert (len(client.made), client.in_flight) == (made, 0), "something went on after the last send"
    return errors


async def play_asynchronously(scenario, queue, client):
    producer = AsyncProducer(url_of(scenario, queue), client)
    client.watch(producer._tasks_of_loop()._engine)

    async def send(number, planned):
        try:
            await producer.send(planned.message(number), timeout=planned.timeout)
        except SendError as error:
            return error

    tasks = []
    for number, planned in enumerate(scenario.sends):
        await asyncio.sleep(planned.after)
        tasks.append(asyncio.create_task(send(number, planned)))
    errors = await asyncio.gather(*tasks)
    made = len(client.made)
    await producer.close()
    assert (len(client.made), len(asyncio.all_tasks())) == (made, 1), "something went on after the last send"
    return errors


def check(scenario, errors, queue, client):
    made = client.made
    assert not client.sent_again, f"{client.sent_again} were sent again after they were confirmed"
    taken = {number_of(entry) for entry in queue.taken}
    for number, error in enumerate(errors):
        planned = scenario.sends[number]
        is_confirmed = any(number in call.confirmed for call in made)
        if error is None:
            assert is_confirmed and number in taken, f"m{number} was accepted, and is not on the queue"
        elif error.kind == "refused":
            assert planned.is_at_fault and not is_confirmed, f"m{number} was refused"
        else:
            assert error.kind == "timed_out", error
        assert error is not None or not planned.is_at_fault, f"m{number} is at fault"
    for call in made:
        assert len(call.numbers) <= 10 and call.size <= 1024 * 1024 and call.in_flight <= 8, "a call is over the limits"
    check_order(scenario, made)


def check_order(scenario, made):
    """Messages with the same key leave in order. On a FIFO queue, they share no call."""
    for connection in range(3):

        def has_key(number, connection=connection):
            planned = scenario.sends[number]
            return planned.connection == connection and (scenario.is_fifo or planned.has_request)

        order = [[number for number in call.numbers if has_key(number)] for call in made]
        if scenario.is_fifo:
            assert all(len(numbers) <= 1 for numbers in order), "a group has two messages in one call"
        first = list(dict.fromkeys(number for numbers in order for number in numbers))
        assert first == sorted(first), "a message has overtaken another"


def answered(scenario):
    remaining = iter(scenario.answers)

    def script(_, entries):
        if any('"fault' in entry["MessageBody"] for entry in entries):
            return {"error": "InvalidMessageContents"}
        return next(remaining, "taken")

    return script


@examples(20)
@given(scenarios)
def test_messages_are_accepted_or_refused(scenario):
    with Endpoint(answered(scenario)) as queue:
        client = Recorder(queue.client(read_timeout=6 / FACTOR))
        errors = play(scenario, queue, client)
        check(scenario, errors, queue, client)


@examples(20)
@given(scenarios)
def test_asynchronous_messages_are_accepted_or_refused(scenario):
    """Through aiobotocore, whose calls are cancelled at the time limit."""
    with Endpoint(answered(scenario)) as queue:

        async def play():
            # Of virtual time.
            options = {"retries": {"total_max_attempts": 1}, "read_timeout": 60, "connect_timeout": 60}
            keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
            context = get_session().create_client("sqs", endpoint_url=queue.base, config=AioConfig(**options), **keys)
            async with context as client:
                recorder = AsyncRecorder(client)
                return await play_asynchronously(scenario, queue, recorder), recorder

        errors, client = run(play, FastLoop)
        check(scenario, errors, queue, client)


@examples(20)
@given(st.lists(st.tuples(sends, st.booleans()), min_size=1, max_size=40))
def test_many_messages_are_accepted_or_named(planned):
    """`send_all` names exactly the messages that are not on the queue."""
    with Endpoint(answered(Scenario(False, [], []))) as queue:
        messages = [send.message(number) for number, (send, _) in enumerate(planned)]
        unsent = []
        try:
            Producer(queue.url, client=queue.client()).send_all(messages)
        except SendAllError as error:
            unsent = [sent.index for sent in error.unsent]
        assert unsent == [number for number, (send, _) in enumerate(planned) if send.is_at_fault]
        assert sorted(map(number_of, queue.taken)) == [number for number in range(len(planned)) if number not in unsent]
