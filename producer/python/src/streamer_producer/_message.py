"""Messages, and the builder for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta

from ._entry import entries_of
from ._errors import MessageError
from ._fields import Audience, Fields, Options, Request, check_keep, given, optional_text, text, valid_trace
from ._ids import (
    check_connection_id,
    check_message_id,
    check_request_id,
    check_tenant_id,
    check_user_id,
    new_message_id,
    next_seq,
)
from ._json import payload_of, payload_of_text
from ._limits import NEVER
from ._percent import check_percent
from ._times import expiry_of, keep_seconds_of, milliseconds_of


class Message:
    """A valid message, within every limit, that `Producer.send` can send.

    Its constructors name the audience and return a builder.
    """

    __slots__ = ("_fields",)

    def __init__(self, fields: Fields) -> None:
        if not isinstance(fields, Fields):
            raise TypeError("a Message begins with its audience, such as Message.connection(id)")
        self._fields = fields

    @staticmethod
    def connection(id: str) -> MessageBuilder:
        """Begins a message for one connection."""
        return Message.connections([id])

    @staticmethod
    def connections(ids: Iterable[str]) -> MessageBuilder:
        """Begins a message for any number of connections.

        On the queue, 100 connections share a message; on a FIFO queue, each has its own.
        """
        # The characters of one id are no ids.
        connections = tuple(check_connection_id(id) for id in ([ids] if isinstance(ids, str) else ids))
        if not connections:
            raise MessageError("no_recipient", "the message has no recipient: name at least one connection")
        return MessageBuilder(Options(Audience(connections=connections)))

    @staticmethod
    def user(tenant: str, user: str) -> MessageBuilder:
        """Begins a message for the connections that a user has when it is delivered.

        Connections that open within the worker's away grace (30 s by default) get it, too. Use it for work that may
        outlive a socket, which API Gateway closes after 2 hours.
        """
        return MessageBuilder(Options(Audience(tenant=check_tenant_id(tenant), user=check_user_id(user))))

    @staticmethod
    def tenant(tenant: str) -> MessageBuilder:
        """Begins a message for all connections of a tenant. A FIFO queue takes no such message."""
        return MessageBuilder(Options(Audience(tenant=check_tenant_id(tenant))))

    @property
    def id(self) -> str:
        """The message's id."""
        return self._fields.id

    def bodies(self) -> list[str]:
        """Returns the bodies that `Producer.send` puts on a standard queue: one, or one for each 100 connections.

        A program publishes them itself on an SNS topic with raw message delivery, in front of the queues of several
        cells.
        """
        return [entry.body for entry in entries_of(self._fields, False)]

    def __repr__(self) -> str:
        return f"<Message {self.id!r}>"


