"""`make faults`: every fault at every message of every workload, on several stages at once; prints the table.

`--every 10` tries every tenth message. Workloads and faults can be named, to look at one thing again. Exit code 1 if
anything hung, came out wrong, or was lost that should have survived; each such point has a line of its own.
"""

from __future__ import annotations

import argparse
import queue
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from certificates import make_certificates
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from stage import FAULTS, PROCESS_FAULTS, Outcome, Point, Stage
from workloads import COMPUTES, WORKLOADS

VERDICTS = ("survived", "refused", "wrong", "hung")


def points(stage: Stage, workloads: list[str], faults: list[str], every: int) -> Iterator[Point]:
    for workload in workloads:
        _, messages = stage.undisturbed(workload)
        for fault in faults:
            for direction, count in messages.items():
                for number in range(1, count + 1, every):
                    yield Point(workload, fault, direction, number)


def run(todo: queue.SimpleQueue[Point], stage: Stage, done: dict[Point, Outcome], progress: Progress) -> None:
    with stage:
        while True:
            try:
                point = todo.get_nowait()
            except queue.Empty:
                return
            outcome = done[point] = stage.try_point(point)
            progress.advance(progress.task_ids[0])
            if not outcome.is_good:
                progress.console.print(f"{point}: {outcome.verdict} after {outcome.seconds:.1f} s: {outcome.detail}")


def table(title: str, done: dict[Point, Outcome]) -> Table:
    by_fault: dict[str, list[Outcome]] = defaultdict(list)
    for point, outcome in done.items():
        if outcome.verdict != "not reached":
            by_fault[point.fault].append(outcome)
    shown = Table("fault", "points tried", *VERDICTS, "slowest", title=title)
    for fault, outcomes in by_fault.items():
        counts = [str(sum(o.verdict == verdict for o in outcomes)) for verdict in VERDICTS]
        shown.add_row(fault, str(len(outcomes)), *counts, f"{max(o.seconds for o in outcomes):.1f} s")
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--every", type=int, default=1, metavar="N", help="try every N-th message")
    parser.add_argument("--jobs", type=int, default=4, help="stages at once (default: %(default)s)")
    parser.add_argument("--tls", action="store_true", help="over TLS, by its records")
    parser.add_argument("--workload", action="append", choices=list(WORKLOADS))
    parser.add_argument("--fault", action="append", choices=FAULTS)
    args = parser.parse_args()
    workloads = args.workload or list(WORKLOADS)
    faults = args.fault or [f for f in FAULTS if not (args.tls and f in PROCESS_FAULTS)]
    console = Console(width=150, soft_wrap=True)
    done: dict[Point, Outcome] = {}
    with tempfile.TemporaryDirectory() as folder:
        tls = make_certificates(Path(folder)) if args.tls else None
        computes = max(COMPUTES.get(workload, 1) for workload in workloads)
        folders = [Path(tempfile.mkdtemp(dir=folder)) for _ in range(args.jobs)]
        stages = [Stage(own, computes=computes, tls=tls) for own in folders]
        todo: queue.SimpleQueue[Point] = queue.SimpleQueue()
        for point in points(stages[0], workloads, faults, args.every):
            todo.put(point)
        console.print(f"{todo.qsize()} points on {len(stages)} stages")
        with Progress(console=console) as progress:
            progress.add_task("points", total=todo.qsize())
            threads = [threading.Thread(target=run, args=(todo, stage, done, progress)) for stage in stages]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    console.print(table("faults over TLS" if args.tls else "faults over TCP", done))
    return 0 if all(outcome.is_good for outcome in done.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
