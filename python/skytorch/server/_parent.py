"""Ends this process when its parent ends, in whatever way that happens, SIGKILL included.

Two independent watches: the kernel's own signal on the end of the thread that spawned us, and the end of a pipe whose
other half only the parent holds. The second still works where the first is lost (a set-user-id program, a container
runtime in between). The subtle thing is the race: a parent that died before the watch was set is found by its number.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


def watch_parent(life_fd: int, parent_pid: int | None) -> None:
    """Watch the parent from now on. Exits at once if it is gone already."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if parent_pid is not None and os.getppid() != parent_pid:
        os._exit(1)
    threading.Thread(target=_wait, args=(life_fd,), name="skytorch-parent", daemon=True).start()


def _wait(life_fd: int) -> None:
    try:
        while os.read(life_fd, 1):
            pass
    except OSError:
        pass
    os._exit(1)
