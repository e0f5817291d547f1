"""torch.func on the device: vmap, grad, jvp, functional_call, and forward-mode AD, with CPU's values and errors."""

from __future__ import annotations

import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import torch.nn.functional as F
from compare import run_seeded
from torch import nn
from torch.func import (
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    stack_module_state,
    vjp,
    vmap,
)


def net(device: torch.device) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.LayerNorm(5), nn.Linear(5, 2)).to(device)


def per_sample_gradients(device):
    model, x, y = net(device), torch.randn(6, 3).to(device), torch.randint(0, 2, (6,)).to(device)

    def loss(parameters, x, y):
        return F.cross_entropy(functional_call(model, parameters, (x[None],)), y[None])

    return vmap(grad(loss), in_dims=(None, 0, 0))(dict(model.named_parameters()), x, y)


def per_sample_gradients_of_a_convolution(device):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).to(device)
    x = torch.randn(3, 1, 6, 6).to(device)

    def loss(parameters, x):
        return functional_call(model, parameters, (x[None],)).sum()

    return vmap(grad(loss), in_dims=(None, 0))(dict(model.named_parameters()), x)


def ensemble(device):
    models = [nn.Linear(3, 2).to(device) for _ in range(3)]
    parameters, buffers = stack_module_state(models)
    x = torch.randn(4, 3).to(device)
    return vmap(lambda p, b: functional_call(models[0], (p, b), (x,)))(parameters, buffers)


def batched(device):
    x, w = torch.randn(4, 3).to(device), torch.randn(5, 4).to(device)
    picks = torch.tensor([0, 2, 1, 0]).to(device)
    square = torch.randn(3, 4, 4).to(device)
    return [
        vmap(lambda a: a.sin().sum())(x),
        vmap(torch.dot)(x, x),
        vmap(lambda a: a + 1, in_dims=1, out_dims=1)(x),
        vmap(lambda a: a * 2, chunk_size=2)(x),
        vmap(vmap(torch.mm, (None, 0)), (0, None))(torch.randn(2, 3, 4).to(device), torch.randn(5, 4, 3).to(device)),
        vmap(lambda a, i: a[i])(x, picks),
        vmap(lambda a, i: a.gather(0, i[None]))(x, picks),
        vmap(lambda a: torch.where(a > 0, a, 0.0))(x),
        vmap(lambda i: F.embedding(i, w))(picks.view(2, 2)),
        vmap(lambda a: F.batch_norm(a, None, None, training=True))(torch.randn(2, 3, 4).to(device)),
        vmap(lambda a: F.scaled_dot_product_attention(a, a, a))(torch.randn(2, 3, 4, 5, 8).to(device)),
        vmap(torch.linalg.inv)(square),
        vmap(torch.linalg.det)(square),
    ]


def random_numbers(device):
    zeros = torch.zeros(4, 3, device=device)
    torch.manual_seed(7)
    return [
        vmap(how, randomness=kind)(zeros)
        for kind in ("same", "different")
        for how in (lambda a: a + torch.randn(3, device=device), lambda a: F.dropout(a + 1))
    ]


def derivatives(device):
    x, ones = torch.randn(3).to(device), torch.ones(3).to(device)

    def three(a):
        return torch.stack([a.prod(), a.norm(), a.exp().sum()])

    value, pull = vjp(lambda a: (a.sin(), a.cos()), x)
    there, push = linearize(torch.sin, x)
    model = net(device)
    return [
        jvp(lambda a: a.sin() * a, (x,), (ones,)),
        (value, pull((ones, ones)), there, push(ones)),
        (jacrev(three)(x), jacfwd(three)(x), hessian(lambda a: a.pow(3).sum())(x), jacrev(three, chunk_size=1)(x)),
        grad_and_value(lambda p: functional_call(model, p, (x,)).pow(2).mean())(dict(model.named_parameters())),
        torch.autograd.functional.hvp(lambda a: a.pow(3).sum(), x, ones),
        torch.autograd.functional.jacobian(torch.sin, x, strategy="forward-mode", vectorize=True),
    ]


def forward_mode(device):
    model = net(device)
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.randn(2, 3).to(device), torch.ones(2, 3).to(device))
        image = forward_ad.make_dual(torch.randn(1, 1, 5, 5).to(device), torch.ones(1, 1, 5, 5).to(device))
        outputs = [model(x), F.conv2d(image, torch.ones(1, 1, 3, 3, device=device)), x.softmax(1), x @ x.T]
        return [tuple(part.detach() for part in forward_ad.unpack_dual(y)) for y in outputs]


def without_mutation(device):
    def mutating(a):
        a = a.clone()
        a[0] = 1
        a.view(-1).add_(2)
        return a

    return functionalize(mutating)(torch.randn(3, 2).to(device))


def checked(device):
    x = torch.randn(3, 3, dtype=torch.double).to(device).requires_grad_()
    torch.autograd.gradgradcheck(lambda a: a @ a.sin(), (x,))
    return torch.autograd.gradcheck(lambda a: a @ a.sin(), (x,), check_forward_ad=True)


PROGRAMS = (
    per_sample_gradients,
    per_sample_gradients_of_a_convolution,
    ensemble,
    batched,
    random_numbers,
    derivatives,
    forward_mode,
    without_mutation,
    checked,
)


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop", "ignore::FutureWarning", "ignore:Attempted to insert"
)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_transform(same_on_both, program):
    same_on_both(program)


MISTAKES = {
    "random without a word": lambda d: vmap(lambda a: a + torch.randn(3, device=d))(torch.zeros(4, 3, device=d)),
    "item": lambda d: vmap(lambda a: a.item())(torch.zeros(3, device=d)),
    "control flow": lambda d: vmap(lambda a: a if a.sum() > 0 else -a)(torch.zeros(3, 2, device=d)),
    "sizes": lambda d: vmap(torch.add)(torch.zeros(3, device=d), torch.zeros(4, device=d)),
    "grad of a vector": lambda d: grad(torch.sin)(torch.zeros(3, device=d)),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_told_as_locally(device, name):
    told = []
    for where in (torch.device("cpu"), device):
        with pytest.raises(Exception) as caught:  # noqa: PT011 - the type and the text are compared below
            run_seeded(MISTAKES[name], where)
        told.append((caught.type, str(caught.value)))
    assert told[0] == told[1]
