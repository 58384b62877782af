"""Checks of arguments that both producers take."""

from __future__ import annotations

from ._message import Message, MessageBuilder

#: Default time limit of a send in seconds.
TIMEOUT = 10.0

#: The longest time in seconds: a year. Waits of the operating system have limits.
_MAX_SECONDS = 31_536_000


def check_url(queue_url: str) -> str:
    """Returns the URL of a queue."""
    if isinstance(queue_url, str) and queue_url:
        return queue_url
    raise TypeError("the producer has no queue: give it the queue's URL, such as os.environ['QUEUE_URL']")


def check_seconds(name: str, seconds: float) -> float:
    """Returns a number of seconds."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"`{name}` is a number of seconds, such as 2.5, got type {type(seconds).__name__}")
    if seconds > _MAX_SECONDS:
        raise ValueError(f"`{name}` must be at most {_MAX_SECONDS} seconds, a year")
    # Not true for NaN.
    if seconds >= 0:
        return seconds
    raise ValueError(f"`{name}` must be at least 0 seconds, got {seconds}")


def check_builder(to: MessageBuilder) -> MessageBuilder:
    """Returns the builder for the messages of a request."""
    if isinstance(to, MessageBuilder):
        return to
    got = "a Message, which has its content already" if isinstance(to, Message) else f"type {type(to).__name__}"
    raise TypeError(f"progress takes a builder, such as Message.connection(id).request(id), got {got}")
