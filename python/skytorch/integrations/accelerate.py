"""Accelerate chooses its device from a list of names and falls back to the CPU, silently. `use` names the device.

transformers' Trainer and TRL's trainers ask accelerate, so that the one call serves them too.
"""

from __future__ import annotations

from typing import Any

import torch

from skytorch.backend._runtime import DEVICE


def use(device: torch.device | str = DEVICE) -> None:
    """Have accelerate compute on `device` from now on, where it is not told to use the CPU."""
    from accelerate import state

    chosen = torch.device(device)

    def default_device(self: Any) -> torch.device:
        return chosen

    state.PartialState.default_device = property(default_device)
    if state.PartialState._shared_state:  # it has chosen already
        state.AcceleratorState._reset_state(reset_partial_state=True)
