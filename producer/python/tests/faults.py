"""Clients whose calls fail on the way to a real queue, or on the way back."""

import asyncio
import threading
import time
from collections import Counter
from dataclasses import dataclass

from botocore.exceptions import ClientError, ConnectionClosedError

#: Seconds after which a producer may have given up a call; less than its time limit of 5 s.
SLOW = 4.0


@dataclass
class Call:
    answer: object
    taken: list
    throttled: list
    begun: float


class Faults:
    """The faults of one client.

    `answers` has one for each call; later ones are `taken`. A list answers each entry: `taken`, `throttled` or
    `unmentioned`, and only the first reaches the queue. `{"error": code}` fails the call before the queue, and `reset`
    breaks it off. `reset_after` breaks it off when the entries are on the queue.
    """

    def __init__(self, client, answers):
        self.client = client
        self.answers = iter(answers)
        self.lock = threading.Lock()
        #: How often the queue took each body without an answer to the producer.
        self.lost = Counter()
        #: Errors of the queue itself for a whole call.
        self.errors = []
        #: The number of entries of each call that reached the queue.
        self.sizes = []

    def begin(self, entries):
        with self.lock:
            answer = next(self.answers, "taken")
        if answer == "reset":
            raise broken()
        # Alone, an entry with such an error would be at fault.
        if isinstance(answer, dict) and (len(entries) > 1 or answer["error"] != "InvalidMessageContents"):
            raise ClientError({"Error": {"Code": answer["error"], "Message": "scripted"}}, "SendMessageBatch")
        results = answer if isinstance(answer, list) else ["taken"] * len(entries)
        answered = list(zip(entries, results, strict=False))
        taken = [entry for entry, result in answered if result == "taken"]
        if taken:
            self.sizes.append(len(taken))
        return Call(answer, taken, [entry for entry, result in answered if result == "throttled"], time.monotonic())

    def end(self, call, output):
        """Returns the answer of the queue, or loses it."""
        if call.answer == "reset_after" or time.monotonic() - call.begun > SLOW:
            self.lose(call)
        if call.answer == "reset_after":
            raise broken()
        fault = {"Code": "RequestThrottled", "SenderFault": True, "Message": "scripted"}
        throttled = [{"Id": entry["Id"], **fault} for entry in call.throttled]
        return {**output, "Failed": [*output.get("Failed", ()), *throttled]}

    def lose(self, call):
        with self.lock:
            self.lost.update(entry["MessageBody"] for entry in call.taken)


class FaultyClient(Faults):
    """A client of boto3."""

    def send_message_batch(self, *, QueueUrl, Entries):
        call = self.begin(Entries)
        return self.end(call, self.forward(QueueUrl, call.taken) if call.taken else {})

    def forward(self, url, entries):
        try:
            return self.client.send_message_batch(QueueUrl=url, Entries=entries)
        except Exception as error:
            self.errors.append(error)
            raise


class AsyncFaultyClient(Faults):
    """A client of aiobotocore. A call that was cancelled arrives all the same."""

    def __init__(self, client, answers):
        super().__init__(client, answers)
        self.calls = set()

    async def send_message_batch(self, *, QueueUrl, Entries):
        call = self.begin(Entries)
        forwarded = asyncio.ensure_future(self.forward(QueueUrl, call.taken))
        self.calls.add(forwarded)
        try:
            output = await asyncio.shield(forwarded)
        except asyncio.CancelledError:
            self.lose(call)
            raise
        return self.end(call, output)

    async def forward(self, url, entries):
        try:
            return await self.client.send_message_batch(QueueUrl=url, Entries=entries) if entries else {}
        except Exception as error:
            self.errors.append(error)
            raise

    async def settled(self):
        """Waits until all calls have ended at the queue."""
        await asyncio.gather(*self.calls, return_exceptions=True)


def broken():
    return ConnectionClosedError(endpoint_url="http://127.0.0.1")
