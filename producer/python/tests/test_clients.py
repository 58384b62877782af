"""The clients of SQS: which ones a producer takes, and which of their errors it retries."""

import asyncio
import http.client
import traceback
import warnings

import aiohttp
import boto3.session
import botocore.exceptions
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config
from botocore.exceptions import ClientError, ParamValidationError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from clocks import VirtualClock, run
from queues import Asynchronous, MemoryQueue
from test_vectors import both

from streamer_producer import AsyncProducer, Message, Producer, ProducerError, SendError

URL = "http://127.0.0.1/outbound"
KEYS = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "eu-central-1"}
ONE_ATTEMPT = {"total_max_attempts": 1, "mode": "standard"}


def message():
    return Message.connection("c").id("m").payload("s3cret")


def client_of_boto3(**options):
    return boto3.session.Session().client("sqs", config=Config(**options), **KEYS)


def with_client_of_aiobotocore(function, **options):
    async def play():
        async with get_session().create_client("sqs", config=AioConfig(**options), **KEYS) as client:
            return function(client)

    return asyncio.run(play())


def failure_of_send(kind, client):
    """Sends with a client, and returns the error."""
    with pytest.raises(SendError) as raised:
        if kind == "sync":
            Producer(URL, client=client, _clock=VirtualClock()).send(message())
        else:
            run(lambda: AsyncProducer(URL, client).send(message()))
    return raised.value


class Raising(MemoryQueue):
    """A queue that takes the messages, while its client raises errors, and then nothing."""

    def __init__(self, *errors):
        super().__init__()
        self.errors = list(errors)

    def send_message_batch(self, **request):
        output = super().send_message_batch(**request)
        if self.errors:
            raise self.errors.pop(0)
        return output


def of(kind, queue):
    return queue if kind == "sync" else Asynchronous(queue)


def test_clients_of_the_other_kind_are_refused():
    with pytest.raises(TypeError, match="AsyncProducer takes a client of aiobotocore or aioboto3: use Producer"):
        AsyncProducer(URL, client_of_boto3())
    with pytest.raises(TypeError, match="Producer takes a client of boto3: use AsyncProducer"):
        with_client_of_aiobotocore(lambda client: Producer(URL, client=client))
    for client in [boto3, "sqs"]:
        for producer in [lambda client=client: Producer(URL, client=client), lambda c=client: AsyncProducer(URL, c)]:
            with pytest.raises(TypeError, match="`client` must be an open SQS client, got type"):
                producer()


@pytest.mark.filterwarnings("error")
def test_answers_of_other_clients_are_not_retried():
    queue = MemoryQueue()
    error = failure_of_send("async", queue)
    text = "the queue cannot be called: its answer is not awaitable; use Producer for such a client"
    assert (error.kind, str(error), len(queue.calls)) == ("not_configured", text, 1)
    error = failure_of_send("sync", Asynchronous(MemoryQueue()))
    text = "the queue cannot be called: its answer is awaitable; use AsyncProducer for such a client"
    assert (error.kind, str(error)) == ("not_configured", text)


@both
@pytest.mark.parametrize("error", [RuntimeError("s3cret"), TypeError("s3cret"), ValueError("s3cret"), KeyError("s3cret")])
def test_program_errors_are_not_retried(error, kind):
    queue = Raising(*[error] * 9)
    raised = failure_of_send(kind, of(kind, queue))
    assert (raised.kind, raised.is_queue_fault, len(queue.calls)) == ("not_configured", True, 1)
    assert f"the client raised {type(error).__name__}; give the producer an SQS client that works" in str(raised)
    assert "s3cret" not in "".join(traceback.format_exception(raised)) + repr(vars(raised))


@both
@pytest.mark.parametrize(
    "error",
    [
        OSError("s3cret"),
        asyncio.TimeoutError("s3cret"),
        aiohttp.ClientPayloadError("s3cret"),
        http.client.BadStatusLine("s3cret"),
        ReadTimeoutError(endpoint_url=URL),
        ResponseParserError("s3cret"),
        botocore.exceptions.ConnectionClosedError(endpoint_url=URL),
        botocore.exceptions.CredentialRetrievalError(provider="p", error_msg="s3cret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_network_errors_are_retried(error, kind):
    queue = Raising(error)
    if kind == "sync":
        Producer(URL, client=queue, _clock=VirtualClock()).send(message())
    else:
        run(lambda: AsyncProducer(URL, Asynchronous(queue)).send(message()))
    assert len(queue.calls) == 2
    raised = failure_of_send(kind, of(kind, Raising(*[error] * 999)))
    no_call = isinstance(error, botocore.exceptions.CredentialRetrievalError)
    cause = f"{'no call could be made' if no_call else 'no answer'}: {type(error).__name__}; send it again"
    assert raised.kind == "timed_out" and cause in str(raised)
    assert "s3cret" not in "".join(traceback.format_exception(raised)) + repr(vars(raised))


@pytest.mark.parametrize(
    "error",
    [
        botocore.exceptions.UnauthorizedSSOTokenError(),
        botocore.exceptions.SSOTokenLoadError(error_msg="s3cret"),
        botocore.exceptions.TokenRetrievalError(provider="sso", error_msg="s3cret"),
        botocore.exceptions.ProfileNotFound(profile="s3cret"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_missing_logins_are_not_retried(error):
    queue = Raising(*[error] * 9)
    raised = failure_of_send("sync", queue)
    assert (raised.kind, raised.is_queue_fault, len(queue.calls)) == ("not_configured", True, 1)
    cause = f"no call could be made: {type(error).__name__}; set the client's credentials, Region and endpoint"
    assert str(raised) == f"the queue cannot be called: {cause}"


def test_refused_parameters_are_not_retried():
    queue = Raising(*[ParamValidationError(report="s3cret")] * 9)
    raised = failure_of_send("sync", queue)
    text = (
        "the queue cannot be called: botocore refuses the parameters of the call; check the queue's URL, and update boto3"
    )
    assert (str(raised), len(queue.calls)) == (text, 1)


@both
def test_answer_of_sqs_is_the_cause(kind):
    for code, count in [("AccessDenied", 1), ("InternalError", 999)]:
        answers = [ClientError({"Error": {"Code": code, "Message": "text"}}, "SendMessageBatch") for _ in range(count)]
        error = failure_of_send(kind, of(kind, Raising(*answers)))
        assert isinstance(error, ProducerError) and error.__cause__.response["Error"]["Code"] == code
        # Its frames hold payloads and credentials.
        assert error.__cause__.__traceback__ is None and error.__cause__.__context__ is None


@pytest.mark.parametrize("retries", [None, {"mode": "standard"}, {"max_attempts": 1}, {"total_max_attempts": 3}])
def test_client_that_retries_is_reported_once(retries):
    options = {} if retries is None else {"retries": retries}

    def check(create, config):
        with pytest.warns(UserWarning, match=f"the SQS client retries calls.*create it with {config}.retries=") as warned:
            create()
        assert [warning.filename for warning in warned] == [__file__]

    check(lambda: Producer(URL, client=client_of_boto3(**options)), "Config")
    with_client_of_aiobotocore(lambda client: check(lambda: AsyncProducer(URL, client), "AioConfig"), **options)


@pytest.mark.parametrize("retries", [ONE_ATTEMPT, {"total_max_attempts": 1}, {"max_attempts": 0}])
def test_client_without_retries_is_not_reported(retries):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Producer(URL, client=client_of_boto3(retries=dict(retries)))
        Producer(URL, client=MemoryQueue())
        with_client_of_aiobotocore(lambda client: AsyncProducer(URL, client), retries=dict(retries))
