"""`python tests/ops/soak_programs.py`: random programs on `sky` against the CPU, bit by bit, in processes.

The seed of every program that differs is printed, and the program without the steps that it differs without.
`--seed N --programs 1` runs one again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pool import Child, in_parallel

CHUNK = 25  # programs that a process is asked for at once


@dataclass
class Soaked:
    run: int = 0
    steps: int = 0
    different: list[dict[str, Any]] = field(default_factory=list)
    deaths: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)

    def wrong(self) -> list[str]:
        lines = [f"seed {d['seed']}: {d['difference']}\n{d['program']}" for d in self.different]
        return (
            lines + [f"{line}: the process died" for line in self.deaths] + [f"{line}: hung" for line in self.hangs]
        )


def soak(first: int, count: int, *, jobs: int, limit_s: float = 300) -> Soaked:
    """Programs `first` to `first + count`. `limit_s`: for one of them, a shrinking included."""
    soaked = Soaked()
    command = [str(Path(__file__)), "--worker"]

    def work(child: Child, start: int) -> None:
        stop = min(start + CHUNK, first + count)
        while start < stop:
            child.send(f"{start} {stop}")
            while start < stop:
                line = child.line(limit_s)
                if not isinstance(line, dict):
                    (soaked.hangs if line == "silent" else soaked.deaths).append(f"seed {start}, {line}")
                    child.end()
                    start += 1
                    break
                soaked.run += 1
                soaked.steps += line["n_steps"]
                if line["difference"]:
                    soaked.different.append(line)
                start += 1
        print(f"\r{soaked.run} programs, {len(soaked.different)} differ", end="", file=sys.stderr, flush=True)

    in_parallel(list(range(first, first + count, CHUNK)), work, command, jobs)
    return soaked


def worker() -> None:
    sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "python"), str(Path(__file__).resolve().parents[1])]
    import skytorch  # noqa: F401
    from op_server import Server
    from program import Program, describe, difference

    warnings.simplefilter("ignore")
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    server = Server("soak")
    for line in sys.stdin:
        start, stop = map(int, line.split())
        for seed in range(start, stop):
            program = Program.of(seed)
            told: dict[str, Any] = {"seed": seed, "n_steps": program.size(), "difference": None}
            if difference(program, server.device()) is not None:
                server.died()  # takes what the program left behind
                told.update(describe(program, server.device))
                server.died()
            out.write(json.dumps(told) + "\n")
    server.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--programs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0, help="of the first program")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker()
        return 0
    soaked = soak(options.seed, options.programs, jobs=options.jobs)
    print(file=sys.stderr)
    for line in soaked.wrong():
        print(line)
    counts = f"{len(soaked.different)} differ from the CPU, {len(soaked.deaths)} deaths, {len(soaked.hangs)} hangs"
    print(f"{soaked.run} programs of {soaked.steps} steps, seeds from {options.seed}: {counts}")
    return 1 if soaked.wrong() else 0


if __name__ == "__main__":
    sys.exit(main())
