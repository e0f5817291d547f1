"""What the server measures: this process through psutil, its GPUs through NVML, and the executor's own counters.

Called on a control thread, about once a second for each client that watches; psutil and pynvml are imported then and
not at the start. A figure that cannot be had is left out; nothing here may raise because of a missing GPU.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("skytorch.server")
Row = tuple[str, float, str, dict[str, str]]


class Measurements:
    """The sources, opened on first use."""

    def __init__(
        self, *, executor: Callable[[], tuple[int, int, int]], wire: Callable[[], dict[str, Any]], cuda: bool
    ) -> None:
        self._executor = executor
        self._wire = wire
        self._lock = threading.Lock()
        self._process: Any = None
        self._gpus: Gpus | None = Gpus() if cuda else None

    def rows(self) -> list[Row]:
        """The present figures."""
        with self._lock:
            return [*self._process_rows(), *self._executor_rows(), *(self._gpus.rows() if self._gpus else [])]

    def _process_rows(self) -> list[Row]:
        import psutil

        if self._process is None:
            self._process = psutil.Process()
            self._process.cpu_percent()  # the first answer covers no time
        with self._process.oneshot():
            cpu, memory = self._process.cpu_percent(), self._process.memory_info().rss
        return [("cpu.utilization", cpu, "percent", {}), ("memory.used", float(memory), "bytes", {})]

    def _executor_rows(self) -> list[Row]:
        executed, queued, resident = self._executor()
        wire = self._wire()
        return [
            ("ops.executed", float(executed), "count", {}),
            ("ops.queued", float(queued), "count", {}),
            ("bytes.received", float(wire.get("bytes_received", 0)), "bytes", {}),
            ("bytes.sent", float(wire.get("bytes_sent", 0)), "bytes", {}),
            ("tensors.resident_bytes", float(resident), "bytes", {}),
        ]


class Gpus:
    """The GPUs that this process may use, as NVML sees them."""

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: list[Any] | None = None

    def rows(self) -> list[Row]:
        """Figures of every GPU."""
        if self._handles is None:
            self._handles = self._open()
        return [row for index, handle in enumerate(self._handles) for row in self._read(index, handle)]

    def _open(self) -> list[Any]:
        try:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            if visible is None:
                return [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
            words = [word.strip() for word in visible.split(",") if word.strip()]
            return [
                pynvml.nvmlDeviceGetHandleByIndex(int(word))
                if word.isdigit()
                else pynvml.nvmlDeviceGetHandleByUUID(word)
                for word in words
            ]
        except Exception as error:
            logger.info("no GPU measurements: %s", error)
            return []

    def _read(self, index: int, handle: Any) -> list[Row]:
        nvml = self._nvml
        labels = {"device": f"cuda:{index}"}
        rows: list[Row] = []

        def add(name: str, unit: str, read: Callable[[], float]) -> None:
            try:
                rows.append((name, float(read()), unit, labels))
            except nvml.NVMLError:
                pass  # this GPU has no such sensor

        add("gpu.utilization.compute", "percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        add("gpu.utilization.memory", "percent", lambda: nvml.nvmlDeviceGetUtilizationRates(handle).memory)
        add("gpu.memory.used", "bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).used)
        add("gpu.memory.total", "bytes", lambda: nvml.nvmlDeviceGetMemoryInfo(handle).total)
        add("gpu.power.usage", "watts", lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        add("gpu.temperature", "celsius", lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
        return rows
