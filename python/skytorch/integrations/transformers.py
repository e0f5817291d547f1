"""transformers' Trainer names its device from a list, beside the one that accelerate chose, and from another whether
that device has bfloat16.

TRL's trainers are Trainers, so that the one call serves them too. fp16 stays refused: accelerate has a list for it
that nothing outside can add to.
"""

from __future__ import annotations

import functools
import inspect
from typing import Any

import torch

from skytorch.backend._runtime import DEVICE
from skytorch.integrations import accelerate


def use(device: torch.device | str = DEVICE) -> None:
    """Have Trainer compute on `device` from now on, also with `bf16=True`; `use_cpu=True` is still the CPU."""
    from transformers import TrainingArguments, training_args

    accelerate.use(device)
    training_args.is_torch_bf16_gpu_available = lambda: True
    setup = inspect.unwrap(vars(TrainingArguments)["_setup_devices"].func)

    @functools.wraps(setup)
    def set_up(self: Any) -> torch.device:
        listed: torch.device = setup(self)
        if self.use_cpu:
            return listed
        self._n_gpu = 1  # else the number of local GPUs, over which it would spread the model
        return torch.device(device)

    devices = functools.cached_property(set_up)
    devices.__set_name__(TrainingArguments, "_setup_devices")
    TrainingArguments._setup_devices = devices
