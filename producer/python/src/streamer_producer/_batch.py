"""Messages that are sent together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from ._entry import entries_of
from ._errors import SendAllError, SendError, Unsent
from ._jobs import Item, Send, new_send
from ._message import Message


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

    def send(self, timeout: float, now: float, notify: Callable[[], None]) -> Send:
        """Returns the send of the messages that a queue of this kind can take."""
        indexes = [index for index in range(len(self._messages)) if index not in self.errors]
        return new_send(self._items(indexes), indexes, timeout, now, notify)

    def _items(self, indexes: Sequence[int]) -> Iterator[Item]:
        for index in indexes:
            for entry in entries_of(self._messages[index]._fields, self._is_fifo):
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
