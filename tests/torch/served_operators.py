"""Operators of a user: imported by a server through `--import`, and by the test beside it for their schemas.

Not a test. Implemented for the server's device alone, so that the client cannot run them. `doubled` works; `refused`
raises an exception of the user's own kind.
"""

from __future__ import annotations

import torch


@torch.library.custom_op("skytorch_served::doubled", mutates_args=(), device_types="cpu")
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@torch.library.custom_op("skytorch_served::refused", mutates_args=(), device_types="cpu")
def refused(x: torch.Tensor) -> torch.Tensor:
    raise KeyError("the user's own words")


@doubled.register_fake
@refused.register_fake
def _like(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)
