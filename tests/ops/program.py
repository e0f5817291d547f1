"""Random torch programs: the same seeded steps on two devices, and what a program can see of them.

A program is a list of lanes, one thread each; a lane is a list of (kind of step, seed). A step draws what it needs
from a generator of its own seed, so that a program from which steps were deleted is a program too. Lanes share no
tensors, since which of two threads comes first is nobody's promise. Kinds are in steps.py.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from op_pair import same_bits, words
from steps import KINDS, Lane, Skipped

MOST_ELEMENTS = 4096
POOL = 12

Step = tuple[str, int]  # kind, seed


@dataclass(frozen=True)
class Program:
    seed: int
    lanes: tuple[tuple[Step, ...], ...]

    @classmethod
    def of(cls, seed: int) -> Program:
        rng = random.Random(seed)
        kinds = [kind for kind, weight in KINDS.weights() for _ in range(weight)]
        n_lanes = rng.choice((1, 1, 2, 3))
        return cls(
            seed,
            tuple(
                tuple((rng.choice(kinds), rng.getrandbits(30)) for _ in range(rng.randint(10, 60)))
                for _ in range(n_lanes)
            ),
        )

    def without(self, lane: int, start: int, stop: int) -> Program:
        lanes = list(self.lanes)
        lanes[lane] = lanes[lane][:start] + lanes[lane][stop:]
        return Program(self.seed, tuple(lanes))

    def size(self) -> int:
        return sum(map(len, self.lanes))


@dataclass
class Seen:
    """What one lane could see: a line for each step, and the tensors that are left, on the CPU."""

    told: list[str] = field(default_factory=list)
    left: list[tuple[str, torch.Tensor]] = field(default_factory=list)


def run_lane(number: int, steps: tuple[Step, ...], lane: Lane, seen: Seen) -> None:
    for kind, seed in steps:
        lane.begin(random.Random(seed))
        try:
            result = KINDS.run(kind, lane)
        except Skipped:
            seen.told.append(f"{kind}: nothing to do it with")
            continue
        except (RuntimeError, IndexError, ValueError, TypeError) as error:
            seen.told.append(f"{kind} {lane.picked()}: {type(error).__name__}: {words(error)}")
            continue
        if not isinstance(result, torch.Tensor):
            seen.told.append(f"{kind} {lane.picked()}" + ("" if result is None else f": {result!r}"))
            continue
        name = lane.keep(result, MOST_ELEMENTS, POOL)
        flags = f"{result.requires_grad} {result.is_leaf} {result.is_conj()} {result.is_neg()}"
        layout = f"{tuple(result.shape)} {[s for n, s in zip(result.shape, result.stride(), strict=True) if n > 1]}"
        if result.numel() == 0:
            layout = f"{tuple(result.shape)}"
        seen.told.append(f"{name} = {kind} {lane.picked()}: {result.dtype} {layout} {flags}")
    for name, tensor in lane.pool:
        try:
            grad = tensor.grad if tensor.is_leaf else None
        except RuntimeError as error:  # a view of several whose base was written
            seen.told.append(f"{name} at the end: {words(error)}")
            continue
        for what, value in ((name, tensor), (f"{name}.grad", grad)):
            if value is not None:
                seen.left.append((what, value.detach().cpu().resolve_conj().resolve_neg()))


def run(program: Program, device: torch.device) -> list[Seen]:
    torch.manual_seed(program.seed)
    seen = [Seen() for _ in program.lanes]
    errors: list[BaseException] = []
    alone = len(program.lanes) == 1

    def work(number: int) -> None:
        try:
            # The default generator belongs to whoever comes first; several lanes have one each.
            generator = None if alone else torch.Generator(device).manual_seed(program.seed + number)
            run_lane(number, program.lanes[number], Lane(device, generator), seen[number])
        except BaseException as error:
            errors.append(error)

    if alone:
        work(0)
    else:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(len(program.lanes))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    return seen


def difference(program: Program, device: torch.device) -> str | None:
    """The first thing that is not as on the CPU."""
    expected = run(program, torch.device("cpu"))
    try:
        got = run(program, device)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    for number, (one, other) in enumerate(zip(got, expected, strict=True)):
        for step, (told, wanted) in enumerate(zip(one.told, other.told, strict=True)):
            if told != wanted:
                return f"lane {number} step {step}: {told}\n  instead of {wanted}"
        if [name for name, _ in one.left] != [name for name, _ in other.left]:
            return f"lane {number}: left {[name for name, _ in one.left]} instead of {[n for n, _ in other.left]}"
        for (name, tensor), (_, wanted_tensor) in zip(one.left, other.left, strict=True):
            if not same_bits(tensor, wanted_tensor):
                return f"lane {number}: {name} is\n{tensor}\n  instead of\n{wanted_tensor}"
    return None


def shrunk(program: Program, fails: Callable[[Program], bool]) -> Program:
    """Without the steps that it fails without too."""
    piece = max(1, program.size() // 2)
    while True:
        smaller = False
        for lane in range(len(program.lanes)):
            start = 0
            while start < len(program.lanes[lane]):
                candidate = program.without(lane, start, start + piece)
                if fails(candidate):
                    program, smaller = candidate, True
                else:
                    start += piece
        if piece == 1 and not smaller:
            return program
        piece = max(1, piece // 2)


def listing(program: Program) -> str:
    """The program as it runs on the CPU."""
    lines: list[str] = []
    for number, seen in enumerate(run(program, torch.device("cpu"))):
        lines += [f"  lane {number}: {told}" for told in seen.told]
    return "\n".join(lines)


def describe(program: Program, device: Callable[[], torch.device]) -> dict[str, Any]:
    """`device` is asked each time, since a program may kill its server."""
    small = shrunk(program, lambda candidate: difference(candidate, device()) is not None)
    return {"seed": program.seed, "difference": difference(small, device()) or "it came and went",
            "program": listing(small), "steps": small.lanes}  # fmt: skip
