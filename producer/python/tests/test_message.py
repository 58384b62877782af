import json
import pickle
import threading
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal

import pytest

from streamer_producer import Message, MessageError, SendAllError, SendError, Unsent, percent_of


def connection():
    return Message.connection("c=").id("m")


def body_of(message):
    return json.loads(message.bodies()[0])


def refused(kind, function, *arguments):
    with pytest.raises(MessageError) as raised:
        function(*arguments)
    assert raised.value.kind == kind
    return str(raised.value)


def test_one_builder_serves_several_messages():
    reply = Message.user("acme", "anna").request("r")
    kept = body_of(reply.id("kept").keep(timedelta(days=1)).receipt().complete(1))
    update, other = reply.progress(40), reply.progress(50)
    assert (kept["keep"], kept["receipt"], "supersedable" in kept) == (86400, True, False)
    assert "keep" not in body_of(update) and "receipt" not in body_of(update) and body_of(update)["supersedable"]
    assert update.id != other.id


def test_payload_is_that_of_the_call():
    data = {"rows": 1}
    message = connection().response(data)
    data["rows"] = 2
    assert body_of(message)["payload"]["data"] == {"rows": 1}


def test_bodies_of_many_connections_are_split():
    message = Message.connections(f"c{number}" for number in range(250)).receipt().payload(1)
    bodies = [json.loads(body) for body in message.bodies()]
    assert [len(body["to"]["connections"]) for body in bodies] == [100, 100, 50]
    assert [body["receipt"]["part"] for body in bodies] == ["1/3", "2/3", "3/3"]


def test_one_text_is_one_connection():
    assert body_of(Message.connections("abc").payload(1))["to"] == {"connection": "abc"}


@pytest.mark.parametrize("time", [5, 5.0, "5 s", None, {}, timedelta(seconds=-1), datetime.now(timezone.utc)])
def test_durations_without_unit_are_refused(time):
    text = refused("duration", connection().expires_in, time)
    assert text == "a duration is a timedelta of at least 0, such as timedelta(minutes=5)"
    refused("duration", Message.user("acme", "anna").keep, time)


def test_expiry_has_a_time_zone():
    cest = timezone(timedelta(hours=2))
    for time in [datetime(2026, 11, 27, 15, tzinfo=timezone.utc), datetime(2026, 11, 27, 17, 0, 0, 999, cest)]:
        assert body_of(connection().expires_at(time).payload(1))["expires_at"] == 1795791600000
    latest = datetime.max.replace(tzinfo=timezone(-timedelta(hours=12)))
    assert body_of(connection().expires_at(latest).payload(1))["expires_at"] == 253402300799999


@pytest.mark.parametrize("time", [1795791600, 1795791600.5, 1795791600000, "2026-11-30", None, date(2026, 11, 30), True])
def test_expiry_as_number_is_refused(time):
    assert "give a datetime with a time zone" in refused("expiry", connection().expires_at, time)


def test_expiry_without_time_zone_is_refused():
    assert "has no time zone" in refused("expiry", connection().expires_at, datetime(2026, 11, 30))


def test_lone_surrogates_never_change_silently():
    for id in ["a\ud800", "\udc00a"]:
        assert "this one has a lone surrogate" in refused("id", connection().id, id)
        refused("id", Message.user, "acme", id)
        for message in [connection().payload(id), connection().json(f'"{id}"')]:
            body = message.bodies()[0]
            assert body.encode().decode() == body
            assert body_of(message)["payload"] == id


@pytest.mark.parametrize("id", [7, None, {}, b"c"])
def test_ids_of_other_types_are_refused(id):
    assert refused("id", connection().id, id).endswith(f"has type {type(id).__name__}")
    for function in [Message.connection, Message.tenant, connection().request, connection().fair_queue_tenant]:
        refused("id", function, id)


def circular():
    value = []
    value.append(value)
    return value


def deep():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


class Broken(dict):
    def items(self):
        raise KeyError("s3cret")


@pytest.mark.parametrize("value", [{1, 2}, b"x", float("nan"), float("inf"), circular(), {(1, 2): 3}, object()])
def test_values_without_json_are_refused(value):
    for function in [connection().payload, connection().response, connection().complete]:
        assert refused("payload_not_json", function, value).startswith("the payload cannot be written as JSON: ")


@pytest.mark.parametrize(
    "value, problem",
    [
        (Decimal("1.5"), "it holds a Decimal: convert it to int, float, str, list or dict"),
        ({"a": [{1}]}, "it holds a set: convert it to int, float, str, list or dict"),
        ({(1, 2): 3}, "the keys of a dict must be text"),
        (float("nan"), "it holds itself, or a float that is NaN or infinite"),
        (circular(), "it holds itself, or a float that is NaN or infinite"),
        (deep(), "it is nested too deeply"),
        (Broken(a=1), "a value in it raised KeyError"),
    ],
)
def test_error_names_the_problem_of_a_value(value, problem):
    text = refused("payload_not_json", connection().payload, value)
    assert text == f"the payload cannot be written as JSON: {problem}"


