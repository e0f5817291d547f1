"""One line of `skytorch doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One check's outcome: ok True, False, or None for something that need not be there."""

    ok: bool | None
    what: str
    mend: str = ""
