"""The fields and options of a message, and checks of their values."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ._errors import MessageError
from ._json import bytes_of
from ._limits import KEPT_PAYLOAD_BYTES

#: Maximum length of a trace header: enough for root, parent, sampling decision and lineage.
_TRACE_CHARACTERS = 256

#: The characters of a trace header that SQS accepts.
_TRACE = re.compile(r"[!-~]*")

#: The request that a message belongs to: its id, and the message's sequence number.
Request = tuple[str, int]


@dataclass(frozen=True)
class Audience:
    """The recipients: connections, a user of a tenant, or a tenant alone."""

    connections: tuple[str, ...] | None = None
    tenant: str | None = None
    user: str | None = None


@dataclass(frozen=True, repr=False)
class Fields:
    """A message's fields, as the queue gets them."""

    to: Audience
    fair_queue_tenant: str | None
    id: str
    #: JSON text. It may be confidential.
    payload: str
    request: Request | None
    supersedable: bool
    #: Milliseconds since the epoch.
    expires_at: int | None
    #: Seconds.
    keep: int | None
    receipt: bool
    trace: str | None


@dataclass(frozen=True)
class Options:
    """The options of a builder."""

    to: Audience
    fair_queue_tenant: str | None = None
    id: str | None = None
    request: str | None = None
    supersedable: bool | None = None
    #: Returns the expiry of a message that is built now.
    expiry: Callable[[], int] | None = None
    keep: int | None = None
    receipt: bool = False
    trace: str | None = None


def given(**values: object) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def text(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise MessageError("text", f"`{name}` must be text, got type {type(value).__name__}")


def optional_text(name: str, value: object) -> str | None:
    return None if value is None else text(name, value)


def valid_trace(header: str | None) -> str | None:
    """Returns a trace header, or nothing if SQS would refuse it."""
    if header is None or "Root=" not in header or len(header) > _TRACE_CHARACTERS:
        return None
    return header if _TRACE.fullmatch(header) else None


def check_keep(options: Options, payload: str) -> None:
    """Checks that a message which is to be kept is for a user, and not too large."""
    if options.keep is None:
        return
    if options.to.user is None:
        remedy = "address the user, or leave `keep` out"
        raise MessageError("keep_audience", f"only a message to one user can be kept: {remedy}")
    size = bytes_of(payload)
    if size > KEPT_PAYLOAD_BYTES:
        most = f"at most {KEPT_PAYLOAD_BYTES} can be kept"
        raise MessageError("kept_payload", f"the payload has {size} bytes, {most}: keep a reference to it instead")
