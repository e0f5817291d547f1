"""Runs one op_db sample on two devices and says how it went: agreed, or why not.

Inputs are made on the CPU and copied, so both devices start from the same numbers; random operators are seeded alike.
A forward failure of the CPU itself is not a sample. Layouts that differ are reported apart from wrong values.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from compare import meaningful_strides
from torch.utils._pytree import tree_flatten, tree_map
from torch_samples import operators, sample_inputs

HOST_ARGUMENTS = {"tensor_split"}  # whose tensor arguments torch wants on the CPU, whatever the input's device
UNINITIALISED = {
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "empty_permuted",
    "resize_",
}


@dataclass
class Outcome:
    operator: str
    sample: str
    verdict: str  # "agreed", or the reason in a word or two
    detail: str = ""
    layout_differs: bool = False


def all_operators() -> dict[str, Any]:
    return {op.name + (f"@{op.variant_test_name}" if op.variant_test_name else ""): op for op in operators()}


def samples(op: Any, count: int) -> Iterator[tuple[str, Any, bool]]:
    """(description, sample, differentiable): every third of the first, float32 and int64."""
    for dtype in (torch.float32, torch.int64):
        if dtype not in op.supported_dtypes("cpu"):
            continue
        grad = dtype.is_floating_point and op.supports_autograd
        torch.manual_seed(0)
        for index, sample in enumerate(sample_inputs(op, dtype, grad, 3 * count)[::3]):
            yield f"{str(dtype).removeprefix('torch.')} {index}", sample, grad


def on_device(value: Any, device: torch.device) -> Any:
    """Copies of the tensors (and of the device arguments) of a sample, leaves that require what they required."""

    def move(leaf: Any) -> Any:
        if isinstance(leaf, torch.Tensor):
            copied = leaf.detach().to(device, copy=True)
            return copied.requires_grad_() if leaf.requires_grad else copied
        if isinstance(leaf, torch.device) or leaf == "cpu":
            return device
        return leaf

    return tree_map(move, value)


def call(op: Any, sample: Any, device: torch.device, grad: bool) -> tuple[list[Any], list[Any]]:
    """(results, gradients of the inputs)."""
    there = torch.device("cpu") if op.name in HOST_ARGUMENTS else device
    arguments = [on_device(sample.input, device), *on_device([list(sample.args), dict(sample.kwargs)], there)]
    torch.manual_seed(99)
    result = op(arguments[0], *arguments[1], **arguments[2])
    results = tree_flatten(result)[0]
    if not grad:
        return results, []
    leaves = [leaf for leaf in tree_flatten(arguments)[0] if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    outputs = [r for r in results if isinstance(r, torch.Tensor) and r.requires_grad]
    if not outputs or not leaves:
        return results, []
    weights = [torch.randn(out.shape, dtype=out.dtype).to(device) for out in outputs]
    return results, list(torch.autograd.grad(outputs, leaves, weights, allow_unused=True))


def compare(got: list[Any], expected: list[Any], what: str, values: bool = True) -> tuple[str, str, bool]:
    """(verdict, detail, layout differs)."""
    layout_differs = False
    if len(got) != len(expected):
        return f"{what}: number", f"{len(got)} instead of {len(expected)}", False
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        if not isinstance(other, torch.Tensor):
            if other != other or one == other or type(other) is torch.device:
                continue
            return f"{what}: value", f"{index}: {one!r} instead of {other!r}", layout_differs
        if not isinstance(one, torch.Tensor):
            return f"{what}: type", f"{index}: {type(one)}", layout_differs
        if one.shape != other.shape or one.dtype != other.dtype:
            seen = f"{tuple(one.shape)} {one.dtype} instead of {tuple(other.shape)} {other.dtype}"
            return f"{what}: geometry", f"{index}: {seen}", layout_differs
        if other.layout == torch.strided and meaningful_strides(one) != meaningful_strides(other):
            layout_differs = True
        if values:
            try:
                torch.testing.assert_close(one.detach().cpu(), other.detach(), equal_nan=True, rtol=1e-4, atol=1e-5)
            except AssertionError as error:
                return f"{what}: value", f"{index}: {str(error).splitlines()[0]}", layout_differs
    return "agreed", "", layout_differs


def outcomes(name: str, op: Any, device: torch.device, count: int) -> Iterator[Outcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for described, sample, grad in samples(op, count):
            try:
                expected, expected_grads = call(op, sample, torch.device("cpu"), grad)
            except Exception:  # the CPU cannot run it: nothing to compare with
                continue
            try:
                got, grads = call(op, sample, device, grad)
                values = name.split("@")[0] not in UNINITIALISED
                verdict, detail, layout = compare(got, expected, "forward", values)
                if verdict == "agreed":
                    verdict, detail, grad_layout = compare(grads, expected_grads, "backward", values)
                    layout = layout or grad_layout
            except Exception as error:
                message = str(error).splitlines()[0] if str(error) else ""
                yield Outcome(name, described, f"raised {type(error).__name__}", message)
                continue
            yield Outcome(name, described, verdict, detail, layout)
