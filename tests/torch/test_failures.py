"""Mistakes raise torch's own exception at the line that made them; failures on the server name their op and follow
the data: what depends on a failed op raises its error, what does not goes on working."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from servers import local_compute
from torch import nn
from torch.nn import functional as F

MISTAKES: dict[str, Callable[[torch.device], object]] = {
    "add_shapes": lambda d: torch.ones(2, 3, device=d) + torch.ones(4, device=d),
    "matmul_shapes": lambda d: torch.ones(2, 3, device=d) @ torch.ones(2, 3, device=d),
    "matmul_dtypes": lambda d: torch.ones(2, 2, device=d) @ torch.ones(2, 2, device=d, dtype=torch.float64),
    "bmm_rank": lambda d: torch.bmm(torch.ones(2, 2, device=d), torch.ones(2, 2, device=d)),
    "cat_shapes": lambda d: torch.cat([torch.ones(2, 3, device=d), torch.ones(2, 4, device=d)]),
    "stack_shapes": lambda d: torch.stack([torch.ones(2, device=d), torch.ones(3, device=d)]),
    "view_size": lambda d: torch.ones(6, device=d).view(4),
    "reshape_size": lambda d: torch.ones(6, device=d).reshape(5, -1),
    "view_of_transposed": lambda d: torch.ones(2, 3, device=d).t().view(6),
    "expand": lambda d: torch.ones(2, 3, device=d).expand(4, 3),
    "dim_out_of_range": lambda d: torch.ones(2, device=d).sum(dim=3),
    "index_out_of_range": lambda d: torch.ones(2, device=d)[5],
    "too_many_indices": lambda d: torch.ones(2, device=d)[0, 0],
    "in_place_dtype": lambda d: torch.ones(2, dtype=torch.int64, device=d).add_(1.5),
    "in_place_broadcast": lambda d: torch.ones(2, device=d).add_(torch.ones(3, 2, device=d)),
    "out_dtype": lambda d: torch.add(torch.ones(2, device=d), 1, out=torch.ones(2, dtype=torch.int32, device=d)),
    "leaf_in_place": lambda d: torch.ones(2, device=d, requires_grad=True).add_(1),
    "grad_of_integers": lambda d: torch.ones(2, dtype=torch.int64, device=d).requires_grad_(),
    "backward_of_vector": lambda d: (torch.ones(2, device=d, requires_grad=True) * 2).backward(),
    "conv_channels": lambda d: F.conv2d(torch.ones(1, 2, 5, 5, device=d), torch.ones(3, 4, 3, 3, device=d)),
    "conv_kernel_too_big": lambda d: F.conv2d(torch.ones(1, 1, 2, 2, device=d), torch.ones(1, 1, 3, 3, device=d)),
    "linear_features": lambda d: nn.Linear(3, 2).to(d)(torch.ones(2, 4, device=d)),
    "layer_norm_shape": lambda d: F.layer_norm(torch.ones(2, 3, device=d), (4,)),
    "batch_norm_one_value": lambda d: nn.BatchNorm1d(3).to(d)(torch.ones(1, 3, device=d)),
    "embedding_dtype": lambda d: F.embedding(torch.ones(2, device=d), torch.ones(3, 2, device=d)),
    "cross_entropy_shapes": lambda d: F.cross_entropy(torch.ones(3, 2, device=d), torch.ones(2, device=d).long()),
    "item_of_many": lambda d: torch.ones(3, device=d).item(),
    "bool_of_many": lambda d: bool(torch.ones(3, device=d)),
    "copy_shapes": lambda d: torch.ones(3, device=d).copy_(torch.ones(4)),
    "upload_into_wrong_shape": lambda d: torch.ones(3).copy_(torch.ones(4, device=d)),
    "gather_dtype": lambda d: torch.ones(3, device=d).gather(0, torch.ones(3, device=d)),
    "cholesky_not_square": lambda d: torch.linalg.cholesky(torch.ones(2, 3, device=d)),
    "softmax_dim": lambda d: torch.ones(2, device=d).softmax(2),
    "topk_too_many": lambda d: torch.ones(2, device=d).topk(3),
    "negative_size": lambda d: torch.empty(-1, device=d),
    "bitwise_of_floats": lambda d: torch.ones(2, device=d) & torch.ones(2, device=d),
    "string_argument": lambda d: F.gelu(torch.ones(2, device=d), approximate="erf"),
    "dropout_probability": lambda d: F.dropout(torch.ones(2, device=d), 1.5),
    "copy_into_expanded": lambda d: torch.ones(3, device=d).expand(2, 3).copy_(torch.ones(4, device=d)),
    "upload_into_expanded": lambda d: torch.ones(3, device=d).expand(2, 3).copy_(torch.ones(2, 3)),
    "copy_onto_itself_turned": lambda d: (lambda x: x.t().copy_(x))(torch.ones(4, 4, device=d)),
    "copy_onto_a_part_of_itself": lambda d: (lambda x: x[:2].copy_(x[1:]))(torch.ones(4, 4, device=d)),
    "random_of_complex": lambda d: torch.ones(2, dtype=torch.complex64, device=d).random_(),
    "negative_power_of_integers": lambda d: torch.ones(2, dtype=torch.int64, device=d).pow(-2),
    "exponential_of_integers": lambda d: torch.ones(2, dtype=torch.int64, device=d).exponential_(),
    "too_many_dims": lambda d: torch.ones(1, device=d).view([1] * 65).amax(0),
    "linspace_of_vectors": lambda d: torch.linspace(torch.ones(2, device=d), torch.ones(2, device=d), 3),
    "normal_of_integers": lambda d: torch.ones(2, dtype=torch.int64, device=d).normal_(),
    "abs_of_truth": lambda d: torch.ones(2, dtype=torch.bool, device=d).abs_(),
    "hypot_of_integers": lambda d: torch.hypot(torch.ones(2, device=d).int(), torch.ones(2, device=d).int()),
    "bucketize_matrix": lambda d: torch.bucketize(torch.ones(2, device=d), torch.ones(2, 2, device=d)),
    "complex_of_integers": lambda d: torch.complex(torch.ones(2, device=d), torch.ones(2, device=d).int()),
    "where_dtype": lambda d: torch.where(torch.ones(2, device=d), 1.0, 2.0),
}  # fmt: skip


def test_a_parameter_out_of_range_after_one_that_was_not(device):
    """The number is checked though the call has the shape of one that was sent before."""
    x = torch.ones(3, device=device)
    x.uniform_(0, 1).normal_(0, 1).exponential_(1)
    whole = torch.ones(3, dtype=torch.int64, device=device)
    whole.pow(2)
    with pytest.raises(RuntimeError, match="negative integer powers"):
        whole.pow(-2)
    for wrong in (lambda: x.uniform_(3, -1), lambda: x.normal_(0, -1), lambda: x.exponential_(0)):
        with pytest.raises(RuntimeError, match="expects"):
            wrong()


def error_of(program: Callable[[torch.device], object], device: torch.device) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the type is what is compared
        program(device)
    return caught.value


def first_sentence(error: BaseException) -> str:
    """The message without what may differ: device names, C++ frames, and the operator that the server appends."""
    text = re.sub(r" \[operator .*\]$", "", str(error).splitlines()[0])
    return re.sub(r"\bsky(:\d+)?\b|PrivateUse1|privateuseone(:\d+)?", "cpu", text, flags=re.IGNORECASE)


@pytest.mark.parametrize("name", MISTAKES)
def test_mistake_raises_at_its_line_as_locally(device, name):
    expected = error_of(MISTAKES[name], torch.device("cpu"))
    got = error_of(MISTAKES[name], device)
    assert type(got) is type(expected), got
    assert first_sentence(got).replace("CPU", "cpu") == first_sentence(expected).replace("CPU", "cpu")


@pytest.mark.remote
def test_mixing_devices_is_an_error_at_the_line(device):
    x = torch.ones(3, device=device)
    with pytest.raises(RuntimeError, match="same device"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="device"):
        nn.Linear(3, 2)(x)


SERVER_FAILURES: dict[str, tuple[Callable[[torch.device], torch.Tensor], type[Exception], str]] = {
    "index": (
        lambda d: torch.arange(3.0, device=d)[torch.tensor([7], device=d)], IndexError, r"index"),
    "embedding": (
        lambda d: F.embedding(torch.tensor([9], device=d), torch.ones(3, 2, device=d)), IndexError, r"embedding"),
    "gather": (
        lambda d: torch.ones(3, device=d).gather(0, torch.tensor([4], device=d)), RuntimeError, r"gather"),
    "nll_target": (
        lambda d: F.nll_loss(torch.zeros(2, 3, device=d), torch.tensor([0, 5], device=d)), IndexError, r"nll_loss"),
    "integer_division": (
        lambda d: torch.ones(3, dtype=torch.int64, device=d) // torch.zeros(3, dtype=torch.int64, device=d),
        RuntimeError, r"div"),
    "multinomial": (
        lambda d: torch.multinomial(torch.full((3,), -1.0, device=d), 1), RuntimeError, r"multinomial"),
}  # fmt: skip


@pytest.mark.remote
@pytest.mark.parametrize("name", SERVER_FAILURES)
def test_failure_on_the_server(device, name):
    """The first wait raises torch's type, naming op and shapes; only what depends on it is lost."""
    program, kind, operator = SERVER_FAILURES[name]
    independent = torch.arange(4.0, device=device)
    failed = program(device)
    dependant = failed * 2 + 1
    untouched = independent + 1
    with pytest.raises(kind) as caught:
        dependant.cpu()
    message = str(caught.value)
    assert re.search(operator, message), message
    assert re.search(r"\[\d*(, \d+)*\]|\(\d*,?( \d+)*\)", message), f"no shapes in: {message}"
    with pytest.raises(kind):  # it stays poisoned
        failed.sum().item()
    assert untouched.cpu().tolist() == [1, 2, 3, 4]
    assert (independent * 2).sum().item() == 12


