"""Runs a command and ends it, with everything it started, when standard input closes.

usage: supervisor.py DIRECTORY COMMAND [ARGUMENT ...]

Whoever holds the other end of standard input may end in any way, SIGKILL included: the kernel closes the pipe.
DIRECTORY, where the command keeps its temporary files, is removed at the end.
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

    def end() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.killpg(0, signal.SIGTERM)
        try:
            child.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        shutil.rmtree(directory, ignore_errors=True)
        os.killpg(0, signal.SIGKILL)

    def end_when_input_closes() -> None:
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, lambda *_: end())
    threading.Thread(target=end_when_input_closes, daemon=True).start()
    child.wait()
    end()


main()
