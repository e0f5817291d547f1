"""Printing with one round trip: torch formats a tensor element by element, and each element would be a question.

What is printed comes here in one read and is formatted locally. Of a large tensor that is its corners, with one
element between them in each cut dimension, so that torch puts its dots there. torch has no hook for this: its own
list of devices that print from a copy is inside `_tensor_str`, which `install` therefore wraps.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import _tensor_str

from skytorch.backend._runtime import DEVICE

_torchs_own: Callable[[torch.Tensor, int], str] = _tensor_str._tensor_str


def install() -> None:
    """Have torch print sky tensors from here."""
    _tensor_str._tensor_str = _print_from_here


def _print_from_here(tensor: torch.Tensor, indent: int) -> str:
    options = _tensor_str.PRINT_OPTS
    plain = type(tensor).__torch_dispatch__ is torch._C._disabled_torch_dispatch_impl
    if tensor.device.type != DEVICE or tensor.layout != torch.strided or not plain or options.edgeitems < 1:
        return _torchs_own(tensor, indent)
    with torch.no_grad():
        if tensor.numel() <= options.threshold:
            return _torchs_own(tensor.detach().cpu(), indent)
        corners = _corners(tensor.detach(), options.edgeitems).cpu()
    threshold, options.threshold = options.threshold, 0  # the corners stand for something large
    try:
        return _torchs_own(corners, indent)
    finally:
        options.threshold = threshold


def _corners(tensor: torch.Tensor, edge: int) -> torch.Tensor:
    for dim, size in enumerate(tensor.shape):
        if size > 2 * edge + 1:
            tensor = torch.cat([tensor.narrow(dim, 0, edge + 1), tensor.narrow(dim, size - edge, edge)], dim)
    return tensor
