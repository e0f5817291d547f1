"""transformers' Trainer asks accelerate for its device, and a list of its own whether that device has bfloat16.

TRL's trainers are Trainers, so that the one call serves them too. fp16 stays refused: accelerate has a list for it
that nothing outside can add to.
"""

from __future__ import annotations

import torch

from skytorch.backend._runtime import DEVICE
from skytorch.integrations import accelerate


def use(device: torch.device | str = DEVICE) -> None:
    """Have Trainer compute on `device` from now on, also with `bf16=True`."""
    from transformers import training_args

    accelerate.use(device)
    training_args.is_torch_bf16_gpu_available = lambda: True