@pytest.mark.remote
def test_poison_reaches_what_is_written_to(device):
    target = torch.zeros(3, device=device)
    other = torch.zeros(3, device=device)
    bad = torch.arange(3.0, device=device)[torch.tensor([5], device=device)]
    target.add_(bad)
    with pytest.raises(IndexError):
        target.cpu()
    other.add_(1)
    assert other.sum().item() == 3


@pytest.mark.remote
def test_synchronize_raises_an_unread_poison_once(device):
    torch.arange(3.0, device=device)[torch.tensor([5], device=device)]
    with pytest.raises(IndexError, match="index"):
        torch.sky.synchronize(device)
    torch.sky.synchronize(device)


@pytest.mark.remote
def test_failure_in_backward(device):
    weight = torch.ones(3, device=device, requires_grad=True)
    beyond = torch.tensor([7], device=device)
    (weight * torch.ones(3, device=device)[beyond]).sum().backward()
    with pytest.raises(IndexError, match="index"):
        weight.grad.cpu()


def test_linalg_errors_keep_their_type(device):
    """torch checks these itself, by reading a value back: they raise at their line."""
    with pytest.raises(torch.linalg.LinAlgError, match="positive-definite"):
        torch.linalg.cholesky(-torch.eye(3, device=device))
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        torch.linalg.inv(torch.zeros(3, 3, device=device))


