"""Every case of the vectors, with both producers."""

import json
import re
import time

import pytest
from clocks import VirtualClock, run
from queues import Asynchronous, Endpoint, MemoryQueue
from vectors import VECTORS, message, named, to, with_content, with_options

from streamer_producer import (
    AsyncProducer,
    MessageError,
    Producer,
    ProgressError,
    SendAllError,
    SendError,
    percent_of,
)

URL = "http://127.0.0.1/outbound"
ERRORS = (MessageError, ProgressError, SendError)


@pytest.fixture(scope="module")
def endpoint():
    with Endpoint() as endpoint:
        endpoint.boto3 = endpoint.client()
        yield endpoint


def url_of(vector, url=URL):
    return f"{url}.fifo" if vector.get("queue") == "fifo" else url


def check_refused(error, refused):
    assert error.kind == refused["kind"]
    if "text" in refused:
        assert str(error) == refused["text"]


UUID7 = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def milliseconds():
    return time.time_ns() // 1_000_000


def filled(expected, sent, began, options):
    """Replaces `{id}`, `{seq}` and `{expires_at}` in an expected body by the values of the sent one, if these are valid."""
    body = json.loads(sent)
    if "{id}" in expected:
        assert UUID7.fullmatch(body["id"])
        assert began <= int(body["id"].replace("-", "")[:12], 16) <= milliseconds()
    if "{seq}" in expected:
        assert began * 1000 <= body["request"]["seq"] <= time.time_ns() // 1000 + 1000
    if "{expires_at}" in expected:
        latest = 253_402_300_799_999
        expiries = [min(time + options["expires_in_ms"], latest) for time in (began, milliseconds())]
        assert expiries[0] <= body["expires_at"] <= expiries[1]
    values = {"id": body["id"], "seq": body.get("request", {}).get("seq"), "expires_at": body.get("expires_at")}
    for name, value in values.items():
        expected = expected.replace(f"{{{name}}}", str(value))
    return expected


last_seq = 0


@pytest.mark.parametrize("vector", named("messages"))
def test_message(vector, endpoint):
    global last_seq
    began, first = milliseconds(), len(endpoint.calls)

    def send():
        built = with_content(with_options(to(vector["to"]), vector["options"]), vector["content"])
        Producer(url_of(vector, endpoint.url), client=endpoint.boto3).send(built)

    if "refused" in vector:
        with pytest.raises(ERRORS) as raised:
            send()
        return check_refused(raised.value, vector["refused"])
    send()
    entries = [entry for call in endpoint.calls[first:] for entry in call]
    assert len(entries) == len(vector["entries"])
    for entry, expected in zip(entries, vector["entries"], strict=True):
        assert entry["MessageBody"] == filled(expected["body"], entry["MessageBody"], began, vector["options"])
        trace = entry.get("MessageSystemAttributes", {}).get("AWSTraceHeader", {}).get("StringValue")
        attributes = (entry.get("MessageGroupId"), entry.get("MessageDeduplicationId"), trace)
        assert attributes == (expected.get("group"), expected.get("deduplication"), expected.get("trace"))
    seqs = {json.loads(entry["MessageBody"]).get("request", {}).get("seq") for entry in entries}
    if seqs != {None}:
        [seq] = seqs
        assert seq > last_seq
        last_seq = seq


class Faulty(MemoryQueue):
    """A queue in memory that also answers as the endpoint does: without an answer, or with an error for a whole call."""

    def __init__(self, answers):
        self.answers = answers
        super().__init__(lambda call, _: answers[call] if call < len(answers) else "taken")

    def send_message_batch(self, *, QueueUrl, Entries):
        from botocore.exceptions import ClientError, ReadTimeoutError

        answer = self.script(len(self.calls), Entries)
        if answer == "lost":
            self.calls.append(Entries)
            raise ReadTimeoutError(endpoint_url=URL)
        if isinstance(answer, dict):
            self.calls.append(Entries)
            error = {"Code": answer["error"], "Message": "scripted"}
            raise ClientError({"Error": error}, "SendMessageBatch")
        return super().send_message_batch(QueueUrl=QueueUrl, Entries=Entries)


def send_all(kind, url, queue, messages, **options):
    """Sends messages in virtual time with one of the producers, and returns the kind of error of each."""
    results = ["sent"] * len(messages)
    try:
        if kind == "sync":
            Producer(url, client=queue, _clock=VirtualClock(), **options).send_all(messages)
        else:
            run(lambda: AsyncProducer(url, Asynchronous(queue), **options).send_all(messages))
    except SendAllError as error:
        for unsent in error.unsent:
            results[unsent.index] = unsent.error.kind
    return results


def indexes(queue):
    """Returns the indexes of the messages in each call."""
    return [[int(json.loads(entry["MessageBody"])["id"][1:]) for entry in entries] for entries in queue.calls]


both = pytest.mark.parametrize("kind", ["sync", "async"])


@both
@pytest.mark.parametrize("vector", named("batches"))
def test_batch(vector, kind):
    queue = MemoryQueue()
    messages = [message(vector, number, size) for number, size in enumerate(vector["bodies"])]
    send_all(kind, url_of(vector), queue, messages)
    assert indexes(queue) == vector["calls"]


