"""Worker processes that may die or stop answering: whoever asks one is told so, and can go on with another."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

Task = TypeVar("Task")


class Child:
    """A Python program that answers lines with JSON lines, started when it is asked something. One thread uses it.

    Sums of several threads are rounded by their number, so that the process and its server have one each.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = [sys.executable, *command]
        self._process: subprocess.Popen[bytes] | None = None
        self._buffer = b""

    def send(self, line: str) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                start_new_session=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip
            self._buffer = b""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()

    def line(self, limit_s: float) -> dict[str, Any] | str:
        """The next line, "silent", or how the process ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        while b"\n" not in self._buffer:
            if not select.select([pipe], [], [], limit_s)[0]:
                return "silent"
            more = os.read(pipe, 1 << 16)
            if not more:
                return f"ended with {self._process.wait()}"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)  # type: ignore[no-any-return]

    def end(self) -> None:
        """Ends the process, and its server with it."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def in_parallel(tasks: list[Task], work: Callable[[Child, Task], None], command: list[str], jobs: int) -> None:
    """`work` with each task and one of `jobs` children."""
    waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
    for task in tasks:
        waiting.put(task)
    failures: list[BaseException] = []

    def serve() -> None:
        child = Child(command)
        try:
            while not failures:
                work(child, waiting.get_nowait())
        except queue.Empty:
            pass
        except BaseException as error:
            failures.append(error)
        finally:
            child.end()

    threads = [threading.Thread(target=serve, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
