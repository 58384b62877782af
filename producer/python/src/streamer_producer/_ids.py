"""Identifiers: checks, and new ones."""

from __future__ import annotations

import os
import re
import threading
import time
import uuid

from . import _fork
from ._errors import MessageError
from ._json import bytes_of, has_lone_surrogate
from ._limits import ID_CHARACTERS, PRINCIPAL_BYTES

#: Characters that could change what a terminal or a table shows: control characters, line and paragraph separators, and
#: characters that change the direction of text (Unicode Standard Annex 9, section 2).
_MISLEADING = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

_CHARACTERS = f"1 to {ID_CHARACTERS} characters"
_PRINCIPAL = f"1 to {PRINCIPAL_BYTES} bytes and no control or bidirectional formatting character"


def _refuse(kind: str, expected: str, problem: int | str) -> MessageError:
    # The error does not repeat the id.
    return MessageError("id", f"a {kind} must have {expected}; this one has {problem}")


def _type_problem(value: object) -> str | None:
    if not isinstance(value, str):
        return f"type {type(value).__name__}"
    return "a lone surrogate" if has_lone_surrogate(value) else None


def _check(kind: str, expected: str, value: str) -> str:
    problem = _type_problem(value)
    if problem is not None:
        raise _refuse(kind, expected, problem)
    if not 1 <= len(value) <= ID_CHARACTERS:
        raise _refuse(kind, expected, len(value))
    return value


def _check_principal(kind: str, value: str) -> str:
    problem = _type_problem(value)
    if problem is not None:
        raise _refuse(kind, _PRINCIPAL, problem)
    if _MISLEADING.search(value):
        raise _refuse(kind, _PRINCIPAL, "one")
    size = bytes_of(value)
    if not 1 <= size <= PRINCIPAL_BYTES:
        raise _refuse(kind, _PRINCIPAL, size)
    return value


def check_message_id(value: str) -> str:
    """Returns a valid id of a message, or raises `MessageError`."""
    return _check("message id", _CHARACTERS, value)


def check_request_id(value: str) -> str:
    """Returns a valid id of a request, or raises `MessageError`."""
    return _check("request id", _CHARACTERS, value)


def check_tenant_id(value: str) -> str:
    """Returns a valid id of a tenant, or raises `MessageError`."""
    return _check_principal("tenant id", value)


def check_user_id(value: str) -> str:
    """Returns a valid id of a user, or raises `MessageError`."""
    return _check_principal("user id", value)


def check_connection_id(value: str) -> str:
    """Returns a valid id of a connection, or raises `MessageError`."""
    expected = f"{_CHARACTERS} and be neither `.` nor `..`"
    # They would address another resource (RFC 3986, section 5.2.4).
    if value in (".", ".."):
        raise _refuse("connection id", expected, len(value))
    return _check("connection id", expected, value)


def new_message_id() -> str:
    """Returns a new UUIDv7 (RFC 9562), which contains the current time in milliseconds."""
    number = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    # The version and the variant.
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    return str(uuid.UUID(int=number))


class _Sequence:
    """The sequence numbers of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        _fork.register(self)

    def next(self) -> int:
        with self._lock:
            self._last = max(time.time_ns() // 1000, self._last + 1)
            return self._last

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


_sequence = _Sequence()


def next_seq() -> int:
    """Returns the clock in microseconds, or the previous result of this process plus 1 if that is later.

    The clock may be set back.
    """
    return _sequence.next()
