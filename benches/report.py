"""Figures, their targets and how they are shown: a table for each group, a summary, JSON, and baselines.

A figure is met or missed by its own rule; nothing is dropped. Figures without a target are there to be read.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table


def baseline_path(name: str) -> Path:
    return Path(f"bench-{name}.json")


@dataclass
class Figure:
    group: str
    name: str
    value: float
    unit: str
    at_least: float | None = None
    at_most: float | None = None
    detail: str = ""

    @property
    def target(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return f"<= {self.at_most:g}" if self.at_most is not None else ""

    @property
    def met(self) -> bool | None:
        """None: there is no target."""
        if self.at_least is not None:
            return self.value >= self.at_least
        return self.value <= self.at_most if self.at_most is not None else None


@dataclass
class Report:
    console: Console
    baseline: str | None = None
    figures: list[Figure] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    _group: str = ""
    _before: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.baseline:
            saved = json.loads(baseline_path(self.baseline).read_text())
            self._before = {f"{row['group']}/{row['name']}": row["value"] for row in saved["figures"]}

    def group(self, name: str) -> None:
        self._group = name

    def add(self, name: str, value: float, unit: str = "x", **rest: Any) -> None:
        self.figures.append(Figure(self._group, name, value, unit, **rest))

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False)

    def failed(self, reason: str) -> None:
        self.broken.append(f"{self._group}: {reason}")

    def print_group(self) -> None:
        columns = ["figure", "value", "target", "", "detail"]
        if self._before:
            columns.insert(2, f"vs {self.baseline}")
        table = Table(*columns, title=self._group, title_justify="left")
        for row in self.figures:
            if row.group != self._group:
                continue
            verdict = {True: "[green]ok[/green]", False: "[red]missed[/red]", None: ""}[row.met]
            cells = [row.name, f"{row.value:.3g} {row.unit}", row.target, verdict, row.detail]
            if self._before:
                before = self._before.get(f"{row.group}/{row.name}")
                cells.insert(2, f"{row.value / before:.2f}" if before else "new")
            table.add_row(*cells)
        self.console.print(table)

    def print_summary(self) -> None:
        judged = [row for row in self.figures if row.met is not None]
        missed = [row for row in judged if not row.met]
        self.console.print(f"{len(judged) - len(missed)} targets met, {len(missed)} missed")
        for row in missed:
            self.console.print(f"  missed: {row.group}: {row.name}: {row.value:.3g} {row.unit}, wanted {row.target}")
        for reason in self.broken:
            self.console.print(f"  broken: {reason}", soft_wrap=True)

    def write(self, path: Path) -> None:
        rows = [asdict(row) | {"met": row.met} for row in self.figures]
        path.write_text(json.dumps({"figures": rows, "broken": self.broken}, indent=1) + "\n")
