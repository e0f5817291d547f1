"""Who holds a Compute: this process, and how another client tells whether that one still lives.

The subtle thing: a process that was killed leaves its Lease behind for some seconds. Where it ran on this machine
and in our process namespace we can see that it is gone, so a program that is started anew need not wait. What we
cannot see (/proc hides other users' processes under `hidepid`) counts as alive.
"""

from __future__ import annotations

import getpass
import os
import secrets
import socket
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Owner:
    """One holding of one Compute."""

    process: int
    user: str
    host: str
    start: str
    id: str
    machine: str  # names the boot of the machine and the process namespace; "" if unknown
    ticks: str  # when the process started, by the machine's clock

    @classmethod
    def this_process(cls) -> Owner:
        """A new holding by this process."""
        return cls(
            process=os.getpid(), user=_user(), host=socket.gethostname(), start=_utc_now(),
            id=secrets.token_hex(4), machine=_machine(), ticks=_ticks(os.getpid()),
        )  # fmt: skip

    def __str__(self) -> str:
        return f"process {self.process} of {self.user} on {self.host} since {self.start} ({self.id})"

    def told(self) -> dict[str, Any]:
        """For the annotation."""
        return dict(vars(self))


def is_dead(told: Any) -> bool:
    """Whether the process of an owner's annotation is known to have ended: it ran here, and it does not any more."""
    if not isinstance(told, dict) or not told.get("machine") or told.get("machine") != _machine():
        return False
    process, started = told.get("process"), told.get("ticks")
    if not isinstance(process, int) or not started:
        return False
    ticks = _ticks(process)
    return ticks != started if ticks else not _is_there(process)


def _is_there(process: int) -> bool:
    """Whether there is such a process, seen or not."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass
    return True


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _ticks(pid: int) -> str:
    """When a process started, in ticks since the machine did; "" if there is none that we see."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _utc_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
