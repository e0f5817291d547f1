"""What an operator asks of a server: is a client connected now, and if not, since when not?

An open session whose client is away, and which may still be resumed, counts as not connected: an operator that
deletes idle servers must not wait for a client that was killed. The subtle thing is the clock: the wire counts on one
that never jumps, and what is answered here is the time of day, reckoned back from now.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Status:
    """The answer to `/status`."""

    def __init__(self, *, version: str, torch: str, devices: list[str], wire: Callable[[], dict[str, Any]]) -> None:
        self._fixed = {"version": version, "torch": str(torch), "devices": devices}
        self._started_unix = time.time()
        self._wire = wire

    def now(self) -> dict[str, Any]:
        """The state at this moment; times in seconds since 1970."""
        info = self._wire()
        return {
            **self._fixed,
            "sessions": int(info["connected"]),
            "last_used_unix": max(self._started_unix, time.time() - info["unused_s"]),
            "started_unix": self._started_unix,
        }
