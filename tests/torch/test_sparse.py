"""Sparse tensors: COO, and the compressed layouts. Each program runs on the cpu and on the device; what it returns is
compared by layout, sizes, components and flags."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable

import pytest
import torch
from compare import assert_same, run_seeded
from torch import nn
from torch.nn import functional as F

pytestmark = pytest.mark.filterwarnings("ignore:Sparse")

Program = Callable[[torch.device], object]


def coo(device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """4 x 5, one index twice, so that it is not coalesced."""
    indices = torch.tensor([[0, 2, 2, 3, 1, 2], [1, 0, 4, 3, 2, 0]])
    values = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], dtype=dtype)
    return torch.sparse_coo_tensor(indices, values, (4, 5), device=device)


def hybrid(device: torch.device) -> torch.Tensor:
    indices = torch.tensor([[0, 2, 2], [1, 0, 4]])
    return torch.sparse_coo_tensor(indices, torch.randn(3, 2), (4, 5, 2), device=device)


def csr(device: torch.device, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.sparse_csr_tensor(
        torch.tensor([0, 1, 3, 3, 4]), torch.tensor([1, 0, 4, 2]), torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype),
        (4, 5), device=device)  # fmt: skip


def other(device: torch.device) -> torch.Tensor:
    return torch.sparse_coo_tensor([[0, 1, 2], [1, 1, 0]], [1.0, 2.0, 3.0], (4, 5), device=device).coalesce()


def components(value: object) -> object:
    """Sparse tensors as their layout, sizes, flags and dense components, which `assert_same` can compare."""
    if isinstance(value, (list, tuple)):
        return [components(one) for one in value]
    if not isinstance(value, torch.Tensor) or value.layout == torch.strided:
        return value
    value = value.detach()
    if value.layout == torch.sparse_coo:
        parts = (value._indices(), value._values(), value.is_coalesced())
    elif value.layout in (torch.sparse_csr, torch.sparse_bsr):
        parts = (value.crow_indices(), value.col_indices(), value.values())
    else:
        parts = (value.ccol_indices(), value.row_indices(), value.values())
    # Torch's kernels leave room for more values than they find, here as there, but not as much.
    compact = [
        part.clone(memory_format=torch.contiguous_format) if isinstance(part, torch.Tensor) else part
        for part in parts
    ]
    return [str(value.layout), list(value.shape), str(value.dtype), *compact]


@pytest.fixture
def same_components(device) -> Callable[[Program], None]:
    def check(program: Program, **tolerances: object) -> None:
        def run(on: torch.device) -> object:
            torch.manual_seed(1234)
            return components(program(on))

        expected = run_seeded(run, torch.device("cpu"))
        assert_same(run_seeded(run, device), expected, device, **tolerances)

    return check


def leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().requires_grad_()


COO: dict[str, Program] = {
    "construct": lambda d: coo(d),
    "construct_from_device_tensors": lambda d: torch.sparse_coo_tensor(
        torch.tensor([[0, 1]], device=d), torch.tensor([1.0, 2.0], device=d), (3,)
    ),
    "construct_inferred_size": lambda d: torch.sparse_coo_tensor([[0, 1], [2, 0]], [1.0, 2.0], device=d),
    "construct_empty": lambda d: torch.sparse_coo_tensor((2, 3), device=d),
    "hybrid": lambda d: [hybrid(d), hybrid(d).coalesce(), hybrid(d).to_dense()],
    "zeros": lambda d: torch.zeros(2, 3, layout=torch.sparse_coo, device=d),
    "coalesce": lambda d: coo(d).coalesce(),
    "metadata": lambda d: [
        coo(d)._nnz(),
        coo(d).sparse_dim(),
        coo(d).dense_dim(),
        coo(d).is_sparse,
        coo(d).is_coalesced(),
        coo(d).numel(),
    ],
    "indices_values": lambda d: [coo(d).coalesce().indices().contiguous(), coo(d).coalesce().values()],
    "to_sparse": lambda d: (torch.eye(3) * 2).to(d).to_sparse(),
    "to_sparse_dims": lambda d: torch.randn(3, 4).relu().to(d).to_sparse(1),
    "to_dense": lambda d: coo(d).to_dense(),
    "to_and_from_cpu": lambda d: [coo(torch.device("cpu")).to(d), coo(d).cpu()],
    "to_dtype": lambda d: [coo(d).to(torch.float64), coo(d).double(), coo(d).int()],
    "clone_detach": lambda d: [coo(d).clone(), coo(d).detach(), torch.empty_like(coo(d)), torch.zeros_like(coo(d))],
    "copy_": lambda d: torch.zeros(4, 5, device=d).to_sparse().copy_(coo(d)),
    "add": lambda d: [coo(d) + other(d), other(d) - coo(d), torch.ones(4, 5, device=d) + coo(d)],
    "add_alpha": lambda d: torch.add(coo(d), other(d), alpha=2),
    "add_": lambda d: [coo(d).add_(other(d)), torch.ones(4, 5, device=d).add_(coo(d), alpha=-0.5)],
    "mul": lambda d: [coo(d) * other(d), coo(d) * 3, coo(d) * torch.ones(4, 5, device=d), 2 * coo(d), coo(d) / 2],
    "mul_": lambda d: [coo(d).mul_(2), coo(d).div_(4), coo(d).zero_()],
    "neg_abs": lambda d: [-coo(d), (-coo(d)).abs()],
    "mm": lambda d: [torch.sparse.mm(coo(d), torch.ones(5, 3, device=d)), coo(d) @ torch.ones(5, 3, device=d)],
    "mm_sparse": lambda d: torch.sparse.mm(coo(d), other(d).t()),
    "mv": lambda d: coo(d) @ torch.arange(5.0).to(d),
    "addmm": lambda d: [
        torch.sparse.addmm(torch.ones(4, 2, device=d), coo(d), torch.ones(5, 2, device=d), beta=0.5, alpha=2),
        torch.addmm(torch.ones(4, 2, device=d), coo(d), torch.ones(5, 2, device=d)),
    ],
    "mm_out": lambda d: torch.mm(coo(d), torch.ones(5, 3, device=d), out=torch.empty(4, 3, device=d)),
    "bmm": lambda d: torch.stack([coo(d), other(d)]).bmm(torch.ones(2, 5, 3, device=d)),
    "hspmm_sspaddmm": lambda d: [
        torch.hspmm(coo(d), torch.ones(5, 2, device=d)),
        torch.sspaddmm(other(d), coo(d), torch.ones(5, 5, device=d)),
    ],
    "sum": lambda d: [torch.sparse.sum(coo(d)), torch.sparse.sum(coo(d), 0), torch.sparse.sum(coo(d), dim=[0, 1])],
    "softmax": lambda d: [torch.sparse.softmax(coo(d), 1), torch.sparse.log_softmax(coo(d), 0)],
    "sparse_mask": lambda d: torch.arange(20.0).reshape(4, 5).to(d).sparse_mask(other(d)),
    "sparse_mask_sparse": lambda d: coo(d).coalesce().sparse_mask(other(d)),
    "transpose": lambda d: [coo(d).t(), coo(d).transpose(0, 1).coalesce(), coo(d).permute(1, 0), coo(d).unsqueeze(0)],
    "cat_stack": lambda d: [torch.cat([coo(d), other(d)]), torch.stack([coo(d), other(d)])],
    "index": lambda d: [
        coo(d).index_select(0, torch.tensor([2, 0], device=d)),
        coo(d).narrow_copy(0, 1, 2),
        coo(d)[2],
    ],
    "norm": lambda d: [coo(d).norm(), coo(d).coalesce().pow(2)],
    "unary": lambda d: [
        getattr(torch, name)(coo(d))
        for name in (
            "sin",
            "tanh",
            "sqrt",
            "erf",
            "sign",
            "floor",
            "ceil",
            "round",
            "log1p",
            "isnan",
            "signbit",
            "relu",
        )
    ],
    "unary_": lambda d: [getattr(other(d), name)() for name in ("sin_", "neg_", "sqrt_", "tanh_", "relu_", "abs_")],
    "any": lambda d: coo(d).bool().any(),
    "broadcast_to": lambda d: torch._sparse_broadcast_to(coo(d)[2].unsqueeze(0).coalesce(), (3, 5)),
    "is_same_size": lambda d: coo(d).is_same_size(other(d)),
    "dtypes": lambda d: [coo(d, t).coalesce() for t in (torch.int64, torch.float64, torch.bfloat16, torch.complex64)],
}


@pytest.mark.parametrize("name", COO)
def test_coo(same_components, name):
    same_components(COO[name])


CSR: dict[str, Program] = {
    "construct": lambda d: csr(d),
    "construct_inferred_size": lambda d: torch.sparse_csr_tensor([0, 1, 2], [1, 0], [1.0, 2.0], device=d),
    "other_layouts": lambda d: [
        torch.sparse_csc_tensor([0, 1, 2], [1, 0], [1.0, 2.0], (2, 2), device=d),
        torch.sparse_bsr_tensor([0, 1], [0], [[[1.0, 2.0], [3.0, 4.0]]], (2, 2), device=d),
        torch.sparse_bsc_tensor([0, 1], [0], [[[1.0, 2.0], [3.0, 4.0]]], (2, 2), device=d),
    ],
    "parts": lambda d: [
        csr(d).crow_indices(),
        csr(d).col_indices(),
        csr(d).values(),
        csr(d)._nnz(),
        csr(d).is_sparse_csr,
    ],
    "from_dense": lambda d: [
        torch.eye(4).to(d).to_sparse_csr(),
        torch.eye(4).to(d).to_sparse_csc(),
        torch.eye(4).to(d).to_sparse_bsr((2, 2)),
        torch.eye(4).to(d).to_sparse_bsc((2, 2)),
        torch.eye(4).to(d).to_sparse(layout=torch.sparse_csr),
    ],
    "to_dense": lambda d: csr(d).to_dense(),
    "between_layouts": lambda d: [
        csr(d).to_sparse(),
        coo(d).to_sparse_csr(),
        csr(d).to_sparse_csc(),
        csr(d).to_sparse_csc().to_sparse_csr(),
        csr(d).to_sparse_csc().to_dense(),
        torch.eye(4).to(d).to_sparse_bsr((2, 2)).to_dense(),
    ],
    "to_and_from_cpu": lambda d: [csr(torch.device("cpu")).to(d), csr(d).cpu()],
    "to_dtype": lambda d: csr(d).to(torch.float64),
    "clone_detach": lambda d: [csr(d).clone(), csr(d).detach(), torch.zeros_like(csr(d))],
    "mm": lambda d: [torch.sparse.mm(csr(d), torch.ones(5, 3, device=d)), csr(d) @ torch.ones(5, 3, device=d)],
    "mm_sparse": lambda d: csr(d) @ torch.eye(5).to(d).to_sparse_csr(),
    "mv": lambda d: csr(d) @ torch.arange(5.0).to(d),
    "addmm": lambda d: torch.addmm(torch.ones(4, 2, device=d), csr(d), torch.ones(5, 2, device=d), beta=0.5),
    "csc_mm": lambda d: csr(d).to_sparse_csc() @ torch.ones(5, 3, device=d),
    "bsr_mm": lambda d: torch.eye(4).to(d).to_sparse_bsr((2, 2)) @ torch.ones(4, 3, device=d),
    "add": lambda d: [csr(d) + csr(d), torch.ones(4, 5, device=d) + csr(d), csr(d) * 2, csr(d) * csr(d)],
    "sum": lambda d: [csr(d).sum(), torch._sparse_csr_sum(csr(d), 1, True), torch._sparse_csr_prod(csr(d), 0, True)],
    "unary": lambda d: [
        getattr(torch, name)(csr(d)) for name in ("sin", "tanh", "sqrt", "neg", "abs", "sign", "relu")
    ],
    "unary_": lambda d: [getattr(csr(d), name)() for name in ("sin_", "neg_", "sqrt_", "relu_", "zero_")],
    "sampled_addmm": lambda d: torch.sparse.sampled_addmm(
        csr(d), torch.ones(4, 3, device=d), torch.ones(3, 5, device=d)
    ),
    "sparse_mask": lambda d: torch.arange(20.0).reshape(4, 5).to(d).sparse_mask(csr(d)),
    "transpose": lambda d: csr(d).t(),
    "select": lambda d: csr(d)[1],
}


@pytest.mark.parametrize("name", CSR)
def test_compressed(same_components, name):
    same_components(CSR[name])


def grads(*tensors: torch.Tensor) -> list[object]:
    return [tensor.grad for tensor in tensors]


def backward_mm(device):
    a, b = leaf(coo(device)), leaf(torch.arange(15.0).reshape(5, 3).to(device))
    torch.sparse.mm(a, b).square().sum().backward()
    return grads(a, b)


def backward_values(device):
    values = leaf(torch.tensor([1.0, 2.0, 3.0]).to(device))
    matrix = torch.sparse_coo_tensor([[0, 1, 1], [0, 1, 1]], values, (2, 2), device=device)
    (matrix @ torch.ones(2, 2, device=device)).square().sum().backward()
    return grads(values)


def backward_dense(device):
    x = leaf(torch.randn(3, 4).to(device))
    (x.relu().to_sparse() * 2).to_dense().square().sum().backward()
    return grads(x)


def backward_softmax(device):
    a = leaf(coo(device).coalesce())
    torch.sparse.softmax(a, 1).to_dense().square().sum().backward()
    return grads(a)


def backward_sum(device):
    a = leaf(coo(device).coalesce())
    torch.sparse.sum(a, 0).to_dense().square().sum().backward()
    return grads(a)


def backward_csr(device):
    values, b = leaf(torch.tensor([1.0, 2.0]).to(device)), leaf(torch.ones(2, 3).to(device))
    matrix = torch.sparse_csr_tensor(torch.tensor([0, 1, 2]), torch.tensor([1, 0]), values, (2, 2), device=device)
    (matrix @ b).square().sum().backward()
    return grads(values, b)


def backward_sampled(device):
    a, b = leaf(torch.randn(4, 3).to(device)), leaf(torch.randn(3, 5).to(device))
    torch.sparse.sampled_addmm(csr(device), a, b).to_dense().square().sum().backward()
    return grads(a, b)


BACKWARD = [
    backward_mm, backward_values, backward_dense, backward_softmax, backward_sum, backward_csr, backward_sampled,
]  # fmt: skip


@pytest.mark.parametrize("program", BACKWARD, ids=lambda f: f.__name__)
def test_backward(same_components, program):
    same_components(program)


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "sgd_momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.1),
    "sparse_adam": lambda p: torch.optim.SparseAdam(p, lr=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_sparse_embedding_trains(same_components, name):
    def program(device):
        table = nn.Embedding(10, 4, sparse=True).to(device)
        optimizer = OPTIMIZERS[name](list(table.parameters()))
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            loss = table(torch.tensor([1, 4, 1, step], device=device)).square().sum()
            loss.backward()
            losses.append(table.weight.grad.coalesce())
            optimizer.step()
        return [*losses, table.weight.detach()]

    same_components(program)


def test_sparse_embedding_bag(same_components):
    def program(device):
        bag = nn.EmbeddingBag(10, 4, sparse=True, mode="sum").to(device)
        bag(torch.tensor([1, 2, 4, 1], device=device), torch.tensor([0, 2], device=device)).sum().backward()
        return bag.weight.grad.coalesce()

    same_components(program)


def test_graph_convolution_trains(same_components):
    def program(device):
        adjacency = (torch.rand(6, 6) > 0.5).float().to_sparse_csr().to(device)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).to(device)
        x, y = torch.randn(6, 4).to(device), torch.randint(0, 2, (6,)).to(device)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        losses = []
        for _ in range(4):
            optimizer.zero_grad()
            loss = F.cross_entropy(adjacency @ model(x), y)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return losses

    same_components(program)


@pytest.mark.parametrize("make", [coo, csr, hybrid], ids=lambda f: f.__name__)
def test_printing(device, make):
    torch.manual_seed(1234)
    expected = repr(make(torch.device("cpu")))
    torch.manual_seed(1234)
    if device.type == "cpu":
        assert repr(make(device)) == expected
        return
    shown = repr(make(device))
    for name in (f", device='{device}'", f"device='{device}', "):
        shown = shown.replace(name, "")
    assert " ".join(shown.split()) == " ".join(expected.split())


MISTAKES: dict[str, Program] = {
    "index_out_of_range": lambda d: torch.sparse_coo_tensor(
        [[0, 5]], [1.0, 2.0], (3,), device=d, check_invariants=True
    ),
    "negative_index": lambda d: torch.sparse_coo_tensor([[0, -1]], [1.0, 2.0], (3,), device=d, check_invariants=True),
    "mm_shapes": lambda d: torch.sparse.mm(coo(d), torch.ones(4, 3, device=d)),
    "add_shapes": lambda d: coo(d) + torch.sparse_coo_tensor((2, 2), device=d),
    "add_dense_shapes": lambda d: torch.ones(2, 2, device=d).add_(coo(d)),
    "values_of_uncoalesced": lambda d: coo(d).values(),
    "no_kernel": lambda d: coo(d).cumsum(0),
    "data_of_another_layout": lambda d: setattr(nn.Parameter(torch.ones(4, 5, device=d)), "data", coo(d)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_raise_what_the_cpu_raises(device, name):
    with pytest.raises(Exception) as expected:  # noqa: PT011
        MISTAKES[name](torch.device("cpu"))
    with pytest.raises(type(expected.value)) as got:
        MISTAKES[name](device)
    if name != "no_kernel":  # names the backend's own list of kernels
        assert str(got.value).startswith(str(expected.value).splitlines()[0])


@pytest.mark.remote
def test_indices_outside_are_an_error_and_not_a_crash(device):
    """The cpu does not look unless it is told to, and then reads and writes where they say."""
    indices = torch.tensor([[0, 5]], device=device)
    wrong = torch.sparse_coo_tensor(indices, torch.ones(2, device=device), (3,), check_invariants=False)
    with pytest.raises(RuntimeError, match="size is inconsistent with indices"):
        wrong.coalesce()
    assert coo(device).coalesce()._nnz() == 5


@pytest.mark.remote
@pytest.mark.parametrize("make", [coo, csr], ids=lambda f: f.__name__)
def test_a_mix_of_devices_is_refused(device, make):
    with pytest.raises(RuntimeError, match="Expected all tensors to be on the same device"):
        make(device) @ torch.ones(5, 2)


@pytest.mark.parametrize("make", [coo, csr], ids=lambda f: f.__name__)
def test_save_and_copy(same_components, make):
    def program(on):
        held = io.BytesIO()
        torch.save(make(on), held)
        held.seek(0)
        return [torch.load(held, map_location=on), copy.deepcopy(coo(on))]

    same_components(program)
