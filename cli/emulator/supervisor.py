"""Runs a command, and ends it with every process that it started when standard input closes.

usage: supervisor.py DIRECTORY COMMAND [ARGUMENT ...]

The process that holds the other end of standard input may end in any way, SIGKILL included: the kernel closes the
pipe. SIGTERM ends the command, too. The supervisor removes DIRECTORY, where the command keeps its files, at the end.
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
    shutdown = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: shutdown.set())
    # A new session has its own process group, which can be signalled as a whole.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def wait_for_child() -> None:
        child.wait()
        shutdown.set()

    def wait_for_input() -> None:
        sys.stdin.read()
        shutdown.set()

    child_waiter = threading.Thread(target=wait_for_child, daemon=True)
    child_waiter.start()
    threading.Thread(target=wait_for_input, daemon=True).start()
    shutdown.wait()

    for signal_number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal_number)
        child_waiter.join(GRACE_SECONDS)


def main() -> None:
    # A new session receives neither the terminal's Ctrl-C nor the hangup when the terminal closes.
    os.setsid()
    directory, *command = sys.argv[1:]
    try:
        run(command)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


main()
