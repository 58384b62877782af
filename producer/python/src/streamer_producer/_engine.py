"""The sends in progress: batches, capacity, retries and time limits, for the synchronous and the asynchronous producer.

A pure state machine: events and the time in, calls to make out. The producers make the calls, wait until `wake_at`, and
pass the time to `poll`. There is no background task: a timer exists only while a send or a call needs it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable

from ._buffer import LINGER, MAX_CALLS, SendBuffer
from ._errors import SendError
from ._failures import CALL_TIMEOUT, NO_ANSWER, Failure, Result
from ._jobs import Call, Group, Job, Send
from ._limits import BATCH_BYTES
from ._timers import Timers

#: Bytes of all messages that are being sent: 16 full batches.
CAPACITY = 16 * BATCH_BYTES

#: Bytes of capacity that an entry needs beside its body.
OVERHEAD = 512

#: Maximum number of batches of one send that wait at once.
BATCHES = 2 * MAX_CALLS

#: The longest pause before the second attempt in seconds; it doubles with each further attempt.
FIRST_PAUSE = 0.1

#: The longest pause before any attempt in seconds.
MAX_PAUSE = 2.0

#: The shortest time before the deadline in which an attempt begins, in seconds.
MIN_ATTEMPT = 0.01


class Engine:
    """The sends in progress. The caller makes sure that only one thread at a time is in it."""

    def __init__(self, strict_order: bool, random: Callable[[], float]) -> None:
        self._buffer: SendBuffer[Job] = SendBuffer(strict_order)
        self._random = random
        self._timers = Timers()
        self._free = CAPACITY
        #: Groups that wait for capacity: first come, first served.
        self._waiting: deque[Group] = deque()
        #: When the next batch leaves although it is not full.
        self._batch_at = math.inf
        self.sends: set[Send] = set()

    @property
    def is_idle(self) -> bool:
        """Whether nothing is being sent, and no call is in flight."""
        return not self.sends and not self._buffer.calls

    def begin(self, send: Send, now: float) -> None:
        """Begins a send, all of it within its time limit."""
        self.sends.add(send)
        send.timer = self._timers.add(send.deadline, lambda now: self.give_up(send, now))
        while len(send.groups) < BATCHES and self._open(send, now):
            pass
        self._end_if_done(send)

    def poll(self, now: float) -> list[Call]:
        """Returns the calls that are due. The caller makes each, and then calls `end_call`."""
        self._timers.run(now)
        self._batch_at = math.inf
        calls: list[Call] = []
        while True:
            jobs = self._buffer.next(now)
            if not isinstance(jobs, list):
                self._batch_at = math.inf if jobs is None else jobs
                return calls
            calls.append(self._start(jobs, now))

    def wake_at(self) -> float:
        """Returns the time at which `poll` has something to do without another event, or infinity."""
        return min(self._batch_at, self._timers.next())

    def end_call(self, call: Call, now: float) -> None:
        """Ends a call. Its results are in it."""
        self._buffer.end_call()
        if call.timer is not None:
            self._timers.cancel(call.timer)
        self._settle(call, now)

    def give_up(self, send: Send, now: float) -> None:
        """Ends all entries of a send, because its time is over, or because its caller has left.

        Without effect for one that has ended, or has not begun.
        """
        if send not in self.sends:
            return
        for group in list(send.groups):
            for job in group.jobs:
                if not job.is_done:
                    job.is_done = True
                    error = self._leave(job)
                    if error is not None:
                        send.fail(job.index, error)
            self._close(group)
        if send.rest is not None:
            # The same error for all, and their entries are not made, because there may be very many.
            error = _timed_out(send, _WAITED)
            for index in send.indexes[bisect_left(send.indexes, send.rest) :]:
                send.fail(index, error)
            send.rest, send.batches = None, iter(())
        # Those behind it may need less.
        self._admit(now)
        self._end_if_done(send)

    def break_off(self, error: BaseException) -> None:
        """Ends all sends after an error in the engine, which may be half-changed and is not used any more."""
        text = f"the producer failed with {type(error).__name__}, and the queue may have the message"
        failed = SendError("timed_out", f"{text}: send it again with the same id")
        for send in self.sends:
            if not send.is_done:
                send.errors = dict.fromkeys(send.indexes, failed)
            send.end()

    def _open(self, send: Send, now: float) -> bool:
        """Takes the turn of the next entries of a send, and returns whether there were any."""
        batch, send.rest = next(send.batches, ([], None))
        if not batch:
            return False
        group = Group(send)
        for index, entry in batch:
            group.jobs.append(Job(self._buffer.reserve(entry.key, entry.size), index, entry, group, FIRST_PAUSE))
            group.size += entry.size + OVERHEAD
        group.size = min(group.size, CAPACITY)
        group.left = len(batch)
        send.groups[group] = None
        self._waiting.append(group)
        self._admit(now)
        return True

    def _admit(self, now: float) -> None:
        while self._waiting and self._waiting[0].size <= self._free:
            group = self._waiting.popleft()
            self._free -= group.size
            group.has_capacity = True
            for job in group.jobs:
                self._enqueue(job, now)

    def _enqueue(self, job: Job, now: float) -> None:
        left = job.group.send.deadline - now
        self._buffer.enqueue(job.id, job, now + min(LINGER, left / 2))

    def _start(self, jobs: list[Job], now: float) -> Call:
        call = Call(jobs, len(jobs))
        for place, job in enumerate(jobs):
            job.call, job.place = call, place

        def expire(now: float) -> None:
            self._settle(call, now)
            call.end_early()

        call.timer = self._timers.add(now + CALL_TIMEOUT, expire)
        return call

    def _settle(self, call: Call, now: float) -> None:
        """Gives each entry of a call its result."""
        if call.is_settled:
            return
        call.is_settled = True
        # A copy, because a thread that is late may still write into the list.
        results = list(zip(call.jobs, list(call.results), strict=True))
        for job, result in results:
            self._buffer.complete(job.id, result is not None and result.kind == "not_taken")
        # One for the call, so that its entries end their pauses together, and share the next call.
        share = self._random() if any(result is not None and result.kind == "not_taken" for _, result in results) else 0.0
        for job, result in results:
            if not job.is_done:
                job.call = None
                self._apply(job, result, share, now)

    def _apply(self, job: Job, result: Result, share: float, now: float) -> None:
        send = job.group.send
        if result is None or result.kind != "not_taken":
            self._end(job, None if result is None else _error_of(result), now)
            return
        job.failure = result
        left = send.deadline - now
        if left < MIN_ATTEMPT:
            self._buffer.cancel(job.id)
            self._end(job, _timed_out(send, result), now)
            return
        pause = min(share * job.pause, left / 2)
        job.pause = min(job.pause * 2, MAX_PAUSE)
        job.timer = self._timers.add(now + pause, lambda now: self._enqueue(job, now))

    def _end(self, job: Job, error: SendError | None, now: float) -> None:
        group, send = job.group, job.group.send
        job.is_done = True
        if error is not None:
            send.fail(job.index, error)
        group.left -= 1
        if group.left:
            return
        self._close(group)
        self._open(send, now)
        self._admit(now)
        self._end_if_done(send)

    def _close(self, group: Group) -> None:
        del group.send.groups[group]
        if group.has_capacity:
            self._free += group.size
        else:
            self._waiting.remove(group)

    def _leave(self, job: Job) -> SendError | None:
        """Gives up an entry, and returns why it is not on the queue, if that is so."""
        self._buffer.cancel(job.id)
        if job.timer is not None:
            self._timers.cancel(job.timer)
        if job.call is None:
            return _timed_out(job.group.send, job.failure or (_WAITED if job.group.has_capacity else _FULL))
        job.call.live -= 1
        if not job.call.live:
            job.call.end_early()
        # Known before the end of the call if its entries are sent one by one.
        result = job.call.results[job.place]
        if result is None:
            return None
        if result.kind != "not_taken":
            return _error_of(result)
        return _timed_out(job.group.send, (job.failure or _SILENT) if result is NO_ANSWER else result)

    def _end_if_done(self, send: Send) -> None:
        if send.groups or send not in self.sends:
            return
        if send.timer is not None:
            self._timers.cancel(send.timer)
        send.end()
        self.sends.discard(send)


#: Why an entry without a failed attempt is not on the queue.
_WAITED = Failure("not_taken", "it waited behind others and was in no call")
_FULL = Failure("not_taken", "the producer's buffer is full, and it was in no call")
_SILENT = Failure("not_taken", "the queue has not answered")


def _error_of(failure: Failure) -> SendError:
    if failure.kind == "refused":
        error = SendError("refused", f"the queue refused the message: {failure.cause}", failure.code)
        error.__cause__ = failure.answer
        return error
    return not_configured(failure)


def not_configured(failure: Failure) -> SendError:
    """Returns the error of a client that cannot call the queue."""
    return SendError("not_configured", f"the queue cannot be called: {failure.cause}; {failure.remedy}")


def _timed_out(send: Send, failure: Failure) -> SendError:
    text = f"the queue did not confirm the message within {send.timeout:g} s: {failure.cause}"
    error = SendError("timed_out", f"{text}; send it again with the same id")
    error.__cause__ = failure.answer
    return error
