"""Random programs: the same seeded sequence of operators, views, in-place writes, copies and deletions on both.

A program is a list of choices made by Python's own generator, so it is the same on both devices; a step that the CPU
refuses is refused by the device too, with the same exception. A failing seed is all that is needed to replay it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

STEPS = 120
POOL = 10
Step = Callable[[random.Random, list[torch.Tensor]], torch.Tensor | None]


def pick(rng: random.Random, pool: list[torch.Tensor]) -> torch.Tensor:
    return pool[rng.randrange(len(pool))]


def dim(rng: random.Random, x: torch.Tensor) -> int:
    return rng.randrange(-x.dim(), x.dim()) if x.dim() else 0


def in_place(rng: random.Random, pool: list[torch.Tensor]) -> None:
    x = pick(rng, pool)
    rng.choice((lambda: x.add_(0.5), lambda: x.mul_(-0.9), lambda: x.clamp_(-2, 2), lambda: x.fill_(0.25), x.tanh_))()


def assign(rng: random.Random, pool: list[torch.Tensor]) -> None:
    x = pick(rng, pool)
    x[: max(1, x.shape[0] // 2)] = rng.random()


def write_from_another(rng: random.Random, pool: list[torch.Tensor]) -> None:
    target, source = pick(rng, pool), pick(rng, pool)
    if (
        target.untyped_storage().data_ptr() != source.untyped_storage().data_ptr()
    ):  # else: partly overlapping, refused
        target.copy_(source)


def write_from_host(rng: random.Random, pool: list[torch.Tensor]) -> None:
    x = pick(rng, pool)
    x.copy_(torch.full(x.shape, rng.random()))


def sliced(rng: random.Random, pool: list[torch.Tensor]) -> torch.Tensor:
    x = pick(rng, pool)
    d = dim(rng, x)
    return x.narrow(d, rng.randrange(max(1, x.shape[d])), 1 + rng.randrange(max(1, x.shape[d])))


def indexed(rng: random.Random, pool: list[torch.Tensor]) -> torch.Tensor:
    x = pick(rng, pool)
    rows = torch.tensor([rng.randrange(x.shape[0]) for _ in range(3)], device=x.device)
    return x[rows]


STEP_KINDS: tuple[Step, ...] = (
    lambda rng, pool: pick(rng, pool) + pick(rng, pool),
    lambda rng, pool: pick(rng, pool) * rng.random(),
    lambda rng, pool: pick(rng, pool) @ pick(rng, pool).mT,
    lambda rng, pool: pick(rng, pool).tanh(),
    lambda rng, pool: pick(rng, pool).softmax(-1),
    lambda rng, pool: torch.cat([pick(rng, pool), pick(rng, pool)]),
    lambda rng, pool: torch.where(pick(rng, pool) > 0, pick(rng, pool), 0.5),
    lambda rng, pool: (lambda x: x.sum(dim(rng, x), keepdim=True))(pick(rng, pool)),
    lambda rng, pool: (lambda x: x.transpose(dim(rng, x), dim(rng, x)))(pick(rng, pool)),
    lambda rng, pool: pick(rng, pool).reshape(-1, 2),
    lambda rng, pool: pick(rng, pool).view(2, -1),
    lambda rng, pool: pick(rng, pool).flatten(),
    lambda rng, pool: pick(rng, pool).unsqueeze(0),
    lambda rng, pool: pick(rng, pool).squeeze(),
    lambda rng, pool: pick(rng, pool)[..., ::2],
    lambda rng, pool: pick(rng, pool).clone(),
    lambda rng, pool: pick(rng, pool).contiguous(),
    lambda rng, pool: pick(rng, pool).to("cpu", copy=True).to(pool[0].device, copy=True),
    lambda rng, pool: pick(rng, pool).double().float(),
    sliced,
    indexed,
    in_place,
    in_place,
    assign,
    write_from_another,
    write_from_host,
)


def run(seed: int, device: torch.device) -> tuple[list[torch.Tensor], list[str]]:
    """(the tensors that are alive at the end, what each step gave or raised)."""
    rng = random.Random(seed)
    pool = [
        torch.arange(24.0).reshape(4, 6).div(10).to(device),
        torch.ones(4, 6, device=device),
        torch.eye(6).to(device),
    ]
    told: list[str] = []
    for _ in range(STEPS):
        step = rng.choice(STEP_KINDS)
        state = rng.getstate()
        try:
            result = step(rng, pool)
            told.append("done" if result is None else f"{tuple(result.shape)} {result.stride()}")
        except (RuntimeError, IndexError, ValueError) as error:
            result = None
            told.append(type(error).__name__)
        rng.setstate(state)  # a step draws as much as it likes without moving the next one
        rng.random()
        if result is not None and 0 < result.numel() <= 4096:
            pool.append(result)
        if len(pool) > POOL:
            del pool[1 + rng.randrange(len(pool) - 1)]
    return pool, told


@pytest.mark.parametrize("seed", range(40))
def test_random_program(device, seed):
    expected, expected_told = run(seed, torch.device("cpu"))
    got, told = run(seed, device)
    assert told == expected_told
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one.cpu(), other, equal_nan=True, rtol=1e-4, atol=1e-4)
