"""Percentages."""

from __future__ import annotations

import math

from ._errors import MessageError


def check_percent(percent: int) -> int:
    """Checks a percentage, and returns it."""
    is_number = isinstance(percent, (int, float)) and not isinstance(percent, bool)
    if not is_number:
        raise MessageError("percent", f"percent must be a whole number, got type {type(percent).__name__}")
    is_in_range = 0 <= percent <= 100
    if is_in_range and isinstance(percent, int):
        return percent
    remedy = ": round it, or use percent_of" if is_in_range else ""
    raise MessageError("percent", f"percent must be between 0 and 100, got {percent}{remedy}")


def percent_of(done: int | float, total: int | float) -> int:
    """Returns the percentage that `done` is of `total`, rounded down. It is 100 if `total` is 0, or less than `done`."""
    if done >= total:
        return 100
    # In floating point, 29 / 100 * 100 is less than 29.
    return int(max(done, 0)) * 100 // math.ceil(total)
