"""What every provider offers, and the plain values that cross between it and the client.

One Provider object runs one Compute. All of its methods may block and are called from threads of the Compute, never
from an event loop. The subtle thing: `start` may be cancelled from another thread at any moment, and then leaves
nothing behind.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class TlsFiles:
    """PEM texts or the files that hold them: `ca` to trust, `cert` and `key` to show to a server that asks."""

    ca: bytes | Path | None = None
    cert: bytes | Path | None = None
    key: bytes | Path | None = field(default=None, repr=False)
    server_name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where a server listens and how to be let in. A path names a file that is read anew for each connection."""

    address: str
    token: str | Path | None = field(default=None, repr=False)
    tls: TlsFiles | None = field(default=None, repr=False)
    info: Mapping[str, Any] = field(default_factory=dict)  # what the provider knows of the server: pid, threads
    peer_address: str | None = None  # where other servers reach it, if that is elsewhere


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened to a Compute: a Kubernetes Event, or the life of a local server process."""

    reason: str
    message: str
    type: Literal["Normal", "Warning"] = "Normal"
    count: int = 1
    timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))
    name: str = ""  # the Compute


@dataclass(frozen=True, kw_only=True)
class Condition:
    """One line of a resource's `.status.conditions`."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    last_transition_time: datetime = field(default_factory=lambda: datetime.now(UTC))
    observed_generation: int | None = None


@dataclass(frozen=True, kw_only=True)
class Placement:
    """What a provider needs to know of a Compute to run it. client/_spec.py has validated it."""

    name: str
    image: str | None = None
    command: Sequence[str] = ()
    args: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    volumes: Sequence[Mapping[str, Any]] = ()
    override: Mapping[str, Any] = field(default_factory=dict)
    image_pull_policy: str | None = None
    idle_timeout: float = 600.0
    adopt: bool = False


class Cancel:
    """A request to stop waiting, made from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self.requested = False

    def request(self) -> None:
        """Ask whoever waits to give up. Doing it again changes nothing."""
        with self._lock:
            self.requested = True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()

    def when_requested(self, callback: Callable[[], object]) -> None:
        """Call back on the request, at once if it has been made."""
        with self._lock:
            if not self.requested:
                self._callbacks.append(callback)
                return
        callback()


class Provider(Protocol):
    """Runs the server of one Compute."""

    def start(self, *, timeout_s: float, cancel: Cancel) -> Endpoint:
        """Bring the server up (again, after `stop`) and wait until it listens."""

    def apply_suspended(self, *, cancel: Cancel) -> None:
        """Apply what `start` would, but no server."""

    def stop(self, *, grace_period_s: float) -> None:
        """Take the server away but keep the name, so that `start` may follow. A dead one is fine."""

    def delete(self, *, grace_period_s: float) -> None:
        """Take the server away for good and free the name. Doing it again changes nothing."""

    def logs(self, *, follow: bool) -> Iterator[str]:
        """The server's lines, the oldest first; with `follow` also those to come, until it has ended."""

    def why_lost(self) -> str | None:
        """Why the server that a session was with is gone, if that is known or becomes known in a moment."""


OnEvent = Callable[[Event], None]
OnCondition = Callable[[Condition], None]
OnResource = Callable[[Mapping[str, Any]], None]  # the real resource, at each of its changes
