"""torch's own operator samples, forward and backward, against the CPU: those that op_list.py promises, and (slow) the
rest of op_db, which may be refused but never wrong. A table at the end counts samples by outcome."""

from __future__ import annotations

import re
from collections import Counter

import pytest
import torch
from op_list import LISTED
from op_run import Outcome, all_operators, outcomes
from rich.console import Console
from rich.table import Table

SAMPLES = 4  # of each dtype


@pytest.fixture(scope="module")
def operators():
    return all_operators()


@pytest.fixture(scope="module")
def record(request):
    """Collects outcomes and prints the table when the module is done."""
    collected: list[Outcome] = []
    yield collected
    table = Table(
        "operators", "samples", "agreed", "layout differs", "failed by reason", title="op_db against the CPU"
    )
    reasons = Counter(o.verdict for o in collected if o.verdict != "agreed")
    table.add_row(
        str(len({o.operator for o in collected})),
        str(len(collected)),
        str(sum(o.verdict == "agreed" for o in collected)),
        str(sum(o.layout_differs for o in collected)),
        "\n".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none",
    )
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        Console(width=118).print("\n", table)


def test_the_list_is_long_enough_and_known(operators):
    assert len(LISTED) == len(set(LISTED))
    assert not [name for name in LISTED if name not in operators]
    assert len(LISTED) >= 300


@pytest.mark.parametrize("name", LISTED)
def test_listed_operator_agrees(operators, device, record, name):
    seen = list(outcomes(name, operators[name], device, SAMPLES))
    record.extend(seen)
    assert seen, "no sample that the CPU can run"
    failed = [f"{o.sample}: {o.verdict}: {o.detail}" for o in seen if o.verdict != "agreed"]
    assert not failed, "\n".join(failed)


@pytest.mark.slow
@pytest.mark.remote
@pytest.mark.timeout(1200)
def test_the_rest_is_right_or_refused_by_name(operators, shared_server, record):
    """Never a wrong value, a crash or a hang; an operator that is not covered is named in its error."""
    wrong: list[str] = []
    for name, op in operators.items():
        if name in LISTED or name.startswith(("jiterator", "broadcast_shapes")):
            continue
        compute = shared_server.compute()
        seen = list(outcomes(name, op, compute.device(), 2))
        record.extend(seen)
        for outcome in seen:
            if outcome.verdict.startswith("raised"):
                if not re.search(r"aten::|aten\.|[a-z_]{4,}|operator", outcome.detail):
                    wrong.append(f"{name} {outcome.sample}: names nothing: {outcome.detail}")
            elif outcome.verdict != "agreed":
                wrong.append(f"{name} {outcome.sample}: {outcome.verdict}: {outcome.detail}")
        try:
            torch.sky.synchronize(compute.device())
        except Exception as error:
            if not compute.is_ready():
                wrong.append(f"{name} ended the session: {error}")
    assert not wrong, "\n".join(wrong)