@pytest.mark.remote
def test_out_of_memory_has_torchs_type(device):
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(1 << 50, dtype=torch.uint8, device=device).fill_(1).sum().item()
    assert torch.ones(3, device=device).sum().item() == 3


@pytest.mark.remote
def test_leaving_a_compute_raises_the_poison_that_nobody_read():
    with pytest.raises(IndexError, match="index"), local_compute("poisoned") as (node, _):
        torch.arange(3.0, device=node.device())[torch.tensor([5], device=node.device())]


@pytest.mark.remote
def test_another_exception_on_its_way_is_not_replaced():
    with pytest.raises(KeyError, match="mine"), local_compute("poisoned") as (node, _):  # noqa: PT012
        torch.arange(3.0, device=node.device())[torch.tensor([5], device=node.device())]
        raise KeyError("mine")


@pytest.mark.remote
def test_unsupported_operators_are_named(device):
    with pytest.raises((NotImplementedError, RuntimeError), match=r"from_file"):
        torch.ops.aten.from_file("/etc/hostname", size=1, dtype=torch.uint8, device=device)
    with pytest.raises((NotImplementedError, RuntimeError), match=r"mkldnn|Mkldnn"):
        torch.ones(3, 3, device=device).to_mkldnn()


@pytest.mark.remote
def test_unknown_operator_is_named(device):
    library = torch.library.Library("skytorch_test_errors", "DEF")
    library.define("nobody_has_this(Tensor x) -> Tensor")
    with pytest.raises((NotImplementedError, RuntimeError), match="nobody_has_this"):
        torch.ops.skytorch_test_errors.nobody_has_this(torch.ones(3, device=device))


@pytest.mark.remote
def test_use_after_close():
    import skytorch

    with local_compute("closed") as (node, process):
        device = node.device()
        x = torch.ones(3, device=device)
    assert not process.is_running()
    for use in (lambda: x + 1, x.cpu, lambda: x[0].item(), lambda: x.copy_(torch.ones(3))):
        with pytest.raises(skytorch.SessionClosed):
            use()
    for use in (lambda: torch.ones(3, device=device), node.device):
        with pytest.raises(skytorch.SkyTorchError):
            use()


@pytest.mark.remote
def test_device_that_the_server_lacks(compute):
    import skytorch

    with pytest.raises(skytorch.DeviceNotFound, match="cpu"):
        compute.device("cuda:7")
    assert issubclass(skytorch.DeviceNotFound, skytorch.SkyTorchError)
