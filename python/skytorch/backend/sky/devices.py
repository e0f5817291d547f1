"""Which devices there are, which is current, and what each is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import TracebackType

import torch

from skytorch.backend._runtime import process_runtime
from skytorch.backend.sky._utils import Device, index_of, open_index


@dataclass(frozen=True, kw_only=True)
class DeviceProperties:
    """What the server says of a device, in the words of torch.cuda's properties."""

    name: str
    type: str  # the device on its server: "cpu", "cuda:0"
    compute: str  # the Compute that it belongs to
    total_memory: int
    major: int
    minor: int


def is_available() -> bool:
    """Whether the device can be used here: True unless in a child that was forked from a process using it."""
    return process_runtime().registered and not process_runtime().in_bad_fork


def is_initialized() -> bool:
    """Whether any device is open."""
    return bool(process_runtime().devices)


def device_count() -> int:
    """How many devices are open."""
    runtime = process_runtime()
    return int(runtime.ops.device_count()) if runtime.registered and not runtime.in_bad_fork else 0


def current_device() -> int:
    """Index of the current device."""
    return int(process_runtime().ops.current_device())


def set_device(device: Device) -> None:
    """Make `device` current on this thread; negative indices change nothing."""
    if isinstance(device, int) and device < 0:
        return
    process_runtime().ops.set_device(index_of(device))


def _exchange_device(device: int) -> int:
    previous = current_device()
    set_device(device)
    return previous


def _maybe_exchange_device(device: int) -> int:
    return _exchange_device(device)


class device:
    """Context manager that makes a device current inside its block."""

    def __init__(self, device: Device) -> None:
        self.idx = -1 if device is None else index_of(device)
        self.prev_idx = -1

    def __enter__(self) -> None:
        self.prev_idx = current_device()
        set_device(self.idx)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        set_device(self.prev_idx)


class device_of(device):
    """Context manager that makes the device of a tensor or storage current; another device type changes nothing."""

    def __init__(self, obj: torch.Tensor | torch.UntypedStorage) -> None:
        super().__init__(obj.device if obj.device.type == "sky" else None)


def synchronize(device: Device = None) -> None:
    """Wait until everything issued to the device has run; raises a failure that nobody has read."""
    if device_count():
        process_runtime().ops.synchronize(index_of(device))


def get_device_name(device: Device = None) -> str:
    """The device's name on its server, for example "NVIDIA H100 80GB HBM3"."""
    return process_runtime().describe(open_index(device)).name


def get_device_capability(device: Device = None) -> tuple[int, int]:
    """CUDA compute capability of the device; (0, 0) where it is no CUDA device."""
    found = re.fullmatch(r"sm_(\d+)(\d)", process_runtime().describe(open_index(device)).detail)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def get_device_properties(device: Device = None) -> DeviceProperties:
    """Name, total memory and capability of the device."""
    index = open_index(device)
    opened = process_runtime().describe(index)
    major, minor = get_device_capability(index)
    return DeviceProperties(
        name=opened.name,
        type=opened.type,
        compute=opened.compute,
        total_memory=int(process_runtime().ops.memory_stats(index)[5]),
        major=major,
        minor=minor,
    )


def is_bf16_supported(including_emulation: bool = True) -> bool:
    """Whether bfloat16 works on the current device: on every server, though emulated on CUDA before sm_80."""
    if including_emulation:
        return True
    opened = process_runtime().describe(open_index())
    return not opened.type.startswith("cuda") or get_device_capability() >= (8, 0)


def is_tf32_supported() -> bool:
    """Whether the current device multiplies in TensorFloat-32: CUDA from sm_80 on."""
    return get_device_capability() >= (8, 0)


def can_device_access_peer(device: Device, peer_device: Device) -> bool:
    """Whether both are devices of one Compute."""
    runtime = process_runtime()
    return runtime.describe(open_index(device)).compute == runtime.describe(open_index(peer_device)).compute
