"""Runs one case of op_db on two devices and says how it went: agreed, or why not.

Inputs are made on the CPU and copied, so both devices start from the same bits, and results are compared bit by bit
(one NaN is like another); random operators are seeded alike. Where the CPU refuses, the device must refuse with the
same exception and the same words.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from op_samples import Case
from torch.utils._pytree import tree_flatten, tree_map
from waits import observed

HOST_ARGUMENTS = {"tensor_split"}  # whose tensor arguments torch wants on the CPU, whatever the input's device
UNINITIALISED = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
RESIZED = {"resize_", "resize_as_"}  # what is new in them is uninitialised
CPU = torch.device("cpu")


@dataclass
class Outcome:
    operator: str
    case: str
    verdict: str  # "agreed", "refused alike", or the reason in a word or two
    detail: str = ""
    waits: list[str] = field(default_factory=list)  # operators that took a round trip before anything was read


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


def arguments_on(op: Any, sample: Any, device: torch.device) -> list[Any]:
    """[input, args, kwargs]"""
    there = CPU if op.name in HOST_ARGUMENTS else device
    return [on_device(sample.input, device), *on_device([list(sample.args), dict(sample.kwargs)], there)]


def random_like(tensors: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(t.shape, dtype=t.dtype, generator=generator).to(device) for t in tensors]


def tensors_of(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


def call_function(op: Any, case: Case, device: torch.device) -> tuple[list[Any], list[Any]]:
    """(results, gradients of the inputs)."""
    arguments = arguments_on(op, case.sample, device)
    target = arguments[0]
    function = op
    if case.way == "in place":
        # A leaf that requires grad may not be written.
        target = tree_map(lambda t: t.clone() if isinstance(t, torch.Tensor) else t, arguments[0])
        function = op.get_inplace()
    torch.manual_seed(99)
    result = function(target, *arguments[1], **arguments[2])
    results = tree_flatten(result)[0]
    if case.way == "in place":
        results = [*results, *tensors_of(target)]
    if not case.grad:
        return results, []
    leaves = [leaf for leaf in tensors_of(arguments) if leaf.requires_grad]
    outputs = [r for r in tensors_of(case.sample.output_process_fn_grad(result)) if r.requires_grad]
    if not outputs or not leaves:
        return results, []
    weights = random_like(outputs, device)
    return results, list(torch.autograd.grad(outputs, leaves, weights, allow_unused=True))


def call_out(op: Any, case: Case, device: torch.device) -> tuple[list[Any], list[Any]]:
    """With out= tensors of the right size but other strides, or of size 0."""
    arguments = arguments_on(op, case.sample, device)
    with torch.no_grad():
        torch.manual_seed(99)
        plain = op(arguments[0], *arguments[1], **arguments[2])
        expected = tensors_of(plain)
        if case.way == "out resized":
            outs = [t.new_empty((0,)) for t in expected]
        else:
            outs = [torch.empty_like(t.mT if t.dim() > 1 else t).fill_(1) for t in expected]
            outs = [o.mT if o.dim() > 1 else o for o in outs]
        torch.manual_seed(99)
        result = op(arguments[0], *arguments[1], **arguments[2],
                    out=outs[0] if isinstance(plain, torch.Tensor) else tuple(outs))  # fmt: skip
    return [*tensors_of(result), *outs], []


def call_gradcheck(op: Any, case: Case, device: torch.device) -> tuple[list[Any], list[Any]]:
    arguments = arguments_on(op, case.sample, device)
    leaves = [leaf for leaf in tensors_of(arguments) if leaf.requires_grad]

    def function(*_: torch.Tensor) -> Any:
        torch.manual_seed(99)
        return case.sample.output_process_fn_grad(
            op.gradcheck_wrapper(op.get_op(), arguments[0], *arguments[1], **arguments[2])
        )

    passed = torch.autograd.gradcheck(
        function, leaves, fast_mode=op.gradcheck_fast_mode, nondet_tol=op.gradcheck_nondet_tol
    )
    return [passed], []


def call(op: Any, case: Case, device: torch.device) -> tuple[list[Any], list[Any]]:
    if case.way in ("out", "out resized"):
        return call_out(op, case, device)
    if case.way == "gradcheck":
        return call_gradcheck(op, case, device)
    return call_function(op, case, device)


def meaningful_strides(tensor: torch.Tensor) -> list[int]:
    if tensor.numel() == 0:
        return []
    return [stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True) if size > 1]


def same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    """One NaN is like another, and -0.0 is not 0.0."""
    if one.numel() == 0:
        return True
    if one.is_complex():
        return same_bits(torch.view_as_real(one), torch.view_as_real(other))
    one, other = (t.reshape(-1).clone(memory_format=torch.contiguous_format) for t in (one, other))
    if one.dtype.is_floating_point and one.element_size() > 1:
        nan = other.isnan()
        if not torch.equal(one.isnan(), nan):
            return False
        one, other = one.masked_fill(nan, 0), other.masked_fill(nan, 0)
    return torch.equal(one.view(torch.uint8), other.view(torch.uint8))


def shape(t: torch.Tensor) -> str:
    return f"{tuple(t.shape)} {t.dtype} {t.layout}"


def flags(t: torch.Tensor) -> str:
    return f"requires_grad {t.requires_grad}, conj {t.is_conj()}, neg {t.is_neg()}"


def compare(got: list[Any], expected: list[Any], what: str, values: bool) -> tuple[str, str]:
    """(verdict, detail)"""
    if len(got) != len(expected):
        return f"{what}: number", f"{len(got)} instead of {len(expected)}"
    other_strides = ""
    for index, (one, other) in enumerate(zip(got, expected, strict=True)):
        if not isinstance(other, torch.Tensor):
            if other != other or one == other or type(other) is torch.device:
                continue
            return f"{what}: value", f"{index}: {one!r} instead of {other!r}"
        if not isinstance(one, torch.Tensor):
            return f"{what}: type", f"{index}: {type(one)}"
        if shape(one) != shape(other):
            return f"{what}: geometry", f"{index}: {shape(one)} instead of {shape(other)}"
        if flags(one) != flags(other):
            return f"{what}: flags", f"{index}: {flags(one)} instead of {flags(other)}"
        if other.layout != torch.strided:
            continue
        if meaningful_strides(one) != meaningful_strides(other):
            other_strides = other_strides or f"{index}: {one.stride()} instead of {other.stride()} of {other.shape}"
        local = one.detach().cpu().resolve_conj().resolve_neg()
        other = other.detach().resolve_conj().resolve_neg()
        if values and not same_bits(local, other):
            try:
                torch.testing.assert_close(local, other, equal_nan=True)
            except AssertionError as error:
                return f"{what}: value", f"{index}: {' '.join(str(error).split())[:300]}"
            off = (torch.view_as_real(t) if t.is_complex() else t.double() for t in (local, other))
            return f"{what}: bits", f"{index}: at most {torch.sub(*off).abs().max().item():.3g} off"
    return ("strides", other_strides) if other_strides else ("agreed", "")


def attempt(work: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return work(), None
    except Exception as error:
        return None, error


def words(error: Exception) -> str:
    """The first line without what names the device, and without the operator that a server adds at the end."""
    text = str(error).strip().splitlines()
    line = re.sub(r" \[operator .*; record \d+\]$", "", text[0]) if text else ""
    # Names of tensor types hold the device's.
    line = re.sub(r"\btorch\.(?:sky\.)?(\w+)Tensor\b|\b(?:CPU|sky)(\w+)Type\b", r"\1\2", line)
    return re.sub(r"\b(sky(:\d+)?|privateuseone(:\d+)?|PrivateUse1|cpu|CPU)\b", "DEVICE", line)


def read(results: Any) -> Any:
    """Waits for what was computed, so that what fails on the server is raised here."""
    for tensor in tensors_of(results):
        if tensor.layout == torch.strided:
            tensor.detach().cpu()
    torch.sky.synchronize()
    return results


def outcome(
    name: str, op: Any, case: Case, device: torch.device, before_device: Callable[[], None]
) -> Outcome | None:
    """None: the CPU itself has no such case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, refusal = attempt(lambda: call(op, case, CPU))
        if case.way == "error" and refusal is None:
            return None
        before_device()
        observed()
        got, error = attempt(lambda: call(op, case, device))
        waits = observed()
        late = error is None
        if late:
            _, error = attempt(lambda: read(got))
        if refusal is not None or error is not None:
            return compare_refusals(name, case, error, refusal, late)
        values = name.split("@")[0] not in UNINITIALISED | RESIZED
        verdict, detail = compare(got[0], expected[0], "forward", values)
        if verdict in ("agreed", "strides"):
            of_gradients, more = compare(got[1], expected[1], "backward", values)
            if of_gradients != "agreed":
                verdict, detail = of_gradients, more
        return Outcome(name, case.label, verdict, detail, waits)


def compare_refusals(
    name: str, case: Case, error: Exception | None, refusal: Exception | None, late: bool
) -> Outcome:
    if refusal is None:
        assert error is not None
        return Outcome(name, case.label, f"raised {type(error).__name__}", str(error)[:500])
    if error is None:
        return Outcome(name, case.label, "not refused", f"{type(refusal).__name__}: {refusal}"[:500])
    if type(error) is not type(refusal):
        return Outcome(name, case.label, "refused by another type", f"{error!r} instead of {refusal!r}"[:800])
    if words(error) != words(refusal):
        both = f"{words(error)} INSTEAD OF {words(refusal)}"
        return Outcome(name, case.label, "refused in other words", both[:800])
    if late:
        return Outcome(name, case.label, "refused late", str(error)[:500])
    return Outcome(name, case.label, "refused alike")
