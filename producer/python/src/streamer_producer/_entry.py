"""The messages on the queue that a message needs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ._json import bytes_of, escape_for_queue, write
from ._limits import CONNECTIONS

if TYPE_CHECKING:
    from ._fields import Audience, Fields

#: Maximum number of characters of a message group id or deduplication id. Source: "Message group ID" in
#: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html.
_ID_CHARACTERS = 128

#: The characters that are encoded in a part of an id: those that SQS refuses, `%`, and the separators of parts.
_ENCODED = re.compile(r"[^!-~]|[%#:]")


@dataclass(frozen=True, repr=False)
class Entry:
    """One message on the queue."""

    body: str
    #: Its size as SQS counts it: without system attributes, such as the trace header. Source:
    #: https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-message-metadata.html
    size: int
    group: str | None = None
    deduplication: str | None = None
    trace: str | None = None
    #: Entries with the same key keep their order.
    key: Hashable | None = None


def _encode(part: str) -> str:
    return _ENCODED.sub(lambda match: "".join(f"%{byte:02X}" for byte in match[0].encode()), part)


def _fit(text: str) -> str:
    """Returns the id, or its SHA-256 if it is too long for SQS."""
    return text if len(text) <= _ID_CHARACTERS else hashlib.sha256(text.encode()).hexdigest()


def entries_of(message: Fields, is_fifo: bool) -> Iterator[Entry]:
    """Returns the entries of a message: one for each 100 connections.

    On a FIFO queue, where a connection's messages are a message group, one for each connection.
    """
    to = message.to
    if to.connections is None:
        yield _entry_of(message, to, "true", is_fifo)
        return
    size = 1 if is_fifo else CONNECTIONS
    bodies = -(-len(to.connections) // size)
    for number in range(1, bodies + 1):
        ids = to.connections[(number - 1) * size : number * size]
        receipt = "true" if bodies == 1 else f'{{"part":"{number}/{bodies}"}}'
        yield _entry_of(message, type(to)(connections=ids), receipt, is_fifo)


def _entry_of(message: Fields, to: Audience, receipt: str, is_fifo: bool) -> Entry:
    audience = _audience(to)
    fields = [f'"version":1,"id":{write(message.id)},"to":{audience},"payload":{message.payload}']
    if message.request is not None:
        request, seq = message.request
        fields.append(f'"request":{{"id":{write(request)},"seq":{seq}}}')
    if message.supersedable:
        fields.append('"supersedable":true')
    if message.expires_at is not None:
        fields.append(f'"expires_at":{message.expires_at}')
    if message.keep is not None:
        fields.append(f'"keep":{message.keep}')
    if message.receipt:
        fields.append(f'"receipt":{receipt}')
    body = escape_for_queue(f"{{{','.join(fields)}}}")
    if is_fifo:
        recipient = _recipient(to)
        group = _fit(recipient)
        deduplication = _fit(f"{_encode(message.id)}:{recipient}")
        return Entry(body, bytes_of(body), group, deduplication, message.trace, group)
    tenant = message.fair_queue_tenant if to.connections is not None else to.tenant
    group_of_tenant = None if tenant is None else _fit(_encode(tenant))
    key = None if message.request is None else (message.request[0], audience)
    return Entry(body, bytes_of(body), group_of_tenant, None, message.trace, key)


def _audience(to: Audience) -> str:
    """Returns the recipients of one message on the queue as JSON."""
    if to.connections is not None:
        one = len(to.connections) == 1
        return write({"connection": to.connections[0]} if one else {"connections": to.connections})
    return write({"tenant": to.tenant} if to.user is None else {"user": {"tenant": to.tenant, "user": to.user}})


def _recipient(to: Audience) -> str:
    """Returns a text that identifies an audience on a FIFO queue. No two audiences share one."""
    if to.connections is not None:
        return _encode(to.connections[0])
    if to.tenant is None or to.user is None:
        raise TypeError("a FIFO queue takes messages for one connection or one user")
    return f"{_encode(to.tenant)}#{_encode(to.user)}"
