"""One program of the control plane: started, killed, stopped, and its log, whose end is shown when it fails.

A test that kills a part wants it down. One that is `kept` and ends by itself is started again, as a kubelet does with
a control plane's parts: the scheduler does so when the API server's end cut a watch short and told it too little.
"""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from pathlib import Path

STOP_S = 10.0
SHORTEST_LIFE_S = 1.0  # one that lives no longer is not started again


class Component:
    """A program and its arguments. It may be started again after it was killed."""

    def __init__(self, name: str, command: list[str], logs: Path, *, kept: bool = False) -> None:
        self.name, self._command, self.log = name, command, logs / f"{name}.log"
        self._kept = kept
        self._process: subprocess.Popen[bytes] | None = None
        self._wanted = False
        self._change = threading.RLock()  # of _process and _wanted

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """In a session of its own: Ctrl-C is for the command that uses the cluster."""
        with self._change:
            self._wanted = True
            if self.pid is None:
                with self.log.open("ab") as log:
                    self._process = subprocess.Popen(
                        self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                    )
                if self._kept:
                    threading.Thread(target=self._keep, args=(self._process,), daemon=True).start()

    def _keep(self, process: subprocess.Popen[bytes]) -> None:
        began = time.monotonic()
        process.wait()
        with self._change:
            if self._wanted and self._process is process and time.monotonic() - began > SHORTEST_LIFE_S:
                self.start()

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        with self._change:
            self._wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def ask_to_stop(self) -> None:
        """SIGTERM, without waiting."""
        with self._change:
            self._wanted = False
        if self.pid is not None:
            assert self._process is not None
            self._process.send_signal(signal.SIGTERM)

    def stop(self, deadline: float) -> None:
        """Waits for it until `deadline` (of time.monotonic()), then kills it."""
        self.ask_to_stop()
        if self._process is not None:
            try:
                self._process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                self.kill()

    def check(self) -> None:
        """Raises if it has ended by itself."""
        if self._process is not None and self._process.poll() is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
            raise RuntimeError(f"{self.name} ended with code {self._process.returncode}:\n{tail}")
