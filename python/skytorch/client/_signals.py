"""SIGTERM and SIGHUP end the program as `sys.exit` does, so that Computes in a cluster are deleted on the way out.

By default these signals end a process at once, which is right for a local server (it dies with its parent) and wrong
for a pod. A program with a handler of its own keeps it; the others get the default back with their last Compute. The
subtle thing: one signal ends the program and further ones change nothing, since they would interrupt the deletion to
which the first one led. For the same reason the first one waits for the end of a deletion that is under way.

Only the main thread may install a handler, so a program that lives in other threads is left to the Compute's idle
timeout. A forked child has no Compute of its own, so there the default holds.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skytorch.client._compute import Compute

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Termination:
    """What a signal must wait for or lead to. Without locks, since a handler runs between any two steps."""

    def __init__(self) -> None:
        self._held: set[Compute] = set()
        self._deletions: set[object] = set()  # those under way
        self._waiting: int | None = None  # for their end
        self._ending = False
        os.register_at_fork(after_in_child=self._forget)

    def hold(self, compute: Compute) -> None:
        """On the caller's thread, before anything is applied: install the handlers where nobody has any."""
        self._held.add(compute)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is signal.SIG_DFL:
                    signal.signal(number, _on_signal)

    @contextmanager
    def settling(self, *computes: Compute) -> Iterator[None]:
        """On the caller's thread, around a change of state: with the last Compute the handlers go."""
        try:
            yield
        finally:
            self._held.difference_update(one for one in computes if not one._is_applied)
            if not self._held and threading.current_thread() is threading.main_thread():
                self._restore()

    @contextmanager
    def held_back(self) -> Iterator[None]:
        """A deletion, on any thread: signals wait for its end."""
        mark = object()
        self._deletions.add(mark)
        try:
            yield
        finally:
            self._deletions.discard(mark)
            number = self._waiting
            if number is not None and not self._deletions:
                self._waiting = None
                signal.pthread_kill(threading.main_thread().ident or 0, number)

    def receive(self, number: int) -> None:
        """A signal, in the main thread."""
        if self._ending:
            return
        self._waiting = number  # before the question, which another thread answers while it is asked
        if self._deletions:
            return
        if not self._held:  # the last one was let go on another thread
            self._restore()
            signal.raise_signal(number)
            return
        self._ending, self._waiting = True, None
        sys.exit(128 + number)

    def _restore(self) -> None:
        self._ending, self._waiting = False, None
        for number in SIGNALS:
            if signal.getsignal(number) is _on_signal:
                signal.signal(number, signal.SIG_DFL)

    def _forget(self) -> None:
        """In a forked child, whose one thread is its main thread."""
        self._held.clear()
        self._deletions.clear()
        self._restore()


def _on_signal(number: int, frame: FrameType | None) -> None:
    termination.receive(number)


termination = Termination()  # the process's one
