"""`torch.sky`: what torch.cuda has, as far as it makes sense for a device on another machine.

torch itself calls parts of it by name (seeding, torch.load, checkpointing, autocast, torch.accelerator). The subtle
thing: `_initialized` is not a constant but whether a device is open now; activation checkpointing reads it.
"""

from __future__ import annotations

from typing import Any

from skytorch.backend._runtime import process_runtime
from skytorch.backend.sky import _printing, _processes, _utils, amp, memory, random, streams
from skytorch.backend.sky.amp import get_amp_supported_dtype
from skytorch.backend.sky.devices import (
    DeviceProperties,
    _exchange_device,
    _maybe_exchange_device,
    can_device_access_peer,
    current_device,
    device,
    device_count,
    device_of,
    get_device_capability,
    get_device_name,
    get_device_properties,
    is_available,
    is_bf16_supported,
    is_initialized,
    is_tf32_supported,
    set_device,
    synchronize,
)
from skytorch.backend.sky.memory import (
    empty_cache,
    max_memory_allocated,
    max_memory_reserved,
    mem_get_info,
    memory_allocated,
    memory_reserved,
    memory_stats,
    memory_summary,
    reset_accumulated_memory_stats,
    reset_peak_memory_stats,
)
from skytorch.backend.sky.random import (
    get_rng_state,
    get_rng_state_all,
    initial_seed,
    manual_seed,
    manual_seed_all,
    seed,
    seed_all,
    set_rng_state,
    set_rng_state_all,
)
from skytorch.backend.sky.streams import (
    Event,
    Stream,
    StreamContext,
    current_stream,
    default_stream,
    is_current_stream_capturing,
    set_stream,
    stream,
)

__all__ = [
    "DeviceProperties",
    "Event",
    "Stream",
    "StreamContext",
    "amp",
    "can_device_access_peer",
    "current_device",
    "current_stream",
    "default_stream",
    "device",
    "device_count",
    "device_of",
    "empty_cache",
    "get_amp_supported_dtype",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "get_rng_state",
    "get_rng_state_all",
    "init",
    "initial_seed",
    "is_available",
    "is_bf16_supported",
    "is_current_stream_capturing",
    "is_initialized",
    "is_tf32_supported",
    "manual_seed",
    "manual_seed_all",
    "max_memory_allocated",
    "max_memory_reserved",
    "mem_get_info",
    "memory",
    "memory_allocated",
    "memory_reserved",
    "memory_stats",
    "memory_summary",
    "random",
    "reset_accumulated_memory_stats",
    "reset_peak_memory_stats",
    "seed",
    "seed_all",
    "set_device",
    "set_rng_state",
    "set_rng_state_all",
    "set_stream",
    "stream",
    "streams",
    "synchronize",
]

_HOOKS = (_utils, _exchange_device, _maybe_exchange_device)  # torch looks these up by name


def init() -> None:
    """Open a device now rather than on first use."""
    process_runtime().ensure_open()


def _is_in_bad_fork() -> bool:
    return process_runtime().in_bad_fork


def _install() -> None:
    """Take the places in torch's own Python that know devices by a fixed list."""
    _printing.install()
    _processes.install()


def __getattr__(name: str) -> Any:
    if name == "_initialized":
        return is_initialized()
    if name in ("Scheduling", "PythonWrapperCodegen", "CppWrapperCodegen"):  # inductor asks
        from skytorch.backend.sky._compiling import Refusal

        return Refusal
    raise AttributeError(f"module 'torch.sky' has no attribute {name!r}")
