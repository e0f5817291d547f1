"""Compares what a torch program gave on two devices: values, dtype, shape, strides, flags and gradients.

Values are equal to within torch's own defaults for the dtype; layouts must be the same, because a program can see
them. Strides of dimensions of one element (or none) mean nothing and are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._pytree import tree_flatten


def run_seeded(program: Callable[[torch.device], Any], device: torch.device, seed: int = 1234) -> Any:
    torch.manual_seed(seed)
    return program(device)


def meaningful_strides(tensor: torch.Tensor) -> list[int]:
    if tensor.numel() == 0:
        return []
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def describe(tensor: torch.Tensor) -> dict[str, Any]:
    """What a program can see of a tensor without reading its values."""
    return {
        "dtype": tensor.dtype,
        "shape": tuple(tensor.shape),
        "strides": meaningful_strides(tensor),
        "offset": tensor.storage_offset(),
        "requires_grad": tensor.requires_grad,
        "is_leaf": tensor.is_leaf,
        "conj": tensor.is_conj(),
        "neg": tensor.is_neg(),
        "grad_fn": tensor.grad_fn is not None,
        "inference": tensor.is_inference(),
    }


def assert_same(
    got: Any, expected: Any, device: torch.device, *, ignore: tuple[str, ...] = (), **tolerances: Any
) -> None:
    got_leaves, got_spec = tree_flatten(got)
    expected_leaves, expected_spec = tree_flatten(expected)
    assert got_spec == expected_spec, f"structure: {got_spec} instead of {expected_spec}"
    for index, (one, other) in enumerate(zip(got_leaves, expected_leaves, strict=True)):
        assert type(one) is type(other), f"result {index}: {type(one)} instead of {type(other)}"
        if isinstance(other, torch.Tensor):
            assert_same_tensor(one, other, device, f"result {index}", ignore, tolerances)
        elif isinstance(other, float):
            torch.testing.assert_close(
                one, other, equal_nan=True, msg=lambda m, i=index: f"result {i}: {m}", **tolerances
            )
        else:
            assert one == other, f"result {index}: {one!r} instead of {other!r}"


def assert_same_tensor(
    got: torch.Tensor,
    expected: torch.Tensor,
    device: torch.device,
    where: str,
    ignore: tuple[str, ...],
    tolerances: dict[str, Any],
) -> None:
    assert got.device in (device, expected.device), f"{where}: on {got.device}"
    seen = {key: value for key, value in describe(got).items() if key not in ignore}
    wanted = {key: value for key, value in describe(expected).items() if key not in ignore}
    assert seen == wanted, f"{where}: {seen} instead of {wanted}"
    torch.testing.assert_close(
        got.detach().cpu(), expected.detach().cpu(), equal_nan=True, msg=lambda m: f"{where}: {m}", **tolerances
    )
    if expected.is_leaf:
        assert (got.grad is None) == (expected.grad is None), (
            f"{where}: gradient {got.grad} instead of {expected.grad}"
        )
        if expected.grad is not None:
            assert_same_tensor(got.grad, expected.grad, device, f"{where}.grad", ignore, tolerances)
