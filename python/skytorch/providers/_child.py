"""One server process: spawned, watched, read and reaped by a thread of its own.

It knows nothing of names or folders. The subtle thing: the kernel's "parent died" signal follows the *thread* that
spawned the child, so the thread that spawns is the one that stays until the child has ended. Readiness, output and
the end are events on descriptors; nothing polls and nothing sleeps.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from skytorch import errors

KEPT_LINES = 2000
TOLD_LINES = 15


class Log:
    """The last lines of the child's output; a reader may follow it."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._count = 0
        self._partial = ""
        self._ended = False

    def feed(self, data: bytes) -> None:
        """Append what the child wrote; an empty piece is the end."""
        with self._changed:
            *lines, self._partial = (self._partial + data.decode(errors="replace")).split("\n")
            if not data:
                lines = [self._partial] if self._partial else []
                self._ended = True
            self._lines.extend(lines)
            self._count += len(lines)
            self._changed.notify_all()

    def tail(self) -> str:
        """The last lines, for an error message."""
        with self._changed:
            return "\n".join(list(self._lines)[-TOLD_LINES:])

    def read(self, *, follow: bool) -> Iterator[str]:
        """The kept lines; with `follow`, also those to come until the child has ended."""
        seen = 0
        while True:
            with self._changed:
                while follow and self._count == seen and not self._ended:
                    self._changed.wait()
                fresh = list(self._lines)[-(self._count - seen) :] if self._count > seen else []
                seen, ended = self._count, self._ended
            yield from fresh
            if not follow or (ended and not fresh):
                return


class Child:
    """A server process and the thread that owns it."""

    def __init__(self, *, arguments: Sequence[str], env: Mapping[str, str], on_exit: Callable[[str], None]) -> None:
        self.pid: int | None = None
        self.ready: Future[dict[str, Any]] = Future()  # what the server said when it was ready
        self.log = Log()
        self.exited = threading.Event()
        self._arguments = list(arguments)
        self._env = dict(env)
        self._on_exit = on_exit
        self._wanted = False
        self._pidfd: int | None = None
        self._pidfd_lock = threading.Lock()
        self._keeper = threading.Thread(target=self._keep, name="skytorch-child", daemon=True)

    def start(self) -> None:
        """Spawn the child on the keeper thread."""
        self._keeper.start()

    def stop(self, *, grace_period_s: float) -> None:
        """SIGTERM, after the grace period SIGKILL, and wait for the end. A dead child is fine."""
        self._wanted = True
        if not self.exited.is_set():
            self._signal(signal.SIGTERM)
            if not self.exited.wait(grace_period_s):
                self._signal(signal.SIGKILL)
                self.exited.wait(10)

    def _signal(self, number: int) -> None:
        """Through the pidfd, which can never mean another process, even if the program itself reaped the child."""
        with self._pidfd_lock:
            if self._pidfd is not None:
                try:
                    signal.pidfd_send_signal(self._pidfd, number)
                except ProcessLookupError:
                    pass

    def _keep(self) -> None:
        ended = "could not be started"
        try:
            ended = self._run()
        except OSError as error:
            self._fail(errors.ComputeFailed(f"the server process could not be started: {error}"))
        finally:
            self.exited.set()
            self.log.feed(b"")
            self._fail(errors.ComputeFailed(f"the server process {ended} before it was ready:\n{self.log.tail()}"))
            if not self._wanted:
                self._on_exit(ended)

    def _run(self) -> str:
        output_read, output_write = os.pipe()
        ready_read, ready_write = os.pipe()
        life_read, life_write = os.pipe()
        ours = [output_read, ready_read, life_write]
        theirs = [output_write, ready_write, life_read]
        try:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "skytorch.server", *self._arguments,
                 "--ready-fd", str(ready_write), "--parent-fd", str(life_read), "--parent-pid", str(os.getpid())],
                stdin=subprocess.DEVNULL, stdout=output_write, stderr=output_write, env=self._environment(),
                pass_fds=(ready_write, life_read), start_new_session=True,
            )  # fmt: skip
        except BaseException:
            for descriptor in ours + theirs:
                os.close(descriptor)
            raise
        self._pidfd, self.pid = os.pidfd_open(process.pid), process.pid
        for descriptor in theirs:
            os.close(descriptor)
        try:
            if self._wanted:
                self._signal(signal.SIGTERM)  # stopped between being asked for and being there
            self._watch(self._pidfd, output_read, ready_read)
            return _how_it_ended(process.wait())
        finally:
            with self._pidfd_lock:
                os.close(self._pidfd)
                self._pidfd = None
            for descriptor in ours:
                os.close(descriptor)

    def _watch(self, pidfd: int, output: int, ready: int) -> None:
        """Until the process has ended and its output is read."""
        said = b""
        with selectors.DefaultSelector() as selector:
            for descriptor in (output, ready, pidfd):
                selector.register(descriptor, selectors.EVENT_READ)
            while True:
                keys = {key.fd for key, _ in selector.select()}
                if output in keys:
                    data = os.read(output, 1 << 16)
                    if data:
                        self.log.feed(data)
                    else:
                        selector.unregister(output)
                if ready in keys:
                    data = os.read(ready, 1 << 16)
                    said += data
                    if said.endswith(b"\n") and not self.ready.done():
                        self._say_ready(json.loads(said))
                    if not data:
                        selector.unregister(ready)
                if keys == {pidfd}:
                    return

    def _say_ready(self, told: dict[str, Any]) -> None:
        if self.ready.set_running_or_notify_cancel():
            self.ready.set_result(told)

    def _fail(self, error: Exception) -> None:
        if not self.ready.done() and self.ready.set_running_or_notify_cancel():
            self.ready.set_exception(error)

    def _environment(self) -> dict[str, str]:
        env = {**os.environ, **self._env, "SKYTORCH_AUTOLOAD": "0", "PYTHONUNBUFFERED": "1"}
        env.pop("SKYTORCH_TOKEN", None)  # another server's; this one's is in its file
        package_root = str(Path(__file__).resolve().parents[2])
        paths = [path for path in env.get("PYTHONPATH", "").split(os.pathsep) if path]
        if package_root not in paths:
            env["PYTHONPATH"] = os.pathsep.join([package_root, *paths])
        return env


def _how_it_ended(code: int) -> str:
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = str(-code)
        return f"was ended by signal {name}"
    return f"ended with exit code {code}"
