"""Parts that the synchronous and the asynchronous producer share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ._entry import entries_of
from ._errors import SendAllError, SendError, Unsent
from ._jobs import Item
from ._message import Message

#: Default time limit of a send in seconds.
TIMEOUT = 10.0


def check_url(queue_url: str) -> str:
    """Returns the URL of a queue."""
    if isinstance(queue_url, str) and queue_url:
        return queue_url
    raise TypeError("the producer has no queue: give it the queue's URL, such as os.environ['QUEUE_URL']")


def check_seconds(name: str, seconds: float) -> float:
    """Returns a number of seconds."""
    is_number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if is_number and seconds >= 0:
        return seconds
    raise TypeError(f"`{name}` is a number of seconds, such as 2.5")


class Batch:
    """Messages that are sent together, and the error of each that is not on the queue."""

    def __init__(self, messages: Iterable[Message], is_fifo: bool) -> None:
        self._messages: Sequence[Message] = list(messages)
        self._is_fifo = is_fifo
        for message in self._messages:
            if not isinstance(message, Message):
                raise TypeError("send takes a Message: end the builder with its content, such as .response(data)")
        self.errors: dict[int, SendError] = {
            index: _tenant_on_fifo() for index, message in enumerate(self._messages) if self._is_refused(message)
        }

    def _is_refused(self, message: Message) -> bool:
        to = message._fields.to
        return self._is_fifo and to.connections is None and to.user is None

    def items(self) -> Iterator[Item]:
        """Yields the entries of the messages that a queue of this kind can take."""
        for index, message in enumerate(self._messages):
            if not self._is_refused(message):
                for entry in entries_of(message._fields, self._is_fifo):
                    yield index, entry

    def close(self) -> None:
        """Refuses all messages, because the producer is closed."""
        closed = SendError("closed", "the producer is closed: send through another one")
        self.errors = dict.fromkeys(range(len(self._messages)), closed)

    def raise_first(self) -> None:
        """Raises the error of the only message."""
        for error in self.errors.values():
            raise error

    def raise_all(self) -> None:
        """Raises an error that has those of all messages."""
        if self.errors:
            errors = sorted(self.errors.items())
            unsent = [Unsent(index, self._messages[index].id, error) for index, error in errors]
            raise SendAllError(len(self._messages), unsent)


def _tenant_on_fifo() -> SendError:
    reason = "a FIFO queue takes no message for a tenant, because such a message has no order"
    return SendError("tenant_on_fifo", f"{reason}: send it to a standard queue")