def test_deep_values_are_refused():
    refused("payload_not_json", connection().payload, deep())
    refused("payload_not_json", connection().json, "[" * 100_000)


@pytest.mark.parametrize("text", ["NaN", "-Infinity", '"\n"', "", "'a'", b"1", 1, "\ufeff1", "\u00a01"])
def test_text_that_is_no_json_is_refused(text):
    refused("payload_not_json", connection().json, text)


def test_long_numbers_are_delivered_unchanged():
    number = "9" * 5000
    [body] = connection().json(number).bodies()
    assert number in body


def test_texts_have_their_type():
    assert refused("text", connection().error, "code", None) == "`message` must be text, got type NoneType"
    refused("text", connection().error, 1, "message")
    refused("text", connection().acknowledgment, {})
    refused("text", connection().progress, 1, 7)


@pytest.mark.parametrize("percent", [33.3, -1, float("nan"), "40", float("inf"), True, None])
def test_percentages_are_whole_numbers(percent):
    refused("percent", connection().progress, percent)


def test_percent_error_says_the_remedy():
    text = "percent must be between 0 and 100, got 33.3: round it, or use percent_of"
    assert refused("percent", connection().progress, 33.3) == text
    assert "s3cret" not in refused("percent", connection().progress, "s3cret")


@pytest.mark.parametrize(
    "done, total, percent",
    [
        *[(0, -1, 100), (-5, -1, 100), (-1, 3, 0), (-0.5, 1, 0), (1.5, 3, 50), (0.99, 1.0, 99), (0.29, 1, 29)],
        *[(1e-320, 1e-319, 10), (1e308, 1.7e308, 58), (10**400 - 1, 10**400, 99), (2.9e-7, 1e-5, 2)],
    ],
)
def test_percentage_is_exact(done, total, percent):
    assert percent_of(done, total) == percent


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), "1", None, True, Decimal(1)])
def test_percentage_of_other_values_is_refused(value):
    assert "percent_of takes" in refused("percent", percent_of, value, 3)
    assert "percent_of takes" in refused("percent", percent_of, 3, value)


def test_wrong_types_are_refused_at_once():
    with pytest.raises(TypeError, match=r"begins with its audience, such as Message.connection\(id\)"):
        Message("x")
    with pytest.raises(TypeError, match="`supersedable` must be True or False, got type str"):
        connection().supersedable("false")
    assert refused("text", connection().trace, 5) == "`header` must be text, got type int"


def test_trace_header_of_lambda_is_the_default(monkeypatch):
    def trace_of(builder):
        return builder.payload(1)._fields.trace

    header = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"
    monkeypatch.delenv("_X_AMZN_TRACE_ID", raising=False)
    assert trace_of(connection()) is None
    monkeypatch.setenv("_X_AMZN_TRACE_ID", header)
    assert trace_of(connection()) == header
    assert trace_of(connection().trace("Root=other")) == "Root=other"


def test_printed_messages_hide_the_payload():
    message = connection().response("s3cret")
    assert "s3cret" not in repr(message) + str(message)
    text = refused("payload_too_large", connection().response, "s3cret" * 30_000)
    assert "s3cret" not in text


def test_errors_have_no_payload_in_their_chain():
    with pytest.raises(MessageError) as raised:
        connection().payload({"s3cret": object()})
    assert raised.value.__cause__ is None and raised.value.__context__ is None


def test_seq_increases_in_all_threads():
    seqs = []

    def build():
        own = [body_of(connection().request("r").payload(1))["request"]["seq"] for _ in range(500)]
        assert own == sorted(own)
        seqs.extend(own)

    threads = [threading.Thread(target=build) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(seqs)) == 2000


def test_seq_increases_when_the_clock_goes_back(monkeypatch):
    first = body_of(connection().request("r").payload(1))["request"]["seq"]
    monkeypatch.setattr("time.time_ns", lambda: 1)
    assert body_of(connection().request("r").payload(1))["request"]["seq"] == first + 1


def test_errors_can_be_pickled():
    send = SendError("refused", "text", "Code")
    for error in [MessageError("id", "text"), send, SendAllError(2, [Unsent(1, "m", send)])]:
        copy = pickle.loads(pickle.dumps(error))
        assert (type(copy), str(copy)) == (type(error), str(error))
    assert pickle.loads(pickle.dumps(send)).code == "Code"
