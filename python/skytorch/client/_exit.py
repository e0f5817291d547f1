"""Closing what is still open when the interpreter exits.

Computes that nobody left (the default one of `device="sky"`, those of a notebook) are left here, with what leaving
means: a failure that nobody has read is reported. A program that an exception ended, as Ctrl-C does, does not
wait for what it issued. A forked child leaves nothing: the sessions are its parent's.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

from skytorch import errors
from skytorch.client._signals import termination
from skytorch.providers import Cancel

if TYPE_CHECKING:
    from skytorch.client._compute import Compute

logger = logging.getLogger("skytorch")


class OpenComputes:
    """The process's connected Computes."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: list[Compute] = []
        self._pid: int | None = None

    def add(self, compute: Compute) -> None:
        """Remember it until `discard`."""
        with self._lock:
            if self._pid is None:
                atexit.register(self._close_all)
            if self._pid != os.getpid():
                self._open = []
            self._pid = os.getpid()
            if compute not in self._open:
                self._open.append(compute)

    def discard(self, compute: Compute) -> None:
        """Forget it."""
        with self._lock:
            if compute in self._open:
                self._open.remove(compute)

    def why_lost(self) -> str:
        """What is known of those whose session is gone, for the message of a ConnectionLost."""
        if self._pid != os.getpid():
            return ""
        return "; ".join(why for compute in list(self._open) if (why := compute._why_lost()))

    def _close_all(self) -> None:
        if self._pid != os.getpid():
            return
        for compute in list(self._open):
            try:
                with termination.settling(compute):
                    compute._leave(_what_ended_the_program(), Cancel())
            except SystemExit:
                pass  # by a signal: this is the end already
            except Exception as error:
                logger.error("%s: a failure on the server that nobody had read: %s", compute.name, error)


def _what_ended_the_program() -> BaseException | None:
    """The exception that nobody caught. An interactive session only went on after those that it showed."""
    return None if hasattr(sys, "ps1") else getattr(sys, "last_value", None)


open_computes = OpenComputes()  # the process's one
errors.ConnectionLost.explain = open_computes.why_lost
