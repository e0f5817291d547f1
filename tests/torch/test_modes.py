"""What watches or replaces operators: modes, subclasses, fake tensors, export, hooks, checkpoints."""

from __future__ import annotations

import io
import warnings

import pytest
import torch
import torch.nn.functional as F
from test_function_transforms import net
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    checkpoint_sequential,
    create_selective_checkpoint_contexts,
)


class Dispatched(TorchDispatchMode):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.log.append(str(function))
        return function(*args, **(kwargs or {}))


class Called(TorchFunctionMode):
    def __init__(self, log: list[str]) -> None:
        super().__init__()
        self.log = log

    def __torch_function__(self, function, types, args=(), kwargs=None):
        self.log.append(getattr(function, "__name__", str(function)))
        return function(*args, **(kwargs or {}))


def watched(device):
    """The same operators in the same order, forward and backward."""
    dispatched, called = [], []
    model, x = net(device), torch.randn(2, 3).to(device)
    with Dispatched(dispatched), Called(called):
        y = model(x)
        y.sum().backward()
        torch.ones(2, device=device).add_(1).view(-1)[0].item()
    return dispatched, called, y


def subclasses(device):
    from torch.testing._internal.two_tensor import TwoTensor

    class Named(torch.Tensor):
        pass

    x = torch.randn(3, 3).to(device)
    named, two = x.as_subclass(Named).sin() + 1, (TwoTensor(x, x.clone()) @ TwoTensor(x, x.clone())).sin()
    return type(named).__name__, named.as_subclass(torch.Tensor), two.a, two.b


def counted(device):
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        net(device)(torch.ones(2, 3, device=device)).sum().backward()
        F.conv2d(torch.ones(1, 1, 4, 4, device=device), torch.ones(1, 1, 2, 2, device=device))
    return counter.get_total_flops()


