"""Runs tasks (operator, kind, dtype) in worker processes and outlives what they do: what a worker was at when it died
or fell silent is written down, and another goes on behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pool import Child, in_parallel

Task = tuple[str, str, str]  # operator, kind, dtype
LIMIT_S = 180.0  # for one case, the start of a worker and of a server included


@dataclass
class Results:
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    deaths: list[dict[str, Any]] = field(default_factory=list)  # of workers
    hangs: list[dict[str, Any]] = field(default_factory=list)
    slow_on_cpu: list[dict[str, Any]] = field(default_factory=list)  # the CPU itself took too long
    without_samples: list[dict[str, Any]] = field(default_factory=list)  # torch cannot make them


def worker(samples: int) -> Child:
    """`samples`: of an operator and dtype; 0 is all."""
    return Child(_command(samples))


def _command(samples: int) -> list[str]:
    return [str(Path(__file__).parent / "worker.py"), "--samples", str(samples)]


def run_task(child: Child, task: Task, results: Results, limit_s: float = LIMIT_S) -> None:
    first, done = 0, False
    while not done:
        at: dict[str, Any] = {"at": first, "case": "start", "on": "cpu"}
        child.send("\t".join((*task, str(first))))
        while isinstance(line := child.line(limit_s), dict):
            if "at" in line:
                at = {**line, "on": "cpu"}
            elif "on" in line:
                at["on"] = line["on"]
            elif "operator" in line:
                results.outcomes.append(line)
            elif "no_samples" in line:
                results.without_samples.append({"operator": task[0], "dtype": task[2], **line})
            elif "done" in line:
                done = True
                break
        if done:
            return
        where = {"operator": task[0], "kind": task[1], "dtype": task[2], "case": at["case"]}
        if line == "silent":
            (results.hangs if at["on"] == "sky" else results.slow_on_cpu).append(where)
        else:
            results.deaths.append({**where, "status": line})
        child.end()
        if at["case"] == "making samples":
            return
        first = at["at"] + 1


def run(
    tasks: list[Task],
    *,
    jobs: int = 1,
    samples: int = 0,
    limit_s: float = LIMIT_S,
    after: Callable[[Task, Results], None] = lambda task, results: None,
) -> Results:
    results = Results()

    def work(child: Child, task: Task) -> None:
        run_task(child, task, results, limit_s)
        after(task, results)

    in_parallel(tasks, work, _command(samples), jobs)
    return results
