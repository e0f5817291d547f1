"""The signals that end a server, and the one thread that receives them.

While torch is still being loaded a signal ends the process at once: as process 1 of a container, which a signal
without a handler does not end, it would be killed only when its grace period is over. The subtle thing: `hold_back`
comes before the first thread, so that each inherits the mask. One thread without it would get the signal, and all
would die of it.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def hold_back() -> None:
    """From now on only `Stop` receives them."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


class Stop:
    """The request to stop."""

    def __init__(self, *, before_exit: Callable[[], None]) -> None:
        self._before_exit = before_exit
        self._lock = threading.Lock()
        self._serving = False
        self._told = threading.Event()
        threading.Thread(target=self._receive, name="skytorch-signals", daemon=True).start()

    def serving(self) -> None:
        """From now on a signal is for `wait`."""
        with self._lock:
            self._serving = True

    def wait(self) -> None:
        """Until there was one."""
        self._told.wait()

    def _receive(self) -> None:
        signal.sigwait(STOP_SIGNALS)
        with self._lock:
            if not self._serving:
                self._before_exit()
                os._exit(0)
        self._told.set()
