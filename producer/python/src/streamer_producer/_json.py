"""JSON in characters that SQS accepts."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ._errors import MessageError
from ._limits import PAYLOAD_BYTES

#: SQS accepts the characters of XML 1.0. JSON itself escapes the control characters, which leaves these two. A lone
#: surrogate has no form in UTF-8.
#:
#: Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html.
_REFUSED = re.compile("[\ufffe\uffff\ud800-\udfff]")

_SURROGATE = re.compile("[\ud800-\udfff]")

#: `json.dumps` would make an encoder for each call.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

#: The spaces that JSON knows.
_SPACES = " \t\r\n"


def escape_for_queue(text: str) -> str:
    """Escapes the characters in JSON text that SQS refuses. This does not change the value."""
    return text if text.isascii() else _REFUSED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def has_lone_surrogate(text: str) -> bool:
    """Returns whether a text has a lone surrogate."""
    return not text.isascii() and _SURROGATE.search(text) is not None


def bytes_of(text: str) -> int:
    """Returns the size of a text in UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def write(value: object) -> str:
    """Returns a value as compact JSON text. Raises what `json.dumps` raises."""
    return _ENCODER.encode(value)


def payload_of(value: object) -> str:
    """Returns a value as the JSON text of a payload. Raises `MessageError` if it is not JSON, or too large."""
    try:
        text = write(value)
    except (TypeError, ValueError, RecursionError):
        text = None
    # Outside of `except`: the error of `json` may hold a part of the value.
    return _refuse() if text is None else _checked(text)


def payload_of_text(text: str) -> str:
    """Checks JSON text, and returns it as a payload. Raises `MessageError` if it is not JSON, or too large."""
    return _checked(text.strip(_SPACES)) if isinstance(text, str) and _is_json(text) else _refuse()


def _is_json(text: str) -> bool:
    try:
        # Numbers of any length are JSON. `NaN` and `Infinity` are not.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(_: Any = None) -> NoReturn:
    raise MessageError("payload_not_json", "the payload cannot be written as JSON")


def _checked(text: str) -> str:
    payload = escape_for_queue(text)
    size = bytes_of(payload)
    if size <= PAYLOAD_BYTES:
        return payload
    limit = f"API Gateway delivers at most {PAYLOAD_BYTES}"
    remedy = "send a reference to it, or send it in parts"
    raise MessageError("payload_too_large", f"the payload has {size} bytes, {limit}: {remedy}")
