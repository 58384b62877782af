"""The cases of `message/schema/producer-vectors.json`, which producers in any language share."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

from streamer_producer import Message

_FILE = Path(__file__).parents[3] / "message/schema/producer-vectors.json"


def _expanded(value):
    """Replaces each `{"$text": […]}` by the text that it describes."""
    if isinstance(value, list):
        return [_expanded(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$text" in value:
        return "".join(part if isinstance(part, str) else part[0] * part[1] for part in value["$text"])
    return {name: _expanded(item) for name, item in value.items()}


VECTORS = _expanded(json.loads(_FILE.read_text("utf-8")))


def named(section):
    """Returns the cases of a section, for `pytest.mark.parametrize`."""
    import pytest

    return [pytest.param(vector, id=vector["name"]) for vector in VECTORS[section]]


def to(audience):
    """Returns the builder for an audience."""
    [(kind, value)] = audience.items()
    return Message.user(value["tenant"], value["user"]) if kind == "user" else getattr(Message, kind)(value)


_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

_OPTIONS = {
    "id": lambda builder, id: builder.id(id),
    "request": lambda builder, id: builder.request(id),
    "supersedable": lambda builder, value: builder.supersedable(value),
    "expires_in_ms": lambda builder, milliseconds: builder.expires_in(timedelta(milliseconds=milliseconds)),
    "expires_at_ms": lambda builder, ms: builder.expires_at(_EPOCH + timedelta(milliseconds=ms)),
    "keep_s": lambda builder, seconds: builder.keep(timedelta(seconds=seconds)),
    "receipt": lambda builder, _: builder.receipt(),
    "trace": lambda builder, header: builder.trace(header),
    "fair_queue_tenant": lambda builder, tenant: builder.fair_queue_tenant(tenant),
}


def with_options(builder, options):
    for name, value in options.items():
        builder = _OPTIONS[name](builder, value)
    return builder


def with_content(builder, content):
    [(kind, value)] = content.items()
    if kind in ("acknowledgment", "progress", "error"):
        return getattr(builder, kind)(**value)
    return getattr(builder, kind)(value)


def message(vector, number, size=None):
    """Returns the n-th message of a case with a scripted queue, with a body of this size in bytes, or a short one."""
    builder = Message.connection("c").request("r") if vector.get("same_recipient") else Message.connection(f"c{number}")

    def build(padding):
        return builder.id(f"m{number}").payload("x" * padding)

    return build(0) if size is None else build(size - len(build(0).bodies()[0].encode()))