class MessageBuilder:
    """A message without content.

    Each option returns another builder, so that one builder serves several messages. A method raises `MessageError` for
    a value that is not valid.

    Values become JSON as `json.dumps` writes them: a key that is a number becomes text, so keys such as `1` and `"1"`
    should not meet in one object.
    """

    __slots__ = ("_options",)

    def __init__(self, options: Options) -> None:
        self._options = options

    def id(self, id: str) -> MessageBuilder:
        """Sets the id, 1 to 128 characters. The default is a new UUIDv7.

        A producer that may be retried, such as a Lambda, derives the id from its input, so that a retry sends the same
        message.
        """
        return MessageBuilder(replace(self._options, id=check_message_id(id)))

    def request(self, id: str) -> MessageBuilder:
        """Sets the id of the request that the message belongs to, 1 to 128 characters.

        The message's sequence number within the request (`seq`) is the clock in microseconds.
        """
        return MessageBuilder(replace(self._options, request=check_request_id(id)))

    def expires_in(self, duration: timedelta) -> MessageBuilder:
        """Sets how long from now the message is worth delivering. By default it never expires."""
        milliseconds = milliseconds_of(duration)

        def expiry() -> int:
            return min(time.time_ns() // 1_000_000 + milliseconds, NEVER)

        return MessageBuilder(replace(self._options, expiry=expiry))

    def expires_at(self, time: datetime) -> MessageBuilder:
        """Sets the time until which the message is worth delivering, a datetime with a time zone.

        A number is refused, because it does not say its unit.
        """
        milliseconds = expiry_of(time)
        return MessageBuilder(replace(self._options, expiry=lambda: milliseconds))

    def keep(self, duration: timedelta) -> MessageBuilder:
        """Keeps the message for a user who is away, for 60 s to 30 days in whole seconds.

        A kept payload has at most 127 KiB. A message that also expires is kept until the earlier of the two. The
        deployment needs a mailbox.
        """
        return MessageBuilder(replace(self._options, keep=keep_seconds_of(duration)))

    def receipt(self) -> MessageBuilder:
        """Asks for a receipt: the worker sends the message's outcome to the deployment's receipts queue."""
        return MessageBuilder(replace(self._options, receipt=True))

    def supersedable(self, supersedable: bool) -> MessageBuilder:
        """Sets whether a later message of the same request makes this one worthless. The default: for progress only."""
        if not isinstance(supersedable, bool):
            raise TypeError(f"`supersedable` must be True or False, got type {type(supersedable).__name__}")
        return MessageBuilder(replace(self._options, supersedable=supersedable))

    def fair_queue_tenant(self, tenant: str) -> MessageBuilder:
        """Sets the tenant of the connections, for SQS fair queues.

        On a standard queue, SQS delays the messages of a tenant that sends very many, and not those of other tenants.
        Messages for a user or a tenant have the group in any case.
        """
        return MessageBuilder(replace(self._options, fair_queue_tenant=check_tenant_id(tenant)))

    def trace(self, header: str) -> MessageBuilder:
        """Sets the X-Ray trace header that travels with the message.

        In Lambda, the default is that of the current invocation. A header that SQS would refuse is dropped.
        """
        return MessageBuilder(replace(self._options, trace=text("header", header)))

    def acknowledgment(self, message: str | None = None) -> Message:
        """Builds an `acknowledgment`: the request has arrived, and work on it has begun. `message` is for people."""
        return self._content({"type": "acknowledgment", **given(message=optional_text("message", message))})

    def progress(self, percent: int, message: str | None = None, details: object = None) -> Message:
        """Builds a `progress`: how much of the work is done, in percent. `message` is for people, `details` any JSON."""
        optional = given(message=optional_text("message", message), details=details)
        return self._content({"type": "progress", "progress": check_percent(percent), **optional}, True)

    def response(self, data: object) -> Message:
        """Builds a `response`: the answer to a request that is answered at once. `data` is any JSON."""
        return self._content({"type": "response", "data": data})

    def complete(self, result: object) -> Message:
        """Builds a `complete`: the work on a request has ended with this result, any JSON."""
        return self._content({"type": "complete", "result": result})

    def error(self, code: str, message: str, details: object = None) -> Message:
        """Builds an `error`: the request failed. `code` is for programs, `message` for people, `details` any JSON."""
        error = {"code": text("code", code), "message": text("message", message), **given(details=details)}
        return self._content({"type": "error", "error": error})

    def payload(self, value: object) -> Message:
        """Builds a message whose payload is any value, as its JSON.

        It holds the message's id only if the value does, and only then can clients recognise a second delivery.
        """
        return self._build(False, lambda id, request: payload_of(value))

    def json(self, text: str) -> Message:
        """Builds a message whose payload is this JSON text, delivered unchanged."""
        return self._build(False, lambda id, request: payload_of_text(text))

    def _content(self, content: dict[str, object], supersedable: bool = False) -> Message:
        def payload(id: str, request: Request | None) -> str:
            if request is None:
                return payload_of({**content, "id": id})
            return payload_of({**content, "request_id": request[0], "id": id, "seq": request[1]})

        return self._build(supersedable, payload)

    def _build(self, supersedable: bool, payload_for: Callable[[str, Request | None], str]) -> Message:
        options = self._options
        id = new_message_id() if options.id is None else options.id
        request = None if options.request is None else (options.request, next_seq())
        payload = payload_for(id, request)
        check_keep(options, payload)
        fields = Fields(
            to=options.to,
            fair_queue_tenant=options.fair_queue_tenant,
            id=id,
            payload=payload,
            request=request,
            supersedable=supersedable if options.supersedable is None else options.supersedable,
            expires_at=None if options.expiry is None else options.expiry(),
            keep=options.keep,
            receipt=options.receipt,
            trace=valid_trace(os.environ.get("_X_AMZN_TRACE_ID") if options.trace is None else options.trace),
        )
        return Message(fields)
