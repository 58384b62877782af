"""Percentages."""

from __future__ import annotations

import math
from fractions import Fraction

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
    """Returns the percentage that `done` is of `total`, rounded down, from 0 to 100.

    It is 100 if `total` is 0 or less. Raises `MessageError` for values that are not finite numbers.
    """
    part, whole = _exact(done), _exact(total)
    if whole <= 0 or part >= whole:
        return 100
    return max(math.floor(part / whole * 100), 0)


def _exact(value: int | float) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise MessageError("percent", f"percent_of takes two numbers, got type {type(value).__name__}")
    if isinstance(value, int):
        return Fraction(value)
    if not math.isfinite(value):
        raise MessageError("percent", f"percent_of takes finite numbers, got {value}")
    # The number as it is written: 0.99 itself is a little less than 99 hundredths.
    return Fraction(float.__repr__(value))
