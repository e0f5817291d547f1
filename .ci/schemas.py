"""Compares the operators of several torch versions: may a client of one use a server of another?

A client sends every argument by position, and the server refuses what does not fit its own schema in count or kind.
So an operator is a danger only if its arguments changed places without a change of count or kinds; there must be
none.
"""

from __future__ import annotations

import json
import re
import subprocess
from itertools import combinations
from pathlib import Path

# Prints {operator: [[argument, type], ...]} of aten.
LIST = """
import json, torch
print(json.dumps({
    f"{s.name}.{s.overload_name}": [[a.name, str(a.type)] for a in s.arguments]
    for s in torch._C._jit_get_all_schemas() if s.name.startswith("aten::")
}))
"""
Schemas = dict[str, list[list[str]]]


def of(python: Path) -> Schemas:
    """The operators of the torch that this interpreter imports."""
    done = subprocess.run([python, "-c", LIST], check=True, capture_output=True, text=True,
                          env={"SKYTORCH_AUTOLOAD": "0"})  # fmt: skip
    found: Schemas = json.loads(done.stdout)
    return found


def kind(written: str) -> str:
    """What the server can tell apart: an optional may be absent, so it is taken for the thing itself."""
    return re.sub(r"Optional\[(.*)\]", r"\1", written).replace("SymInt", "int")


def is_unnoticed(old: list[list[str]], new: list[list[str]]) -> bool:
    """Whether an argument has another place in the two, and no count or kind shows it."""
    if len(old) != len(new) or any(kind(a[1]) != kind(b[1]) for a, b in zip(old, new, strict=True)):
        return False
    places = {name: i for i, (name, _) in enumerate(old)}
    return any(places.get(name, i) != i for i, (name, _) in enumerate(new))


def compare(pythons: dict[str, Path]) -> list[str]:
    """Print a line for each pair of versions; the operators that a mixed pair would get wrong."""
    known = {version: of(python) for version, python in pythons.items()}
    dangers = []
    for a, b in combinations(known, 2):
        both = known[a].keys() & known[b].keys()
        changed = [name for name in both if known[a][name] != known[b][name]]
        unnoticed = sorted(name for name in changed if is_unnoticed(known[a][name], known[b][name]))
        print(f"torch {a} and {b}: {len(both)} operators in both, {len(changed)} with other arguments, "
              f"{len(unnoticed)} of them unnoticed {' '.join(unnoticed)}".rstrip())  # fmt: skip
        dangers += unnoticed
    return dangers
