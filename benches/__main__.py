"""Command line of the benchmarks: which groups run, where the figures go, what they are compared with."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benches import bulk, copies, memory, ops, roundtrip, shapes, startup, steps
from benches.machine import describe
from benches.report import Report, baseline_path
from benches.rounds import Plan

GROUPS = {
    "ops": ops.run,
    "memory": memory.run,
    "shapes": shapes.run,
    "roundtrip": roundtrip.run,
    "bulk": bulk.run,
    "copies": copies.run,
    "steps": steps.run,
    "startup": startup.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("--only", action="append", choices=sorted(GROUPS), help="run this group (may be repeated)")
    parser.add_argument("--quick", action="store_true", help="smaller counts and sizes, so that CI can run it")
    parser.add_argument("--long", action="store_true", help="memory: 10,000,000 operators instead of 1,000,000")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--save-baseline", metavar="NAME", help="keep the figures as bench-NAME.json")
    parser.add_argument("--compare", metavar="NAME", help="show the change since bench-NAME.json")
    parser.add_argument(
        "--device", choices=("sky", "cpu"), default="sky", help="cpu: stand-in, proves the benches only"
    )
    args = parser.parse_args()

    console = Console(width=None if sys.stdout.isatty() else 150)
    plan = Plan(quick=args.quick, long=args.long, stand_in=args.device == "cpu")
    report = Report(console, baseline=args.compare)
    console.print(describe(plan))
    for name, run in GROUPS.items():
        if not args.only or name in args.only:
            report.group(name)
            try:
                run(plan, report)
            except Exception as error:  # one broken group must not hide the figures of the others
                console.print_exception(max_frames=8)
                report.failed(f"{type(error).__name__}: {error}")
            report.print_group()
    report.print_summary()
    for path in filter(None, (args.json, args.save_baseline and baseline_path(args.save_baseline))):
        report.write(path)
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
