"""The server's log: lines on stderr, and the last of them kept for clients that ask (`skytorch logs`).

An index counts every line since the start and is never reused; a client asks for what it has not seen.
"""

from __future__ import annotations

import logging
import threading
from collections import deque

KEPT_LINES = 10_000
FORMAT = "%(asctime)s %(levelname)s %(message)s"


class LogRing(logging.Handler):
    """Keeps the last lines."""

    def __init__(self) -> None:
        super().__init__()
        self._ring_lock = threading.Lock()
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's lines."""
        lines = self.format(record).splitlines()
        with self._ring_lock:
            self._lines.extend(lines)
            self._count += len(lines)

    def lines_from(self, index: int) -> tuple[int, list[str]]:
        """The kept lines from that index on, with the index of the first: later, where older ones are gone."""
        with self._ring_lock:
            first = self._count - len(self._lines)
            skip = max(0, index - first)
            return first + skip, list(self._lines)[skip:]


def start_logging(level: str) -> LogRing:
    """Send the root logger to stderr and to a ring."""
    ring = LogRing()
    stream = logging.StreamHandler()
    root = logging.getLogger()
    root.setLevel(level.upper())
    for handler in (ring, stream):
        handler.setFormatter(logging.Formatter(FORMAT))
        root.addHandler(handler)
    return ring
