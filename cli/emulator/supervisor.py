"""Runs a command and ends it, with everything it started, when standard input closes.

usage: supervisor.py DIRECTORY COMMAND [ARGUMENT ...]

Whoever holds the other end of standard input may end in any way, SIGKILL included: the kernel closes the pipe.
A line `detach` on it says that its end is not the command's. SIGTERM ends the command in any case.
DIRECTORY, where the command keeps its files, is removed at the end.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 2


def run(command: list[str]) -> None:
    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    # A session of its own has a process group of its own, which is what is ended.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait_for_child() -> None:
        child.wait()
        ending.set()

    def wait_for_input() -> None:
        if sys.stdin.readline() != "detach\n":
            ending.set()

    waiting = threading.Thread(target=wait_for_child, daemon=True)
    waiting.start()
    threading.Thread(target=wait_for_input, daemon=True).start()
    ending.wait()

    for end in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, end)
        waiting.join(GRACE_SECONDS)


def main() -> None:
    # Ctrl-C in the terminal and the terminal's end do not reach another session.
    os.setsid()
    directory, *command = sys.argv[1:]
    try:
        run(command)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


main()