def fake(device):
    """Shapes and devices without a value, also of real tensors of the device that go in."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        image = nn.Conv2d(1, 2, 3, device=device)(torch.ones(1, 1, 5, 5, device=device))
        made = [
            nn.Linear(4, 2, device=device)(torch.empty(3, 4, device=device)),
            torch.arange(3, device=device),
            F.scaled_dot_product_attention(*[torch.ones(1, 2, 3, 4, device=device)] * 3),
            nn.BatchNorm2d(2, device=device)(image),
            nn.LSTM(2, 3, device=device)(torch.ones(1, 2, 2, device=device))[0],
            mode.from_tensor(torch.randn(3, 4).to(device)) @ torch.randn(4, 4, device=device),
        ]
    assert {x.device.type for x in made} == {device.type}
    return [(tuple(x.shape), x.stride(), x.dtype) for x in made], str(made[0].cpu().device)


class Exported(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.linear = nn.Conv2d(1, 2, 3), nn.Linear(2, 2)
        self.register_buffer("scale", torch.ones(2))

    def forward(self, x, factor):
        pooled = self.convolution(x).mean((2, 3))
        return self.linear(pooled) * self.scale * factor + torch.arange(2, device=x.device)


def exported(device):
    model, x = Exported().to(device), torch.randn(3, 1, 6, 6).to(device)
    program = torch.export.export(
        model, (x, 2.0), dynamic_shapes={"x": {0: torch.export.Dim("batch")}, "factor": None}
    )
    other, file = torch.ones(5, 1, 6, 6, device=device), io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    ways = (program, program.run_decompositions(), torch.export.load(file))
    return [way.module()(other, 2.0) for way in ways], len(program.state_dict)


def traced(device):
    from torch.fx.experimental.proxy_tensor import make_fx

    x = torch.randn(3, 3).to(device)
    graph = make_fx(lambda a: (a @ a).relu().sum())(x)
    branch = torch.cond(torch.tensor(True, device=device), torch.sin, torch.cos, (x,))
    symbolic = torch.fx.symbolic_trace(net(device))
    return graph(x), [str(node.target) for node in graph.graph.nodes], symbolic(x), branch


def hooked(device):
    log, model = [], net(device)
    first = model[0]
    first.register_forward_pre_hook(lambda module, inputs: log.append("before"))
    first.register_forward_hook(lambda module, inputs, output: log.append("after"))
    first.register_full_backward_pre_hook(lambda module, gradients: log.append("backward"))
    first.register_full_backward_hook(lambda module, inputs, outputs: log.append("done"))
    first.weight.register_post_accumulate_grad_hook(lambda p: log.append(p.grad.abs().sum()))
    x = torch.randn(2, 3).to(device).requires_grad_()
    x.register_hook(lambda gradient: gradient * 2)
    y = model(x)
    y.register_hook(lambda gradient: log.append(gradient))
    y.grad_fn.register_prehook(lambda gradients: log.append(len(gradients)))
    torch.autograd.graph.register_multi_grad_hook((first.weight, x), lambda gradients: log.append(len(gradients)))
    y.retain_grad()
    y.sum().backward()
    return log, x.grad, y.grad


def saved_elsewhere(device):
    x = torch.randn(3, 3).to(device).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.cpu(), lambda t: t.to(device)):
        first = (x.exp() @ x).sum()
    with torch.autograd.graph.save_on_cpu(pin_memory=device.type != "cpu", device_type=device.type):
        second = (x.sin() @ x).sum()
    (first + second).backward()
    return x.grad


def recomputed(device):
    """Dropout draws the same numbers again, and what comes after is as without checkpoints."""
    gradients = []
    for reentrant in (True, False):
        torch.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 4), nn.Dropout(0.3)).to(device)
        x = torch.randn(5, 4).to(device).requires_grad_()
        torch.manual_seed(3)
        plain = torch.autograd.grad(model(x).sum(), x)[0]
        after = torch.rand(3, device=device)
        torch.manual_seed(3)
        checkpoint(model, x, use_reentrant=reentrant).sum().backward()
        assert torch.equal(x.grad, plain)
        assert torch.equal(torch.rand(3, device=device), after)
        checkpoint_sequential(model, 2, x, use_reentrant=reentrant).sum().backward()
        with torch.autocast(device.type, dtype=torch.bfloat16):
            low = checkpoint(model, x, use_reentrant=reentrant)
        low.float().sum().backward()
        gradients += [low.dtype, x.grad, [p.grad for p in model.parameters()]]
    return gradients


def recomputed_in_part(device):
    def policy(context, operator, *args, **kwargs):
        keep = operator == torch.ops.aten.mm.default
        return CheckpointPolicy.MUST_SAVE if keep else CheckpointPolicy.PREFER_RECOMPUTE

    x = torch.randn(3, 3).to(device).requires_grad_()

    def contexts():
        return create_selective_checkpoint_contexts(policy)

    checkpoint(lambda a: (a @ a).sin() @ a, x, use_reentrant=False, context_fn=contexts).sum().backward()
    return x.grad


def deterministic(device):
    torch.use_deterministic_algorithms(True)
    try:
        x, twice = torch.zeros(3, device=device), torch.tensor([0, 0], device=device)
        x.index_add_(0, twice, torch.ones(2, device=device))
        x.scatter_add_(0, twice, torch.ones(2, device=device))
        x[twice] = torch.tensor([1.0, 2.0], device=device)
        with pytest.raises(RuntimeError, match="put_ does not have a deterministic implementation"):
            x.clone().put_(twice, torch.ones(2, device=device)).sum().item()
        return x, torch.empty(3, device=device)
    finally:
        torch.use_deterministic_algorithms(False)


PROGRAMS = (
    watched,
    subclasses,
    counted,
    fake,
    exported,
    traced,
    hooked,
    saved_elsewhere,
    recomputed,
    recomputed_in_part,
    deterministic,
)
TOLERANCES = {recomputed: {"rtol": 1e-2, "atol": 1e-2}}  # a part of it is bfloat16


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_program(same_on_both, program):
    same_on_both(program, **TOLERANCES.get(program, {}))


def test_anomaly_mode_names_the_line(device):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with torch.autograd.detect_anomaly():
            x = torch.tensor([-1.0]).to(device).requires_grad_()
            y = x.sqrt()  # this line
            with pytest.raises(RuntimeError, match=r"'SqrtBackward0' returned nan values in its 0th output"):
                y.sum().backward()
    assert any("y = x.sqrt()  # this line" in str(warning.message) for warning in told)


def test_checkpoint_of_a_changing_function_is_refused(device):
    calls = []

    def changing(a):
        calls.append(a)
        return a.sin() if len(calls) == 1 else a[:1].sin()

    x = torch.randn(3, 3).to(device).requires_grad_()
    with pytest.raises(torch.utils.checkpoint.CheckpointError):
        checkpoint(changing, x, use_reentrant=False).sum().backward()
