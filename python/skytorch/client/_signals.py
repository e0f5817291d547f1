"""SIGTERM and SIGHUP end the program as `sys.exit` does, so that Computes in a cluster are deleted on the way out.

By default these signals end a process at once, which is right for a local server (it dies with its parent) and wrong
for a pod. A program with a handler of its own keeps it. The subtle thing: only the main thread may install one, so a
program that lives in other threads is left to the Compute's idle timeout.
"""

from __future__ import annotations

import signal
import sys
import threading
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


def leave_on_termination() -> None:
    """Install the handlers where nobody has any."""
    if threading.current_thread() is not threading.main_thread():
        return
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)
