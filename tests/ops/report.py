"""What a run of the pool means: the table, and what of it is wrong."""

from __future__ import annotations

from collections import Counter
from typing import Any

from exceptions import ALLOWED
from op_run import Results
from rich.console import Console
from rich.table import Table
from waits import PAGE, listed

FINE = ("agreed", "refused alike")


class Report:
    def __init__(self, results: Results) -> None:
        self.results = results
        self.used: set[int] = set()
        self.failed: list[dict[str, Any]] = []
        self.allowed: Counter[tuple[str, str]] = Counter()  # (dtype, reason)
        for outcome in results.outcomes:
            if outcome["verdict"] in FINE:
                continue
            found = [i for i, entry in enumerate(ALLOWED) if entry.covers(outcome)]
            self.used.update(found)
            if found:
                self.allowed[outcome["dtype"], ALLOWED[found[0]].reason] += 1
            else:
                self.failed.append(outcome)

    def stale(self) -> list[str]:
        """Exceptions that no outcome needed."""
        unused = [entry for i, entry in enumerate(ALLOWED) if i not in self.used]
        return [f"{entry.operator} {entry.verdict} {entry.dtype} {entry.case}" for entry in unused]

    def wrong(self) -> list[str]:
        """A line for everything that must not be."""
        lines = [f"{o['operator']} {o['case']}: {o['verdict']}: {o['detail']}" for o in self.failed]
        lines += [f"{d['operator']} {d['case']}: the process died: {d['status']}" for d in self.results.deaths]
        lines += [f"{h['operator']} {h['case']}: hung" for h in self.results.hangs]
        lines += [f"{name} waits, and {PAGE.name} does not say so" for name in sorted(self.waited() - listed())]
        return lines

    def waited(self) -> set[str]:
        """Operators that took a round trip though nothing was refused."""
        return {name for o in self.results.outcomes if o["verdict"] == "agreed" for name in o["waits"]}

    def table(self) -> Table:
        table = Table(title="op_db on sky against the CPU, bit by bit")
        for column in ("dtype", "operators", "cases", "agreed", "refused alike", "failed by reason", "allowed"):
            table.add_column(column)
        for column in ("deaths", "hangs", "wrong values"):
            table.add_column(column, justify="right")
        for dtype in dict.fromkeys(o["dtype"] for o in self.results.outcomes):
            seen = [o for o in self.results.outcomes if o["dtype"] == dtype]
            failed = Counter(o["verdict"] for o in self.failed if o["dtype"] == dtype)
            verdicts = Counter(o["verdict"] for o in seen)
            table.add_row(
                dtype,
                str(len({o["operator"] for o in seen})),
                str(len(seen)),
                str(verdicts["agreed"]),
                str(verdicts["refused alike"]),
                "\n".join(f"{count} {reason}" for reason, count in failed.most_common()) or "none",
                "\n".join(f"{n} {reason}" for (d, reason), n in self.allowed.items() if d == dtype) or "none",
                str(verdicts["server died"] + sum(d["dtype"] == dtype for d in self.results.deaths)),
                str(sum(h["dtype"] == dtype for h in self.results.hangs)),
                str(sum(count for verdict, count in failed.items() if verdict.endswith((": value", ": bits")))),
            )
        return table

    def print(self, most: int = 200) -> None:
        console = Console(width=160, soft_wrap=True)
        for line in self.wrong()[:most]:
            console.print(line[:400], markup=False, highlight=False)
        if len(self.wrong()) > most:
            console.print(f"... and {len(self.wrong()) - most} more")
        for slow in self.results.slow_on_cpu:
            console.print(f"left out, the CPU itself takes too long: {slow}", markup=False)
        for without in self.results.without_samples:
            console.print(f"left out, torch makes no samples: {without}", markup=False)
        Console(width=160).print(self.table())
