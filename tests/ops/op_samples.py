"""What is run of op_db: for each operator, dtype and kind of test the cases, in an order that does not change.

A case is a sample of torch's own and how to call it: the function, the in-place method, or the function with out=
tensors. Kinds: `samples` (function forward and backward, in-place, out=), `errors` (what torch's tests expect to be
refused) and `gradcheck`. Nothing here knows of the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch_samples import error_inputs, operators, sample_inputs

DTYPES = ("float32", "int64", "bfloat16", "complex64", "bool")
KINDS = ("samples", "errors", "gradcheck")
LEFT_OUT = {
    "broadcast_shapes": "takes no tensor",
}

# Each evaluates its operator hundreds of times: one from each family of derivatives.
GRADCHECKED_NAMES = """
add mul div@no_rounding_mode pow matmul addmm bmm linalg.solve linalg.svdvals linalg.inv linalg.cholesky softmax
log_softmax logsumexp cumsum cumprod gather scatter_add index_select index_put masked_fill where cat stack
nn.functional.conv2d nn.functional.conv_transpose2d nn.functional.batch_norm nn.functional.layer_norm
nn.functional.group_norm nn.functional.max_pool2d nn.functional.avg_pool2d nn.functional.interpolate@bilinear
nn.functional.grid_sample nn.functional.embedding nn.functional.linear nn.functional.gelu nn.functional.silu
nn.functional.cross_entropy nn.functional.mse_loss nn.functional.scaled_dot_product_attention fft.fft fft.irfft stft
prod var std_mean norm cdist tanh sigmoid clamp amax topk unfold as_strided repeat tril einsum
"""


@dataclass(frozen=True)
class Case:
    label: str  # "float32 3 out": what a table or an exception may name
    sample: Any
    way: str  # "function", "in place", "out", "out resized", "error", "gradcheck"
    grad: bool = False


def all_operators() -> dict[str, Any]:
    """By name; `name@variant` where op_db has several entries of a name."""
    named = {op.name + (f"@{op.variant_test_name}" if op.variant_test_name else ""): op for op in operators()}
    return {name: op for name, op in named.items() if name not in LEFT_OUT and not name.startswith("jiterator")}


def cases(name: str, op: Any, kind: str, dtype_name: str, count: int | None) -> Iterator[Case]:
    """`count`: how many of an operator's samples, every third of the first; None is all."""
    torch.manual_seed(0)
    if kind == "errors":
        for index, error in enumerate(error_inputs(op)):
            yield Case(f"error {index}", error.sample_input, "error")
    elif kind == "gradcheck":
        if name in GRADCHECKED_NAMES.split():
            for index, sample in enumerate(sample_inputs(op, torch.float64, True, 2)):
                yield Case(f"gradcheck {index}", sample, "gradcheck", True)
    elif (dtype := getattr(torch, dtype_name)) in op.supported_dtypes("cpu"):
        grad = (dtype.is_floating_point or dtype.is_complex) and op.supports_autograd
        found = sample_inputs(op, dtype, grad, None if count is None else 3 * count)
        for index, sample in enumerate(found if count is None else found[::3]):
            label = f"{dtype_name} {index}"
            yield Case(label, sample, "function", grad)
            if op.get_inplace() is not None and not sample.broadcasts_input:
                yield Case(f"{label} in place", sample, "in place", grad and op.supports_inplace_autograd)
            if op.supports_out:
                yield Case(f"{label} out", sample, "out")
                yield Case(f"{label} out resized", sample, "out resized")
