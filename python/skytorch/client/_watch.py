"""A server's measurements as an iterator, and the thread that hands them to `on_metrics`.

Metrics have a connection of their own, so they neither wait for the op stream nor slow it down, and threads of their
own, so they arrive while the program's loop is blocked. The subtle thing: their connection may break where the
session goes on (a tunnel that is opened again); while the session lives, it is made anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from skytorch import errors
from skytorch.client._events import SafeCallback
from skytorch.client._metrics import MetricsSnapshot
from skytorch.providers import Endpoint
from skytorch.providers.address import wire_tls

if TYPE_CHECKING:
    from skytorch._wire import Snapshots

logger = logging.getLogger("skytorch")
DEFAULT_INTERVAL_S = 1.0
AGAIN_S = 0.5


class SnapshotStream:
    """Blocking iterator of snapshots; `close` from another thread ends it."""

    def __init__(self, compute: str, connect: Callable[[], Snapshots], lives: Callable[[], bool]) -> None:
        self._compute = compute
        self._connect = connect
        self._lives = lives
        self._closed = threading.Event()
        self._source = self._reach()

    def __iter__(self) -> Iterator[MetricsSnapshot]:
        return self

    def __next__(self) -> MetricsSnapshot:
        while True:
            try:
                unix_s, rows = next(self._source)
                return MetricsSnapshot.of(self._compute, unix_s, rows)
            except (errors.ConnectionLost, errors.Unreachable, StopIteration):
                if not self._lives() or self._closed.wait(AGAIN_S):
                    raise
            self._source = self._reach()
            if self._closed.is_set():
                self._source.close()

    def close(self) -> None:
        """Hang up."""
        self._closed.set()
        self._source.close()

    def _reach(self) -> Snapshots:
        """A connection; the first one, too, may fall into a moment in which there is no way to the server."""
        while True:
            try:
                return self._connect()
            except (errors.ConnectionLost, errors.Unreachable):
                if not self._lives() or self._closed.wait(AGAIN_S):
                    raise


def snapshots(
    compute: str, endpoint: Endpoint, interval_s: float, *, lives: Callable[[], bool] = lambda: False
) -> SnapshotStream:
    """Connect to a server's metrics, and again while `lives` says that it is there."""
    from skytorch import _wire

    def connect() -> Snapshots:
        return _wire.metrics(
            endpoint.address, token=endpoint.token, tls=wire_tls(endpoint.tls), interval_s=interval_s
        )

    return SnapshotStream(compute, connect, lives)


class MetricsWatch:
    """Calls back with a snapshot about every second until it is stopped or the server ends."""

    def __init__(
        self, compute: str, endpoint: Endpoint, callback: SafeCallback, *, lives: Callable[[], bool]
    ) -> None:
        self._compute = compute
        self._endpoint = endpoint
        self._callback = callback
        self._lives = lives
        self._lock = threading.Lock()
        self._stopped = False
        self._stream: SnapshotStream | None = None
        threading.Thread(target=self._run, name=f"{compute}-on-metrics", daemon=True).start()

    def stop(self) -> None:
        """End it; a callback that runs now still finishes."""
        with self._lock:
            self._stopped = True
            if self._stream is not None:
                self._stream.close()

    def _run(self) -> None:
        try:
            stream = snapshots(self._compute, self._endpoint, DEFAULT_INTERVAL_S, lives=self._lives)
            with self._lock:
                self._stream = stream
                if self._stopped:
                    stream.close()
            for snapshot in stream:
                if self._stopped:
                    return
                self._callback(snapshot)
        except errors.SkyTorchError as error:
            if not self._stopped:
                logger.warning("%s: its metrics have ended: %s", self._compute, error)
