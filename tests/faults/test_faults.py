"""The short form of `make faults`: every kind of fault in every workload, at a few messages of either direction.

A link that breaks, loses, repeats or changes bytes costs time and nothing else; a process that dies is an error at
once. The long form (`make faults`) takes every message.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from stage import Point, Stage
from workloads import WORKLOADS

pytestmark = pytest.mark.remote


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("faults"), computes=2) as stage:
        yield stage


def points(stage: Stage, workload: str, fault: str, parts: tuple[float, ...]) -> list[Point]:
    """Messages at these parts of the run, in both directions."""
    _, messages = stage.undisturbed(workload)
    return [Point(workload, fault, way, max(1, int(part * n))) for way, n in messages.items() for part in parts]


def assert_all(stage: Stage, tried: list[Point], *verdicts: str) -> None:
    outcomes = {point: stage.try_point(point) for point in tried}
    bad = {str(p): o for p, o in outcomes.items() if o.verdict not in verdicts}
    assert not bad, "\n".join(f"{point}: {outcome}" for point, outcome in bad.items())
    assert any(outcome.verdict != "not reached" for outcome in outcomes.values())


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stop server", "stop client"])
def test_a_stopped_process_goes_on(stage: Stage, fault: str) -> None:
    for workload in WORKLOADS:
        assert_all(stage, points(stage, workload, fault, (0.5,)), "survived", "not reached")


@pytest.mark.slow
@pytest.mark.parametrize("workload", ["training step", "copy"])
def test_a_killed_server_is_an_error_at_once(stage: Stage, workload: str) -> None:
    assert_all(stage, points(stage, workload, "kill server", (0.6,)), "refused")


@pytest.mark.slow
def test_a_killed_client_leaves_the_server_to_the_next(stage: Stage) -> None:
    assert_all(stage, points(stage, "training step", "kill client", (0.6,)), "survived")
