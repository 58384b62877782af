"""Runs a command and ends it, with everything it started, when standard input closes.

usage: supervisor.py DIRECTORY COMMAND [ARGUMENT ...]

Whoever holds the other end of standard input may end in any way, SIGKILL included: the kernel closes the pipe.
A line `detach` on it says that its end is not the command's. SIGTERM ends the command in any case.
DIRECTORY, where the command keeps its files, is removed at the end.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading

GRACE_SECONDS = 2


def main() -> None:
    # A session of its own: Ctrl-C in the terminal and the terminal's end do not reach it.
    os.setsid()
    directory, *command = sys.argv[1:]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    ending = threading.Event()

    def wait_for_child() -> None:
        child.wait()
        ending.set()

    def wait_for_input() -> None:
        if sys.stdin.readline() != "detach\n":
            ending.set()

    signal.signal(signal.SIGTERM, lambda *_: ending.set())
    waiting = threading.Thread(target=wait_for_child, daemon=True)
    waiting.start()
    threading.Thread(target=wait_for_input, daemon=True).start()
    ending.wait()

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.killpg(0, signal.SIGTERM)
    waiting.join(GRACE_SECONDS)
    shutil.rmtree(directory, ignore_errors=True)
    os.killpg(0, signal.SIGKILL)


main()
