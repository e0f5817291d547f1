"""Measurements of a Compute's server: one Metric, a snapshot of them, and a snapshot as one line a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One measurement, such as gpu.memory.used of cuda:0."""

    name: str
    value: float
    unit: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MetricsSnapshot:
    """What a server measured at one moment. `print(snapshot)` gives one line for each of its devices."""

    compute: str
    timestamp: datetime
    metrics: tuple[Metric, ...]

    @classmethod
    def of(
        cls, compute: str, unix_s: float, rows: Sequence[tuple[str, float, str, Mapping[str, str]]]
    ) -> MetricsSnapshot:
        """From what `skytorch._wire.metrics` yields."""
        return cls(
            compute=compute,
            timestamp=datetime.fromtimestamp(unix_s, UTC),
            metrics=tuple(Metric(name=n, value=v, unit=u, labels=dict(labels)) for n, v, u, labels in rows),
        )

    def get(self, name: str, device: str | None = None) -> float | None:
        """The value of a metric (of one device, if it is given), or None."""
        for metric in self.metrics:
            if metric.name == name and (device is None or metric.labels.get("device") == device):
                return metric.value
        return None

    def devices(self) -> list[str]:
        """The devices with measurements of their own, such as ["cuda:0"]."""
        found = dict.fromkeys(m.labels["device"] for m in self.metrics if "device" in m.labels)
        return list(found)

    def __str__(self) -> str:
        return "\n".join([self._server_line(), *(self._gpu_line(device) for device in self.devices())])

    def _server_line(self) -> str:
        parts = []
        cpu, used = self.get("cpu.utilization"), self.get("memory.used")
        if cpu is not None:
            parts.append(f"{cpu:5.1f} % cpu")
        if used is not None:
            parts.append(f"{used / GIB:.2f} GiB memory")
        for name, words in (("ops.executed", "ops"), ("ops.queued", "queued")):
            value = self.get(name)
            if value is not None:
                parts.append(f"{value:,.0f} {words}")
        for name, words in (("bytes.received", "in"), ("bytes.sent", "out"), ("tensors.resident_bytes", "tensors")):
            value = self.get(name)
            if value is not None:
                parts.append(f"{_bytes(value)} {words}")
        return f"{self.compute} cpu: {', '.join(parts) or 'no measurements'}"

    def _gpu_line(self, device: str) -> str:
        parts = []
        utilization = self.get("gpu.utilization.compute", device)
        used, total = self.get("gpu.memory.used", device), self.get("gpu.memory.total", device)
        if utilization is not None:
            parts.append(f"{utilization:.0f} % busy")
        if used is not None and total is not None:
            parts.append(f"{used / GIB:.1f}/{total / GIB:.1f} GiB")
        power, temperature = self.get("gpu.power.usage", device), self.get("gpu.temperature", device)
        if power is not None:
            parts.append(f"{power:.0f} W")
        if temperature is not None:
            parts.append(f"{temperature:.0f} C")
        return f"{self.compute} {device}: {', '.join(parts)}"


MetricsCallback = Callable[[MetricsSnapshot], Any]


def _bytes(value: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    raise AssertionError
