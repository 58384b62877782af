"""Times: durations and expiries, with their units."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

from ._errors import MessageError
from ._limits import EARLIEST, KEEP_SECONDS, NEVER

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)
_SECOND = timedelta(seconds=1)


def check_duration(duration: timedelta) -> timedelta:
    """Returns a duration. A bare number is refused, because it does not say its unit."""
    if isinstance(duration, timedelta) and duration >= timedelta(0):
        return duration
    raise MessageError("duration", "a duration is a timedelta of at least 0, such as timedelta(minutes=5)")


def milliseconds_of(duration: timedelta) -> int:
    """Returns a duration in milliseconds."""
    return check_duration(duration) // _MILLISECOND


def expiry_of(time: datetime) -> int:
    """Returns the milliseconds since the epoch of an expiry."""
    example = "such as datetime.now(timezone.utc) + timedelta(minutes=5)"
    if not isinstance(time, datetime):
        raise MessageError("expiry", f"the expiry is not a time: give a datetime with a time zone, {example}")
    if time.utcoffset() is None:
        raise MessageError("expiry", f"the expiry has no time zone: give a datetime with one, {example}")
    milliseconds = min((time - _EPOCH) // _MILLISECOND, NEVER)
    if milliseconds >= EARLIEST:
        return milliseconds
    after = f"the expiry is {milliseconds} ms after the epoch"
    raise MessageError("expiry", f"{after}, which looks like a number of seconds: multiply it by 1000")


def keep_seconds_of(duration: timedelta) -> int:
    """Returns the whole seconds for which a message is kept."""
    seconds = check_duration(duration) // _SECOND
    least, most = KEEP_SECONDS
    if least <= seconds <= most:
        return seconds
    limits = f"{least} to {most} seconds (30 days)"
    raise MessageError("keep", f"a message can be kept for {limits}, got {seconds}")
