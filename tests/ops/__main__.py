"""`python tests/ops`: op_db on the device `sky` against the CPU, in processes that may die, and a table of it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))

from op_run import Results, Task, run
from op_samples import DTYPES, KINDS, all_operators
from report import Report
from waits import PAGE, page


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", default=",".join(DTYPES), help="separated by commas")
    parser.add_argument("--kinds", default=",".join(KINDS), help="samples, errors, gradcheck")
    parser.add_argument("--jobs", type=int, default=2, help="worker processes, each with a server")
    parser.add_argument("--samples", type=int, default=0, help="of an operator and dtype; 0 is all")
    parser.add_argument("--limit", type=float, default=180, metavar="SECONDS", help="for one case")
    parser.add_argument("--json", type=Path, help="write all outcomes there")
    parser.add_argument("--waits", action="store_true", help="write docs/operators_that_wait.md from what is seen")
    parser.add_argument("names", nargs="*", help="operators of op_db, as shell patterns; none is all")
    options = parser.parse_args()
    names = [n for n in all_operators() if not options.names or any(fnmatchcase(n, p) for p in options.names)]
    kinds, dtypes = options.kinds.split(","), options.dtype.split(",")
    tasks: list[Task] = [(n, "samples", d) for d in dtypes for n in names if "samples" in kinds]
    # These choose their dtypes themselves.
    tasks += [(n, kind, "any") for kind in ("errors", "gradcheck") if kind in kinds for n in names]

    def told(task: Task, results: Results) -> None:
        print(f"\r{len(results.outcomes)} cases, at {' '.join(task)}".ljust(100), end="", file=sys.stderr, flush=True)

    results = run(tasks, jobs=options.jobs, samples=options.samples, limit_s=options.limit, after=told)
    print(file=sys.stderr)
    if options.json:
        options.json.write_text(json.dumps(asdict(results)))
    report = Report(results)
    if options.waits:
        PAGE.write_text(page(report.waited()))
    report.print()
    stale = report.stale() if not options.names and not options.samples else []
    for line in stale:
        print(f"an exception that nothing needs: {line}")
    return 1 if report.wrong() or stale else 0


if __name__ == "__main__":
    sys.exit(main())
