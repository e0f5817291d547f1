"""The short form of `make faults`: every kind of fault in every workload, at a few messages of either direction.

A link that breaks, loses, repeats or changes bytes costs time and nothing else; a process that dies is an error at
once. The long form (`make faults`) takes every message.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import make_certificates
from stage import FAULTS, PROCESS_FAULTS, Point, Stage
from workloads import WORKLOADS

pytestmark = pytest.mark.remote
SILENT = ("stall", "stall one way", "dark")  # noticed only after SILENCE_S
PASSING = [fault for fault in FAULTS if fault not in (*SILENT, *PROCESS_FAULTS)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("faults"), computes=2) as stage:
        yield stage


@pytest.fixture(scope="module")
def tls_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder: Path = tmp_path_factory.mktemp("faults-tls")
    with Stage(folder, tls=make_certificates(folder)) as stage:
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


@pytest.mark.parametrize("fault", ["cut after"])
def test_a_cut_costs_nothing_but_time(stage: Stage, fault: str) -> None:
    assert_all(stage, points(stage, "training step", fault, (0.3, 0.6)), "survived", "not reached")


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_link_fault_costs_nothing_but_time(stage: Stage, workload: str, fault: str) -> None:
    assert_all(stage, points(stage, workload, fault, (0.2, 0.4, 0.55, 0.7, 0.9)), "survived", "not reached")


@pytest.mark.slow
@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_while_a_session_opens_is_survived_or_refused(stage: Stage, fault: str) -> None:
    tried = [Point("training step", fault, way, n) for way in ("up", "down") for n in (1, 2, 3)]
    assert_all(stage, tried, "survived", "refused", "not reached")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["cut before", "cut after", "truncate", "corrupt", "duplicate"])
@pytest.mark.parametrize("workload", ["training step", "upload", "download"])
def test_a_link_fault_over_tls(tls_stage: Stage, workload: str, fault: str) -> None:
    assert_all(tls_stage, points(tls_stage, workload, fault, (0.5, 0.8)), "survived", "not reached")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stall", "stall one way"])
def test_a_silent_connection_is_replaced(stage: Stage, fault: str) -> None:
    assert_all(stage, [Point("training step", fault, "down", 20)], "survived")


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


@pytest.mark.slow
def test_a_link_that_stays_silent_is_an_error_in_time(stage: Stage) -> None:
    assert_all(stage, [Point("training step", "dark", "down", 20)], "refused")
