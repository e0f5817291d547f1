"""`skytorch top`: live utilization, memory, operations and bytes per second of one server."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from skytorch.cli._command import cluster_flags, command, use_cluster_flags
from skytorch.cli._target import resolve

if TYPE_CHECKING:
    from rich.table import Table

    from skytorch.client import MetricsSnapshot


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "top",
        help="show a server's load live",
        examples="""skytorch top
            skytorch top my-compute --interval 0.5
            skytorch top my-compute --once""",
        run=_run,
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="name of the Compute, if there are several")
    cluster_flags(parser)
    parser.add_argument("--interval", type=float, default=1.0, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--once", action="store_true", help="print one snapshot and end")


def _run(given: argparse.Namespace) -> int:
    from skytorch.client._watch import snapshots

    use_cluster_flags(given)
    with resolve(given.name) as (name, endpoint):
        stream = snapshots(name, endpoint, given.interval)
        try:
            if given.once or not sys.stdout.isatty():
                for snapshot in stream:
                    print(snapshot, flush=True)
                    if given.once:
                        return 0
                return 0
            return _live(stream)
        finally:
            stream.close()


def _live(stream: Any) -> int:
    from rich.live import Live

    before: MetricsSnapshot | None = None
    with Live(auto_refresh=False, screen=False) as screen:
        for snapshot in stream:
            screen.update(_table(snapshot, before), refresh=True)
            before = snapshot
    return 0


def _table(now: MetricsSnapshot, before: MetricsSnapshot | None) -> Table:
    from rich.table import Table

    table = Table(title=f"{now.compute}  {now.timestamp.astimezone():%H:%M:%S}", title_justify="left")
    for heading in ("device", "busy", "memory", "ops/s", "queued", "in/s", "out/s", "tensors", "power", "temp"):
        table.add_column(heading, justify="left" if heading == "device" else "right")
    table.add_row(
        "cpu",
        _figure(now.get("cpu.utilization"), " %"),
        _size(now.get("memory.used")),
        _figure(_rate(now, before, "ops.executed")),
        _figure(now.get("ops.queued")),
        _size(_rate(now, before, "bytes.received")),
        _size(_rate(now, before, "bytes.sent")),
        _size(now.get("tensors.resident_bytes")),
        "",
        "",
    )
    for device in now.devices():
        used, total = now.get("gpu.memory.used", device), now.get("gpu.memory.total", device)
        table.add_row(
            device,
            _figure(now.get("gpu.utilization.compute", device), " %"),
            f"{_size(used)} / {_size(total)}",
            *[""] * 5,
            _figure(now.get("gpu.power.usage", device), " W"),
            _figure(now.get("gpu.temperature", device), " C"),
        )
    return table


def _rate(now: MetricsSnapshot, before: MetricsSnapshot | None, name: str) -> float | None:
    if before is None:
        return None
    later, earlier = now.get(name), before.get(name)
    seconds = (now.timestamp - before.timestamp).total_seconds()
    return None if later is None or earlier is None or seconds <= 0 else (later - earlier) / seconds


def _figure(value: float | None, unit: str = "") -> str:
    return "-" if value is None else f"{value:,.0f}{unit}"


def _size(value: float | None) -> str:
    if value is None:
        return "-"
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.2f} GiB"
