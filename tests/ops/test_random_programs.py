"""Random programs: 500 of them, and the tool that shrinks one that differs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from program import Program, difference, listing, run, shrunk
from soak_programs import soak

pytestmark = pytest.mark.remote


@pytest.mark.parametrize("seed", range(40))
def test_random_program(device, seed):
    assert difference(Program.of(seed), device) is None


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(5))
def test_five_hundred_programs(part):
    soaked = soak(1000 + 100 * part, 100, jobs=1)
    assert not soaked.wrong(), "\n".join(soaked.wrong())
    assert soaked.run == 100


def test_programs_are_as_long_and_as_many_threads_as_promised():
    programs = [Program.of(seed) for seed in range(200)]
    assert {len(p.lanes) for p in programs} == {1, 2, 3}
    assert all(10 <= len(lane) <= 60 for p in programs for lane in p.lanes)
    assert Program.of(7) == Program.of(7)


def test_a_program_shrinks_to_what_it_fails_without():
    program = Program.of(3)
    guilty = {program.lanes[0][2], program.lanes[0][-1]}
    small = shrunk(program, lambda p: guilty <= set(p.lanes[0]))
    assert set(small.lanes[0]) == guilty
    assert small.size() == len(small.lanes[0])
    assert "lane 0" in listing(small)


def test_a_seed_gives_the_same_numbers_as_the_local_cpu(device):
    import torch

    def numbers(where):
        torch.manual_seed(123)
        drawn = [torch.randn(33, device=where), torch.rand(7, device=where), torch.randperm(20, device=where)]
        drawn += [torch.randint(9, (5,), device=where), torch.nn.functional.dropout(drawn[0])]
        return [t.cpu() for t in drawn]

    for got, expected in zip(numbers(device), numbers(torch.device("cpu")), strict=True):
        assert torch.equal(got, expected)


def test_lanes_run_side_by_side_see_what_they_see_alone():
    import torch

    program = next(p for p in map(Program.of, range(100)) if len(p.lanes) == 3)
    first, second = (run(program, torch.device("cpu")) for _ in range(2))
    assert [seen.told for seen in first] == [seen.told for seen in second]
