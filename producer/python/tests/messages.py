"""Random messages, and what the queue holds for them: written without the library, except for the order of JSON fields."""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import strategies as st

from streamer_producer import Message, MessageError
from streamer_producer._entry import entries_of

PAYLOAD = 128 * 1024
KEPT_PAYLOAD = 127 * 1024
TRACE = "Root=1-65a1b2c3-0123456789abcdef01234567;Sampled=1"
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

#: Characters that JSON, SQS, UTF-8 or the ids of SQS treat in a special way.
SPECIAL = '\0\v\x1f\x7f\x85\u2028\ufdd0\ufffd\ufffe\uffff\U0010ffff"\\/%#: é\U0001f469'
MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

characters = st.one_of(
    st.characters(exclude_categories=["Cs"]),
    st.sampled_from(SPECIAL),
    # Those that only the library escapes.
    st.sampled_from("\ufffe\uffff"),
)
texts = st.text(st.one_of(*[characters] * 8, st.sampled_from("\ud800\udfff")), max_size=30)


def ids(most, characters=characters):
    """Returns short ids, and ones of almost the maximum number of characters."""
    parts, less = st.text(characters, min_size=1, max_size=3), st.integers(0, 3)
    long = st.builds(lambda part, less: (part * most)[: most - less], parts, less)
    return st.text(characters, min_size=1, max_size=6) | long


#: 64 characters may have 256 bytes, which is the limit.
principals = ids(64, characters.filter(lambda character: not MISLEADING.match(character)))

#: The ids that the messages of a scenario share.
pools = st.fixed_dictionaries(
    {
        "connections": st.lists(ids(128).filter(lambda id: id not in (".", "..")), min_size=3, max_size=3, unique=True),
        "tenants": st.lists(principals, min_size=2, max_size=2),
        "users": st.lists(principals, min_size=2, max_size=2),
        "requests": st.lists(ids(128), min_size=2, max_size=2),
    }
)

bits = st.integers(0, 1)
users = st.fixed_dictionaries({"user": bits, "tenant": bits})
audiences = st.one_of(
    st.fixed_dictionaries({"connections": st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)}),
    st.fixed_dictionaries({"many": st.sampled_from([12, 99, 100, 101, 205])}),
    users,
    users,
    st.fixed_dictionaries({"tenant": bits}),
)

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)


