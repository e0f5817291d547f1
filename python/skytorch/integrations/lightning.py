"""Lightning chooses among accelerators that it knows, and falls back to the CPU: `on` makes the arguments for ours.

trainer = lightning.Trainer(max_epochs=3, **on(node.device()))
fabric = lightning.Fabric(**on_fabric(node.device()))
"""

from __future__ import annotations

from typing import Any

import torch

from skytorch.backend._runtime import DEVICE


def on(device: torch.device | str = DEVICE, precision: str | None = None) -> dict[str, Any]:
    """The arguments that have `lightning.Trainer` compute on `device`. Give `precision` here, not there."""
    from lightning.pytorch.accelerators import Accelerator
    from lightning.pytorch.plugins import MixedPrecision
    from lightning.pytorch.strategies import SingleDeviceStrategy

    return _arguments(Accelerator, SingleDeviceStrategy, MixedPrecision, torch.device(device), precision)


def on_fabric(device: torch.device | str = DEVICE, precision: str | None = None) -> dict[str, Any]:
    """The arguments that have `lightning.Fabric` compute on `device`. Give `precision` here, not there."""
    from lightning.fabric.accelerators import Accelerator
    from lightning.fabric.plugins import MixedPrecision
    from lightning.fabric.strategies import SingleDeviceStrategy

    return _arguments(Accelerator, SingleDeviceStrategy, MixedPrecision, torch.device(device), precision)


def _arguments(base: Any, strategy: Any, mixed: Any, device: torch.device, precision: str | None) -> dict[str, Any]:
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
    chosen = {"accelerator": accelerator, "strategy": strategy(device=device), "devices": 1}
    if precision in ("16-mixed", "bf16-mixed"):  # from the name alone, it would autocast for cuda
        return {**chosen, "plugins": [mixed(precision, device.type)]}
    return chosen if precision is None else {**chosen, "precision": precision}