@both
@pytest.mark.parametrize("vector", named("sends"))
def test_send(vector, kind):
    queue = Faulty(vector["answers"])
    messages = [message(vector, number) for number in range(vector["messages"])]
    assert send_all(kind, url_of(vector), queue, messages) == vector["results"]
    assert indexes(queue) == vector["calls"]


@pytest.mark.parametrize("vector", [pytest.param(vector, id=vector["code"]) for vector in VECTORS["codes"]])
def test_code_is_retried(vector):
    answer = {"error": vector["code"], **({"message": vector["message"]} if "message" in vector else {})}
    with Endpoint(lambda call, _: "taken" if call else answer) as queue:
        producer = Producer(queue.url, client=queue.client(), _random=lambda: 0)
        if vector["retried"]:
            return producer.send(message({}, 0))
        with pytest.raises(SendError) as raised:
            producer.send(message({}, 0))
    error = raised.value
    assert (error.kind, error.code, error.is_queue_fault) == ("refused", vector["code"], vector["queue_fault"])


@both
def test_pauses_are_within_the_vectors(kind):
    times, pauses = [], [pause / 1000 for pause in VECTORS["pauses_ms"]]
    clock = VirtualClock()

    class Queue(MemoryQueue):
        async def send_asynchronously(self, **request):
            return self.send_message_batch(**request)

    now = []
    queue = Queue(lambda call, _: (times.append(now[0]()), ["throttled"] if call < len(pauses) else ["taken"])[1])
    options = {"timeout": 60, "_random": lambda: 0.999}
    if kind == "sync":
        now.append(clock.now)
        Producer(URL, client=queue, _clock=clock, **options).send(message({}, 0))
    else:

        async def send():
            import asyncio

            now.append(asyncio.get_running_loop().time)
            await AsyncProducer(URL, Asynchronous(queue), **options).send(message({}, 0))

        run(send)
    made = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert made == pytest.approx([pause * 0.999 for pause in pauses])


def test_percentages_equal_the_vectors():
    for vector in VECTORS["percent"]:
        assert percent_of(vector["done"], vector["total"]) == vector["percent"], vector


def written(body, id):
    """Returns a sent message as the vectors write it."""
    message = json.loads(body)
    content = {name: value for name, value in message["payload"].items() if name not in ("id", "request_id", "seq")}
    fields = {name: value for name, value in message.items() if name in ("supersedable", "keep", "receipt", "expires_at")}
    return {**fields, "payload": content, "has_id": message["id"] == id}


def arguments_of(step):
    [(name, value)] = [(name, value) for name, value in step.items() if name not in ("at", "queue", "sent", "refused")]
    if name == "flush":
        return name, [], {}
    return (name, [], value) if name in ("update", "fail") else (name, [value], {})


def time_of(step, place):
    # 0.12 - 0.02 is less than 0.1 in floating point.
    return step["at"] / 1000 + place * 1e-9


class Script:
    """A case of progress."""

    def __init__(self, vector):
        self.vector = vector
        self.is_failing = False
        self.queue = MemoryQueue(lambda _, entries: ["throttled" if self.is_failing else "taken"] * len(entries))

    def options(self):
        interval = self.vector.get("min_interval_ms")
        return {} if interval is None else {"min_interval": interval / 1000}

    def to(self):
        return with_options(to(self.vector["to"]), self.vector["options"])

    def check(self, step, error, first):
        if "refused" in step:
            assert error is not None
            check_refused(error, step["refused"])
        else:
            assert error is None
        sent = [written(body, self.vector["options"].get("id")) for body in self.queue.bodies[first:]]
        assert sent == step["sent"], step

    def play(self):
        clock = VirtualClock()
        progress = Producer(URL, client=self.queue, _clock=clock).progress(self.to(), **self.options())
        for place, step in enumerate(self.vector["steps"]):
            clock.time = max(clock.time, time_of(step, place))
            self.is_failing = step.get("queue") == "failing"
            first, error = len(self.queue.bodies), None
            name, positional, named = arguments_of(step)
            try:
                getattr(progress, name)(*positional, **named)
            except ERRORS as raised:
                error = raised
            self.check(step, error, first)

    async def play_asynchronously(self):
        import asyncio

        loop = asyncio.get_running_loop()
        progress = AsyncProducer(URL, Asynchronous(self.queue)).progress(self.to(), **self.options())
        for place, step in enumerate(self.vector["steps"]):
            loop.virtual_time = max(loop.time(), time_of(step, place))
            self.is_failing = step.get("queue") == "failing"
            first, error = len(self.queue.bodies), None
            name, positional, named = arguments_of(step)
            try:
                await getattr(progress, name)(*positional, **named)
            except ERRORS as raised:
                error = raised
            self.check(step, error, first)


@both
@pytest.mark.parametrize("vector", named("progress"))
def test_progress(vector, kind):
    script = Script(vector)

    def play():
        if kind == "sync":
            script.play()
        else:
            run(script.play_asynchronously)

    if "refused" not in vector:
        return play()
    with pytest.raises(MessageError) as raised:
        with_options(to(vector["to"]), vector["options"])
        Producer(URL, client=script.queue).progress(script.to())
    check_refused(raised.value, vector["refused"])
