"""Memory of the device, as its server's allocator counts it. Each figure is one question to the server."""

from __future__ import annotations

from collections import OrderedDict

from skytorch.backend._runtime import process_runtime
from skytorch.backend.sky._utils import Device, index_of, open_index
from skytorch.backend.sky.devices import device_count

_FIELDS = ("allocated", "max_allocated", "reserved", "max_reserved", "free", "total")


def _figures(device: Device) -> dict[str, int]:
    if not device_count():
        return dict.fromkeys(_FIELDS, 0)
    return dict(zip(_FIELDS, process_runtime().ops.memory_stats(index_of(device)), strict=True))


def memory_allocated(device: Device = None) -> int:
    """Bytes that tensors occupy on the device."""
    return _figures(device)["allocated"]


def max_memory_allocated(device: Device = None) -> int:
    """The most bytes that tensors have occupied since the start or the last reset."""
    return _figures(device)["max_allocated"]


def memory_reserved(device: Device = None) -> int:
    """Bytes that the server's allocator holds, cached ones included."""
    return _figures(device)["reserved"]


def max_memory_reserved(device: Device = None) -> int:
    """The most bytes that the server's allocator has held since the start or the last reset."""
    return _figures(device)["max_reserved"]


def memory_stats(device: Device = None) -> OrderedDict[str, int]:
    """The figures under torch.cuda's names."""
    found = _figures(device)
    return OrderedDict(
        {
            "allocated_bytes.all.current": found["allocated"],
            "allocated_bytes.all.peak": found["max_allocated"],
            "reserved_bytes.all.current": found["reserved"],
            "reserved_bytes.all.peak": found["max_reserved"],
        }
    )


def mem_get_info(device: Device = None) -> tuple[int, int]:
    """Free and total bytes of the device."""
    index = open_index(device)
    found = _figures(index)
    return found["free"], found["total"]


def reset_peak_memory_stats(device: Device = None) -> None:
    """Start the peaks anew from what is allocated now."""
    if device_count():
        process_runtime().ops.reset_peak_memory(index_of(device))


def reset_accumulated_memory_stats(device: Device = None) -> None:
    """Start the sums anew. The figures here are levels and peaks, so that there is nothing to do."""


def empty_cache() -> None:
    """Have every open device give cached memory back."""
    for opened in process_runtime().devices:
        process_runtime().ops.empty_cache(opened.index)


def memory_summary(device: Device = None, abbreviated: bool = False) -> str:
    """The figures as a small table, for people."""
    index = open_index(device)
    opened = process_runtime().describe(index)
    found = _figures(index)
    lines = [f"sky:{index} ({opened.type} of {opened.compute}, {opened.name})"]
    lines += [f"  {name.replace('_', ' '):14} {found[name] / 2**20:12.1f} MiB" for name in _FIELDS]
    return "\n".join(lines[:3] if abbreviated else lines)
