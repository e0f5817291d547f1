"""Mixed precision under torch.cuda.amp's names. The casts themselves are registered in csrc/."""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["GradScaler", "autocast", "get_amp_supported_dtype"]


def get_amp_supported_dtype() -> list[torch.dtype]:
    """The dtypes that `torch.autocast("sky")` takes."""
    return [torch.bfloat16, torch.float16]


class autocast(torch.amp.autocast):
    """`torch.autocast("sky")`."""

    def __init__(self, enabled: bool = True, dtype: torch.dtype | None = None, cache_enabled: bool = True) -> None:
        super().__init__("sky", dtype=dtype, enabled=enabled, cache_enabled=cache_enabled)


class GradScaler(torch.amp.GradScaler):
    """`torch.amp.GradScaler("sky")`."""

    def __init__(self, **options: Any) -> None:
        super().__init__("sky", **options)
