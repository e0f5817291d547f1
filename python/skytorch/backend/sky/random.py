"""Seeds and generator states of the device.

A seed given while nothing is open is kept: devices opened later start from it, as torch.cuda's do.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch

from skytorch.backend._runtime import process_runtime
from skytorch.backend.sky._utils import Device, open_index


def manual_seed(seed: int) -> None:
    """Seed the current device."""
    runtime = process_runtime()
    if runtime.devices:
        runtime.ops.manual_seed(open_index(), _signed(seed))
    else:
        runtime.seed_all(_signed(seed))


def manual_seed_all(seed: int) -> None:
    """Seed every open device, and those opened later."""
    process_runtime().seed_all(_signed(seed))


def seed() -> int:
    """Seed the current device from the system's randomness; returns the seed."""
    value = _random_seed()
    manual_seed(value)
    return value


def seed_all() -> int:
    """Seed every device from the system's randomness; returns the seed."""
    value = _random_seed()
    manual_seed_all(value)
    return value


def initial_seed() -> int:
    """The seed that the current device started from."""
    return int(process_runtime().ops.initial_seed(open_index())) & (2**64 - 1)


def get_rng_state(device: Device = None) -> torch.Tensor:
    """The state of the device's generator, as a CPU tensor of bytes."""
    state: torch.Tensor = process_runtime().ops.get_rng_state(open_index(device))
    return state


def get_rng_state_all() -> list[torch.Tensor]:
    """The states of all open devices."""
    return [get_rng_state(opened.index) for opened in process_runtime().devices]


def set_rng_state(new_state: torch.Tensor, device: Device = None) -> None:
    """Put the device's generator into a state from `get_rng_state`."""
    process_runtime().ops.set_rng_state(open_index(device), new_state.cpu())


def set_rng_state_all(new_states: Iterable[torch.Tensor]) -> None:
    """Put the generators of the open devices into these states, in the order of the devices."""
    for opened, state in zip(process_runtime().devices, new_states, strict=False):
        set_rng_state(state, opened.index)


def _signed(seed: int) -> int:
    """The 64 bits of a seed as the signed number that an operator takes."""
    bits = int(seed) & (2**64 - 1)
    return bits - 2**64 if bits >= 2**63 else bits


def _random_seed() -> int:
    return int.from_bytes(os.urandom(8), "little") >> 1
