"""op_db over `sky` against the CPU: float32 with a few samples of each operator, and what must be refused. All dtypes
and samples: `make test-full`, or `python tests/ops`."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from exceptions import ALLOWED
from op_pair import Outcome, outcome, same_bits
from op_run import Results, run_task, worker
from op_samples import all_operators, cases
from pool import Child
from report import Report
from waits import PAGE, listed, page

SHARDS = 8
SAMPLES = 2
pytestmark = [pytest.mark.remote, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def operators():
    return all_operators()


@pytest.fixture(scope="module")
def child():
    """Kept from test to test: most of a short test is a worker and a server that start."""
    child = worker(SAMPLES)
    yield child
    child.end()


def run_all(child: Child, names: list[str], kind: str, dtype: str) -> None:
    results = Results()
    for name in names:
        run_task(child, (name, kind, dtype), results)
    report = Report(results)
    report.print()
    assert not report.wrong()
    assert report.results.outcomes


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_samples_agree(operators, child, shard):
    run_all(child, list(operators)[shard::SHARDS], "samples", "float32")


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_what_the_cpu_refuses_is_refused_alike(operators, child, shard):
    names = [name for name, op in operators.items() if op.error_inputs_func]
    run_all(child, names[shard::SHARDS], "errors", "any")


@pytest.mark.parametrize("dtype", ["float32", "int64", "bfloat16", "complex64", "bool"])
def test_a_few_operators_of_every_dtype(child, dtype):
    names = [
        "add",
        "matmul",
        "sum",
        "bmm",
        "index_add",
        "nonzero",
        "where",
        "sort",
        "nn.functional.silu",
        "view_as_real",
    ]
    run_all(child, names, "samples", dtype)


@pytest.mark.parametrize("policy", ["accurate", "compact"])
@pytest.mark.parametrize("variant", ["chunked", "chunked_none"])
def test_what_is_allowed_of_linear_cross_entropy_is_a_choice_of_precision(operators, device, variant, policy):
    """Where it is named, and not chosen by the name of the device, nothing differs."""
    name = f"nn.functional.linear_cross_entropy@{variant}"
    for case in cases(name, operators[name], "samples", "bfloat16", None):
        options = case.sample.kwargs["options"]
        case.sample.kwargs["options"] = dataclasses.replace(options, acc_policy=policy)
        seen = outcome(name, operators[name], case, device, lambda: None)
        assert seen is not None
        assert seen.verdict == "agreed", seen


def test_exceptions_have_a_reason_and_name_what_is_there(operators):
    for entry in ALLOWED:
        assert len(entry.reason) > 20
        assert any(name for name in operators if entry.covers_operator(name)), entry


def test_the_page_of_operators_that_wait_is_what_waits_py_writes():
    assert PAGE.read_text() == page(listed())
    assert {"aten::nonzero", "aten::equal"} <= listed()


# -- the runner itself ---------------------------------------------------------------------------------------------


def test_a_worker_that_dies_or_is_silent_is_written_down_and_the_next_case_runs(tmp_path):
    worker = tmp_path / "worker.py"
    worker.write_text(
        "import json, os, sys, threading\n"
        "def tell(**what): print(json.dumps(what), flush=True)\n"
        "for line in sys.stdin:\n"
        "    name, kind, dtype, first = line.split()\n"
        "    for at in range(int(first), 4):\n"
        "        tell(at=at, case=f'case {at}')\n"
        "        tell(on='sky')\n"
        "        if at == 1: os.abort()\n"
        "        if at == 2: threading.Event().wait()\n"
        "        what = {'verdict': 'agreed', 'detail': '', 'waits': [], 'dtype': dtype, 'kind': kind}\n"
        "        tell(operator=name, case=f'case {at}', **what)\n"
        "    tell(done=True)\n"
    )
    results, child = Results(), Child([str(worker)])
    try:
        run_task(child, ("add", "samples", "float32"), results, limit_s=3)
    finally:
        child.end()
    assert [o["case"] for o in results.outcomes] == ["case 0", "case 3"]
    assert [(d["case"], d["status"]) for d in results.deaths] == [("case 1", "ended with -6")]
    assert [h["case"] for h in results.hangs] == ["case 2"]
    report = Report(results)
    assert len(report.wrong()) == 2


def test_a_case_that_differs_is_told(operators, device):
    """The comparison sees one bit."""
    import torch

    case = next(cases("add", operators["add"], "samples", "float32", 1))

    class Off:
        name = "add"

        def __call__(self, x, *args, **kwargs):
            result = torch.add(x, *args, **kwargs)
            return result if result.device.type == "cpu" else torch.nextafter(result, result + 1)

    seen = outcome("add", Off(), case, device, lambda: None)
    assert isinstance(seen, Outcome)
    assert seen.verdict == "forward: bits"
    assert not same_bits(torch.tensor(0.0), torch.tensor(-0.0))
    assert same_bits(torch.tensor([float("nan"), 1]), torch.tensor([float("nan"), 1]))
