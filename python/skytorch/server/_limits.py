"""What a server gives away at most: one flag for each resource, with its default.

A limit that is met is an error of the one who met it: of the operator (memory), of the session (storages, templates,
messages) or of the connection. Sizes of messages and records are fixed by the wire (docs/wire.md), since both sides
must agree on them.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass

UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The values in force; bytes unless the name says otherwise."""

    max_memory: int = 0
    max_storages: int = 1 << 20
    max_templates: int = 1 << 16
    max_queue: int = 16 << 20
    max_connections: int = 64
    max_pending: int = 64
    auth_timeout_s: float = 10.0
    resume_timeout_s: float = 60.0

    def of_wire(self) -> dict[str, int]:
        """Those that `_wire.Server` keeps."""
        return {
            "slots": self.max_templates,
            "queue_bytes": self.max_queue,
            "max_connections": self.max_connections,
            "max_pending": self.max_pending,
            "auth_timeout_ms": round(self.auth_timeout_s * 1000),
            "resume_timeout_ms": round(self.resume_timeout_s * 1000),
        }


def size(text: str) -> int:
    """Bytes from `8G`, `512M`, `1048576`."""
    found = re.fullmatch(r"(\d+)([KMGT]?)(?:i?B)?", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no size: write 8G, 512M or a number of bytes")
    return int(found[1]) * UNITS[found[2]]


def _at_least_one(most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = size(text)
        if not 1 <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between 1 and {most}")
        return value

    return number


def _seconds(least: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = -1.0
        if not least <= value <= 86400:
            raise argparse.ArgumentTypeError(f"{text!r} is not between {least} and 86400 seconds")
        return value

    return number


def add_limits(parser: argparse.ArgumentParser) -> None:
    """The flags."""
    default = Limits()
    group = parser.add_argument_group("limits")
    group.add_argument("--max-memory", type=size, metavar="SIZE", default=default.max_memory,
                       help="memory of tensors on each device; more is torch.OutOfMemoryError "
                       "(default: what the machine or its control group has)")  # fmt: skip
    for flag, most, value, words in (
        ("--max-storages", 1 << 40, default.max_storages, "storages that a session has at a time"),
        ("--max-templates", 1 << 16, default.max_templates, "operator templates that a session has at a time"),
        ("--max-queue", 1 << 30, default.max_queue, "bytes of a connection that wait for the executor"),
        ("--max-connections", 1 << 20, default.max_connections, "connections, lanes and control included"),
        (
            "--max-pending",
            1 << 20,
            default.max_pending,
            "connections that have shown no token yet; one more ends the oldest",
        ),
    ):
        group.add_argument(flag, type=_at_least_one(most), metavar="N", default=value,
                           help=f"{words} (default: %(default)s)")  # fmt: skip
    group.add_argument("--auth-timeout", type=_seconds(0.05), metavar="SECONDS", default=default.auth_timeout_s,
                       help="from connecting to a valid token (default: %(default)s)")  # fmt: skip
    group.add_argument(
        "--resume-timeout",
        type=_seconds(0),
        metavar="SECONDS",
        default=default.resume_timeout_s,
        help="how long a session whose connection broke is kept, 0 for not at all (default: %(default)s)",
    )


def read_limits(given: argparse.Namespace) -> Limits:
    """From the parsed command line."""
    return Limits(
        max_memory=given.max_memory,
        max_storages=given.max_storages,
        max_templates=given.max_templates,
        max_queue=given.max_queue,
        max_connections=given.max_connections,
        max_pending=given.max_pending,
        auth_timeout_s=given.auth_timeout,
        resume_timeout_s=given.resume_timeout,
    )
