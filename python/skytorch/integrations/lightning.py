"""Lightning chooses among accelerators that it knows, and falls back to the CPU: `on` makes the arguments for ours.

trainer = lightning.Trainer(max_epochs=3, **on(node.device()))
fabric = lightning.Fabric(**on_fabric(node.device()))
"""

from __future__ import annotations

from typing import Any

import torch

from skytorch.backend._runtime import DEVICE


def on(device: torch.device | str = DEVICE) -> dict[str, Any]:
    """The arguments that have `lightning.Trainer` compute on `device`."""
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.strategies import SingleDeviceStrategy

    return _arguments(Accelerator, SingleDeviceStrategy, torch.device(device))


def on_fabric(device: torch.device | str = DEVICE) -> dict[str, Any]:
    """The arguments that have `lightning.Fabric` compute on `device`."""
    from lightning.fabric.accelerators import Accelerator
    from lightning.fabric.strategies import SingleDeviceStrategy

    return _arguments(Accelerator, SingleDeviceStrategy, torch.device(device))


def _arguments(base: Any, strategy: Any, device: torch.device) -> dict[str, Any]:
    def setup_device(self: Any, device: torch.device) -> None:
        torch.get_device_module(DEVICE).set_device(device)

    methods = {
        "setup_device": setup_device,
        "teardown": lambda self: None,
        "get_device_stats": lambda self, device: dict(torch.get_device_module(DEVICE).memory_stats(device)),
        "parse_devices": staticmethod(lambda devices: devices),
        "get_parallel_devices": staticmethod(lambda devices: [device]),
        "auto_device_count": staticmethod(lambda: 1),
        "is_available": staticmethod(lambda: True),
        "name": staticmethod(lambda: DEVICE),
    }
    accelerator = type("SkyAccelerator", (base,), methods)()
    return {"accelerator": accelerator, "strategy": strategy(device=device), "devices": 1}
