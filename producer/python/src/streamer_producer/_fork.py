"""Child processes: after a fork, the threads of the parent are gone, and their locks may be held."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forked(Protocol):
    """An object that begins again in a child process."""

    def _after_fork(self) -> None:
        """Replaces locks and all that belongs to the threads of the parent."""


_objects: weakref.WeakSet[Forked] = weakref.WeakSet()


def register(forked: Forked) -> None:
    """Calls `_after_fork` of an object, as long as it exists, in each child process that begins with a fork."""
    _objects.add(forked)


def _after_fork() -> None:
    for forked in list(_objects):
        forked._after_fork()


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
