"""Prometheus' text format for the server's measurements; who answers it is in _endpoint.py."""

from __future__ import annotations

from collections.abc import Iterable

from skytorch.server._metrics import Row

_COUNTERS = ("ops.executed", "bytes.received", "bytes.sent")


def exposition(rows: Iterable[Row]) -> str:
    """The measurements as text: `skytorch_gpu_memory_used_bytes{device="cuda:0"} 1.0`."""
    families: dict[str, list[str]] = {}
    kinds: dict[str, str] = {}
    for name, value, unit, labels in rows:
        counter = name in _COUNTERS
        family = "skytorch_" + name.replace(".", "_")
        if unit not in ("", "count") and not family.endswith(f"_{unit}"):
            family += f"_{unit}"
        family += "_total" if counter else ""
        kinds[family] = "counter" if counter else "gauge"
        pairs = ",".join(f'{key}="{_escape(text)}"' for key, text in sorted(labels.items()))
        families.setdefault(family, []).append(f"{family}{{{pairs}}} {value!r}" if pairs else f"{family} {value!r}")
    lines = []
    for family, samples in families.items():
        lines += [f"# TYPE {family} {kinds[family]}", *samples]
    return "\n".join(lines) + "\n"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
