"""A process that runs cases of operators against a server of its own, until its input ends.

Reads lines "operator<TAB>kind<TAB>dtype<TAB>first case" and writes JSON lines: {"at": number} before each case,
{"on": "sky"} when the CPU is done with it, an outcome after it, {"done": true} after the last one. Whoever reads it
knows by these what was running when this process died or stopped answering.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "python"), str(ROOT / "tests")]

import skytorch  # noqa: E402, F401
from op_pair import Outcome, outcome  # noqa: E402
from op_samples import all_operators, cases  # noqa: E402
from op_server import Server  # noqa: E402
from torch_samples import without_stacks  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=0, help="of an operator and dtype; 0 is all")
    options = parser.parse_args()
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what torch prints

    def tell(what: dict[str, Any]) -> None:
        out.write(json.dumps(what) + "\n")

    server = Server("ops")
    operators = all_operators()
    for line in sys.stdin:
        name, kind, dtype, first = line.rstrip("\n").split("\t")
        op = operators[name]
        found = cases(name, op, kind, dtype, options.samples or None)
        number = -1
        while True:
            tell({"at": number + 1, "case": "making samples"})
            try:
                case = next(found, None)
            except Exception as error:
                tell({"no_samples": f"{type(error).__name__}: {error}"[:300]})
                break
            if case is None:
                break
            number += 1
            if number < int(first):
                continue
            tell({"at": number, "case": case.label})
            seen = outcome(name, op, case, server.device(), lambda: tell({"on": "sky"}))
            if seen is not None and seen.verdict not in ("agreed", "refused alike") and server.died():
                seen = Outcome(name, case.label, "server died", seen.detail)
            if seen is not None:
                tell({**asdict(seen), "dtype": dtype, "kind": kind})
        tell({"done": True})
    server.close()


if __name__ == "__main__":
    with without_stacks():  # the generator is seeded before every call
        main()
