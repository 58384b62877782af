"""Sends messages to clients of a WebSocket API through Streamer's outbound queue.

`Message` names the audience; its builder takes options, and then the content. `Producer` sends messages to the queue, and
`AsyncProducer` does from an event loop. `Progress` sends the updates of one request at a limited rate, and then its end.
"""

from ._async_producer import AsyncProducer
from ._async_progress import AsyncProgress
from ._errors import (
    MessageError,
    MessageKind,
    ProducerError,
    ProgressError,
    ProgressKind,
    SendAllError,
    SendError,
    SendKind,
    Unsent,
)
from ._message import Message, MessageBuilder
from ._percent import percent_of
from ._producer import Producer
from ._progress import Progress
from ._queue import Client

__all__ = [
    "AsyncProducer",
    "AsyncProgress",
    "Client",
    "Message",
    "MessageBuilder",
    "MessageError",
    "MessageKind",
    "Producer",
    "ProducerError",
    "Progress",
    "ProgressError",
    "ProgressKind",
    "SendAllError",
    "SendError",
    "SendKind",
    "Unsent",
    "percent_of",
]
