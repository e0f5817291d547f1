"""Factories, and random numbers: a server on CPU gives the numbers that local CPU gives, seed for seed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

FACTORIES = {
    "empty": lambda d: torch.empty(3, 4, device=d).shape,
    "zeros": lambda d: torch.zeros(3, 4, device=d, dtype=torch.int16),
    "ones": lambda d: torch.ones(3, 4, device=d),
    "full": lambda d: torch.full((2, 2), 7.5, device=d),
    "full_int": lambda d: torch.full((2, 2), 7, device=d),
    "arange": lambda d: torch.arange(1, 9, 2, device=d),
    "arange_float": lambda d: torch.arange(0.0, 1.0, 0.3, device=d),
    "linspace": lambda d: torch.linspace(0, 1, 7, device=d),
    "logspace": lambda d: torch.logspace(0, 2, 5, device=d),
    "eye": lambda d: torch.eye(3, 5, device=d),
    "tensor": lambda d: torch.tensor([[1, 2], [3, 4]], device=d),
    "scalar_tensor": lambda d: torch.tensor(3.5, device=d),
    "as_tensor": lambda d: torch.as_tensor([1.5, 2], device=d),
    "like": lambda d: [f(torch.ones(2, 3, device=d).T) for f in (torch.zeros_like, torch.ones_like)],
    "full_like": lambda d: torch.full_like(torch.ones(2, 3, device=d), 3, dtype=torch.int64),
    "new": lambda d: [torch.ones(2, device=d).new_zeros(3), torch.ones(2, device=d).new_tensor([1, 2])],
    "new_full": lambda d: torch.ones(2, device=d, dtype=torch.float64).new_full((2, 2), 4),
    "tril_indices": lambda d: torch.tril_indices(3, 4, device=d),
    "empty_strided": lambda d: torch.empty_strided((3, 4), (1, 3), device=d).fill_(2),
    "empty_permuted": lambda d: torch.empty_permuted((2, 3, 4), (1, 0, 2), device=d).fill_(2),
    "complex": lambda d: torch.complex(torch.ones(2, device=d), torch.zeros(2, device=d)),
    "vander": lambda d: torch.vander(torch.arange(3, device=d)),
    "hann_window": lambda d: torch.hann_window(8, device=d),
    "one_hot": lambda d: nn.functional.one_hot(torch.arange(3, device=d), 5),
    "context": lambda d: _in_device_context(d),
}

RANDOM = {
    "rand": lambda d: torch.rand(5, 6, device=d),
    "randn": lambda d: torch.randn(5, 6, device=d),
    "randn_big": lambda d: torch.randn(130, 33, device=d),
    "randint": lambda d: torch.randint(0, 100, (20,), device=d),
    "randperm": lambda d: torch.randperm(50, device=d),
    "bernoulli": lambda d: torch.bernoulli(torch.full((20,), 0.3, device=d)),
    "multinomial": lambda d: torch.multinomial(torch.rand(4, 10, device=d), 5),
    "normal": lambda d: torch.normal(torch.zeros(20, device=d), torch.ones(20, device=d)),
    "normal_": lambda d: torch.empty(20, device=d).normal_(2, 3),
    "uniform_": lambda d: torch.empty(20, device=d).uniform_(-1, 1),
    "exponential_": lambda d: torch.empty(20, device=d).exponential_(),
    "geometric_": lambda d: torch.empty(20, device=d).geometric_(0.4),
    "cauchy_": lambda d: torch.empty(20, device=d).cauchy_(),
    "log_normal_": lambda d: torch.empty(20, device=d).log_normal_(),
    "random_": lambda d: torch.empty(20, device=d, dtype=torch.int64).random_(5, 50),
    "poisson": lambda d: torch.poisson(torch.full((20,), 4.0, device=d)),
    "rand_like": lambda d: torch.rand_like(torch.ones(3, 4, device=d).T),
    "dropout": lambda d: nn.functional.dropout(torch.ones(40, device=d), 0.4),
    "dropout2d": lambda d: nn.functional.dropout2d(torch.ones(2, 8, 3, 3, device=d), 0.4),
    "alpha_dropout": lambda d: nn.functional.alpha_dropout(torch.ones(40, device=d), 0.4, training=True),
    "rrelu": lambda d: nn.functional.rrelu(-torch.ones(20, device=d), training=True),
    "gumbel_softmax": lambda d: nn.functional.gumbel_softmax(torch.zeros(4, 5, device=d)),
    "categorical": lambda d: torch.distributions.Categorical(logits=torch.zeros(7, device=d)).sample((9,)),
    "gamma": lambda d: torch.distributions.Gamma(torch.full((9,), 2.0, device=d), 1.0).sample(),
    "dirichlet": lambda d: torch.distributions.Dirichlet(torch.ones(4, device=d)).sample((3,)),
}


def _in_device_context(device: torch.device) -> list[torch.Tensor]:
    with device:
        return [torch.zeros(2), torch.tensor([1, 2]), nn.Linear(2, 2, bias=False).weight.detach() * 0]


@pytest.mark.parametrize("name", FACTORIES)
def test_factory(same_on_both, name):
    same_on_both(FACTORIES[name])


@pytest.mark.parametrize("name", RANDOM)
def test_same_seed_same_numbers(same_on_both, name):
    """Twice, so that the generator's state after the op counts too."""
    same_on_both(lambda device: [RANDOM[name](device), RANDOM[name](device), torch.rand(3, device=device)])


