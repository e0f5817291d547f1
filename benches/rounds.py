"""Interleaved rounds: every side runs once in each, so that a slow moment of the machine falls on all of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """How much to do."""

    quick: bool = False
    long: bool = False
    stand_in: bool = False  # the local cpu plays the device

    def count(self, full: int, quick: int) -> int:
        return quick if self.quick else full


def interleave(sides: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, float]:
    """Median of what each side returns, over the rounds, after one round that does not count."""
    seen: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(rounds + 1):
        for name, side in sides.items():
            value = side()
            if turn:
                seen[name].append(value)
    return {name: statistics.median(values) for name, values in seen.items()}
