"""Every case of op_db that `sky` does not get right, with its reason. The aim: only what the CPU itself cannot.

An entry names operator, kind of verdict and dtype as shell patterns; what it allows is counted apart in the table,
and in a full run one that allows nothing is an error.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any


@dataclass(frozen=True)
class Allowed:
    operator: str
    verdict: str
    reason: str
    dtype: str = "*"
    case: str = "*"

    def covers_operator(self, name: str) -> bool:
        return fnmatchcase(name, self.operator)

    def covers(self, outcome: dict[str, Any]) -> bool:
        return self.covers_operator(outcome["operator"]) and all(
            fnmatchcase(outcome[key], getattr(self, key)) for key in ("verdict", "dtype", "case")
        )


VALUES = "refused because of values (an index, a probability), which are known on the server only: at the next wait"
POSITIONS = (
    "the CPU's kernel keeps where a maximum came from only where its inputs require a gradient; a server's do not"
)
BY_DEVICE = "torch's Python code chooses its precision by the name of the device: docs/device_branches.md"
TWIN_WORDS = "out= of another dtype: the client refuses it in its own words before the kernel sees it"

ALLOWED: tuple[Allowed, ...] = (
    Allowed("gather", "refused late", VALUES),
    Allowed("scatter", "refused late", VALUES),
    Allowed("scatter_add", "refused late", VALUES),
    Allowed("multinomial", "refused late", VALUES),
    Allowed("multinomial", "refused in other words", TWIN_WORDS, case="error 2"),
    Allowed("complex", "refused in other words", TWIN_WORDS, case="error 2"),
    Allowed("sparse.mm@reduce", "raised InvalidArgument", POSITIONS),
    Allowed("nn.functional.linear_cross_entropy@chunked*", "*ward: [bv]*", BY_DEVICE, dtype="bfloat16"),
    Allowed(
        "linalg.lu_solve",
        "forward: flags",
        "the CPU leaves the conjugation of its result to the conj bit, sky carries it out; the values are equal",
        dtype="complex64",
    ),
)