def test_normal_around_a_tensor_does_not_resize(same_on_both):
    """Unlike its other forms, and with torch's words."""

    def program(device):
        mean = torch.arange(3.0, device=device)
        with pytest.raises(RuntimeError, match=r"size of tensor a \(3\) must match the size of tensor b \(0\)"):
            torch.normal(mean, 1.0, out=torch.empty(0, device=device))
        return torch.normal(mean, 1.0, out=torch.empty(2, 3, device=device))

    same_on_both(program)


def test_generator_object(same_on_both):
    def program(device):
        one, other = torch.Generator(device), torch.Generator(device)
        one.manual_seed(3)
        other.manual_seed(4)
        drawn = [torch.randn(4, device=device, generator=g) for g in (one, other, one)]
        drawn.append(torch.rand(3, device=device))  # the default one is not touched by the others
        return [*drawn, one.initial_seed(), one.device.type == torch.device(device).type]

    same_on_both(program)


def test_generator_state(device):
    generator = torch.Generator(device).manual_seed(11)
    torch.rand(5, device=device, generator=generator)
    state = generator.get_state()
    first = torch.rand(5, device=device, generator=generator).cpu()
    generator.set_state(state)
    assert torch.equal(torch.rand(5, device=device, generator=generator).cpu(), first)
    clone = torch.Generator(device)
    clone.set_state(state)
    assert torch.equal(torch.rand(5, device=device, generator=clone).cpu(), first)
    assert state.device.type == "cpu"


def test_seed_differs_each_time(device):
    generator = torch.Generator(device)
    assert generator.seed() != generator.seed()


def test_initialisation_on_the_device(same_on_both):
    def program(device):
        w = torch.empty(8, 6, device=device)
        init = nn.init
        fillers = (init.xavier_uniform_, init.kaiming_normal_, init.orthogonal_, init.trunc_normal_, init.normal_)
        return [filler(w.clone()) for filler in fillers]

    same_on_both(program, rtol=1e-4, atol=1e-5)


def test_fork_rng_and_device_state(device):
    module = torch if device.type == "cpu" else torch.sky
    torch.manual_seed(5)
    kind = "cuda" if device.type == "cpu" else "sky"  # fork_rng always keeps the CPU's own state
    devices = [] if device.type == "cpu" else [device]
    with torch.random.fork_rng(devices=devices, device_type=kind):
        inside = torch.rand(4, device=device).cpu()
    assert torch.equal(torch.rand(4, device=device).cpu(), inside)
    state = module.get_rng_state()
    first = torch.rand(4, device=device).cpu()
    module.set_rng_state(state)
    assert torch.equal(torch.rand(4, device=device).cpu(), first)


@pytest.mark.remote
def test_device_module_seeds(device):
    torch.sky.manual_seed(9)
    first = torch.rand(4, device=device).cpu()
    torch.sky.manual_seed_all(9)
    assert torch.equal(torch.rand(4, device=device).cpu(), first)
    assert torch.sky.initial_seed() == 9
    torch.manual_seed(9)
    assert torch.equal(torch.rand(4, device=device).cpu(), first)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(4), first)


def test_range_between_tensors_without_a_device(device):
    """The values are read, since the result is on the CPU."""
    start, end = torch.tensor(2.0, device=device), torch.tensor(6.0, device=device)
    assert torch.equal(torch.linspace(start, end, 5), torch.linspace(2.0, 6.0, 5))
    assert torch.equal(torch.linspace(0.0, end, 4), torch.linspace(0.0, 6.0, 4))
    assert torch.equal(torch.logspace(start, 3.0, 3), torch.logspace(2.0, 3.0, 3))