@dataclass
class Large:
    """A text by one of its characters, and the number of bytes by which its JSON exceeds the limit."""

    unit: str
    over: int

    def text(self, limit):
        size = len(json.dumps(self.unit, ensure_ascii=self.unit in "\0\ufffe\ud800").encode()) - 2
        count = max(0, (limit - 2 + self.over) // size)
        return self.unit * count, 2 + count * size


large = st.builds(
    Large,
    st.sampled_from(["x", "x", "x", "é", "\U0001f469", "\ufffe", "\0", "\ud800"]),
    st.one_of(st.sampled_from([0, 1]), st.integers(-6, 6), st.integers(-PAYLOAD, -1000)),
)
contents = st.one_of(
    st.tuples(st.just("payload"), values),
    st.tuples(st.just("response"), values),
    st.tuples(st.just("json"), values),
    st.tuples(st.just("error"), st.tuples(texts, texts)),
    st.tuples(st.just("large"), large),
)


@dataclass
class Plan:
    """A message."""

    to: dict
    id: str | None
    request: int | None
    expires_at: datetime | None
    keep: int | None
    has_receipt: bool
    supersedable: bool | None
    fair_tenant: int | None
    is_traced: bool
    content: tuple


plans = st.builds(
    Plan,
    to=audiences,
    id=st.none() | ids(120),
    request=st.none() | bits,
    expires_at=st.none()
    | st.datetimes(datetime(2000, 1, 1), datetime(9999, 12, 31), timezones=st.just(timezone(timedelta(hours=5)))),
    keep=st.none() | st.integers(60, 2_592_000),
    has_receipt=st.booleans(),
    supersedable=st.none() | st.booleans(),
    fair_tenant=st.none() | bits,
    is_traced=st.booleans(),
    content=contents,
)


@dataclass
class ProgressPlan:
    """A request of its own, its updates in percent, and its result."""

    to: dict
    request: str
    percents: list
    result: object


progress_plans = st.builds(
    ProgressPlan,
    to=st.fixed_dictionaries({"connections": st.lists(st.integers(0, 2), min_size=1, max_size=1)}) | users,
    request=ids(100),
    percents=st.lists(st.integers(0, 100), max_size=4).map(sorted),
    result=values,
)


@dataclass
class Expected:
    """The fields of a message."""

    to: dict
    payload: object = None
    #: The content of a message that the library writes.
    content: dict | None = None
    id: str | None = None
    request: str | None = None
    fields: dict | None = None
    trace: str | None = None
    fair_tenant: str | None = None


def recipients_of(to, pool, is_fifo):
    """Returns the recipients of an audience. A large one has fewer on a FIFO queue, where each is a message."""
    if "many" in to:
        return {"connections": [f"c{number}" for number in range(12 if is_fifo else to["many"])]}
    if "connections" in to:
        return {"connections": [pool["connections"][place] for place in to["connections"]]}
    tenant = pool["tenants"][to["tenant"]]
    return {"user": {"tenant": tenant, "user": pool["users"][to["user"]]}} if "user" in to else {"tenant": tenant}


def builder_for(to):
    if "connections" in to:
        return Message.connections(to["connections"])
    return Message.user(**to["user"]) if "user" in to else Message.tenant(to["tenant"])


def progress_of(plan, number, pool):
    """Returns the builder of the n-th progress, and the expected fields of its messages."""
    to = recipients_of(plan.to, pool, False)
    update = Expected(to, request=f"{number}:{plan.request}", fields={"supersedable": True})
    updates = [replace(update, content={"type": "progress", "progress": percent}) for percent in plan.percents]
    end = replace(update, fields={}, content={"type": "complete", "result": plan.result})
    return builder_for(to).request(update.request), [*updates, end]


def message_of(plan, number, pool, is_fifo):
    """Builds the n-th message. Returns it with its expected fields, or nothing if it is too large, as its error says."""
    to = recipients_of(plan.to, pool, is_fifo)
    builder, expected, fields = builder_for(to), Expected(to), {}
    if plan.id is not None:
        expected.id = f"{number}:{plan.id}"
        builder = builder.id(expected.id)
    if plan.request is not None:
        expected.request = pool["requests"][plan.request]
        builder = builder.request(expected.request)
    if plan.expires_at is not None:
        fields["expires_at"] = (plan.expires_at - EPOCH) // timedelta(milliseconds=1)
        builder = builder.expires_at(plan.expires_at)
    if plan.keep is not None and "user" in to:
        fields["keep"] = plan.keep
        builder = builder.keep(timedelta(seconds=plan.keep))
    if plan.has_receipt:
        fields["receipt"] = True
        builder = builder.receipt()
    if plan.supersedable is not None:
        fields |= {"supersedable": True} if plan.supersedable else {}
        builder = builder.supersedable(plan.supersedable)
    if plan.fair_tenant is not None:
        expected.fair_tenant = pool["tenants"][plan.fair_tenant]
        builder = builder.fair_queue_tenant(expected.fair_tenant)
    if plan.is_traced:
        expected.trace = TRACE
        builder = builder.trace(TRACE)
    expected.fields = fields
    message = with_content(builder, plan.content, expected)
    return None if message is None else (message, expected)


def with_content(builder, content, expected):
    kind, value = content
    if kind == "response":
        expected.content = {"type": "response", "data": value}
        return builder.response(value)
    if kind == "error":
        expected.content = {"type": "error", "error": {"code": value[0], "message": value[1]}}
        return builder.error(*value)
    if kind == "json":
        expected.payload = value
        return builder.json(f" {json.dumps(value, ensure_ascii=False)}\n")
    if kind == "large":
        limit = KEPT_PAYLOAD if "keep" in expected.fields else PAYLOAD
        value, size = value.text(limit)
        if size > limit:
            with pytest.raises(MessageError) as raised:
                builder.payload(value)
            assert raised.value.kind == ("payload_too_large" if size > PAYLOAD else "kept_payload")
            return None
    expected.payload = value
    return builder.payload(value)


def encode(text):
    """Encodes a part of a group or deduplication id, byte by byte."""
    return "".join(chr(byte) if 0x20 < byte < 0x7F and byte not in b"%#:" else f"%{byte:02X}" for byte in text.encode())


def fit(id):
    return hashlib.sha256(id.encode()).hexdigest() if len(id) > 128 else id


def ids_of(fields, fair_tenant, is_fifo):
    """Returns the group and the deduplication id of an entry."""
    to = fields["to"]
    user = to.get("user")
    if not is_fifo:
        tenant = user["tenant"] if user else to.get("tenant", fair_tenant)
        return None if tenant is None else fit(encode(tenant)), None
    recipient = f"{encode(user['tenant'])}#{encode(user['user'])}" if user else encode(to["connection"])
    return fit(recipient), fit(f"{encode(fields['id'])}:{recipient}")


@dataclass(frozen=True)
class Entry:
    """A message on the queue."""

    body: str
    group: str | None
    deduplication: str | None
    trace: str | None


def entries(message, expected, is_fifo):
    """Checks the bodies of a message against its expected fields. Returns its entries on the queue."""
    if is_fifo and "tenant" in expected.to:
        return []
    bodies = [entry.body for entry in entries_of(message._fields, True)] if is_fifo else message.bodies()
    connections = expected.to.get("connections")
    size = 1 if is_fifo else 100
    assert len(bodies) == (1 if connections is None else -(-len(connections) // size))
    found = []
    for place, body in enumerate(bodies):
        fields = json.loads(body)
        ids = connections and connections[place * size : (place + 1) * size]
        to = expected.to if not ids else {"connection": ids[0]} if len(ids) == 1 else {"connections": ids}
        full = {"version": 1, "id": expected.id or message.id, "to": to, "payload": expected.payload, **expected.fields}
        of_request = {}
        if expected.request is not None:
            seq = fields["request"]["seq"]
            full["request"] = {"id": expected.request, "seq": seq}
            of_request = {"request_id": expected.request, "seq": seq}
        if expected.content is not None:
            full["payload"] = {**expected.content, **of_request, "id": message.id}
        if "receipt" in full and len(bodies) > 1:
            full["receipt"] = {"part": f"{place + 1}/{len(bodies)}"}
        assert fields == json.loads(json.dumps(full))
        group, deduplication = ids_of(fields, expected.fair_tenant, is_fifo)
        found.append(Entry(body, group, deduplication, expected.trace))
    return found
