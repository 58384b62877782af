"""JSON in characters that SQS accepts."""

from __future__ import annotations

import json
import re
from typing import NoReturn

from ._errors import MessageError
from ._limits import PAYLOAD_BYTES

#: SQS accepts the characters of XML 1.0. JSON itself escapes the control characters, which leaves these two. A lone
#: surrogate has no form in UTF-8.
#:
#: Source: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html.
_REFUSED = re.compile("[\ufffe\uffff\ud800-\udfff]")

_SURROGATE = re.compile("[\ud800-\udfff]")


class _NotJsonError(Exception):
    """A value has a type that JSON lacks."""


class _Encoder(json.JSONEncoder):
    def default(self, o: object) -> NoReturn:
        raise _NotJsonError(f"it holds a {type(o).__name__}: convert it to int, float, str, list or dict")


#: `json.dumps` would make an encoder for each call.
_ENCODER = _Encoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))

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
        text, problem = write(value), ""
    except Exception as error:
        text, problem = None, _problem_of(error)
    # Outside of `except`: the error of `json` may hold a part of the value.
    return _refuse(problem) if text is None else _checked(text)


def _problem_of(error: Exception) -> str:
    """Returns why a value is not JSON, without a part of the value."""
    if isinstance(error, _NotJsonError):
        return f": {error}"
    if isinstance(error, RecursionError):
        return ": it is nested too deeply"
    if isinstance(error, TypeError):
        return ": the keys of a dict must be text"
    if isinstance(error, ValueError):
        return ": it holds itself, or a float that is NaN or infinite"
    return f": a value in it raised {type(error).__name__}"


def payload_of_text(text: str) -> str:
    """Checks JSON text, and returns it as a payload. Raises `MessageError` if it is not JSON, or too large."""
    return _checked(text.strip(_SPACES)) if isinstance(text, str) and _is_json(text) else _refuse()


def _is_json(text: str) -> bool:
    try:
        # Numbers of any length are JSON. `NaN` and `Infinity` are not.
        json.loads(text, parse_int=str, parse_float=str, parse_constant=lambda _: _refuse())
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(problem: str = "") -> NoReturn:
    raise MessageError("payload_not_json", f"the payload cannot be written as JSON{problem}")


def _checked(text: str) -> str:
    payload = escape_for_queue(text)
    size = bytes_of(payload)
    if size <= PAYLOAD_BYTES:
        return payload
    limit = f"API Gateway delivers at most {PAYLOAD_BYTES}"
    remedy = "send a reference to it, or send it in parts"
    raise MessageError("payload_too_large", f"the payload has {size} bytes, {limit}: {remedy}")
