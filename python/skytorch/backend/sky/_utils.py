"""Turns what a user may pass as a device (nothing, a number, a string, a torch.device) into an index of `sky`.

torch.load reads `_get_device_index` from here by name.
"""

from __future__ import annotations

from typing import Any

import torch

from skytorch import errors
from skytorch.backend._runtime import DEVICE, process_runtime

Device = torch.device | str | int | None


def index_of(device: Device = None) -> int:
    """The index that `device` names; the current one if it names none."""
    runtime = process_runtime()
    if isinstance(device, str):
        device = torch.device(device)
    if isinstance(device, torch.device):
        if device.type != DEVICE:
            raise errors.InvalidArgument(f"expected a device of type sky, got {device}")
        device = device.index
    if device is None or device < 0:
        return int(runtime.ops.current_device())
    return device


def open_index(device: Device = None) -> int:
    """As `index_of`, for calls that need a server: starts the local provider if nothing is open."""
    process_runtime().ensure_open()
    index = index_of(device)
    process_runtime().describe(index)
    return index


def _get_device_index(device: Any, optional: bool = False) -> int:
    if device is None and not optional:
        raise errors.InvalidArgument("expected a device of type sky, got None")
    return open_index(device)
