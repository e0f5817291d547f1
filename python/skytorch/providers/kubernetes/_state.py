"""What a Compute's conditions say: ready, never ready, or not yet. Pure reading of the resource.

A condition counts only if it is about the present spec: its observedGeneration is that of the object. The operator
says "it will not become ready without a change" with Ready and Progressing both False.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Object = dict[str, Any]


@dataclass(frozen=True)
class Verdict:
    """Where a Compute stands."""

    kind: Literal["ready", "suspended", "failed", "waiting"]
    reason: str = ""
    message: str = ""

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}" if self.message else self.reason


def verdict(resource: Object) -> Verdict:
    """Where it stands by its conditions."""
    ready, progressing = condition(resource, "Ready"), condition(resource, "Progressing")
    if ready is None or not _is_present(resource, ready):
        return Verdict("waiting", "", "the operator has not looked at it yet")
    reason, message = ready.get("reason", ""), ready.get("message", "")
    if ready["status"] == "True":
        return Verdict("ready", reason, message)
    suspended = condition(resource, "Suspended")
    if suspended is not None and suspended["status"] == "True" and _is_present(resource, suspended):
        return Verdict("suspended", suspended.get("reason", ""), suspended.get("message", ""))
    wants_rest = resource["spec"].get("suspend") is True
    if (
        progressing is not None
        and progressing["status"] == "False"
        and _is_present(resource, progressing)
        and not wants_rest
    ):
        return Verdict("failed", reason, message)
    return Verdict("waiting", reason, message)


def condition(resource: Object, type: str) -> Object | None:
    """The condition of that type."""
    conditions = resource.get("status", {}).get("conditions", [])
    return next((known for known in conditions if known.get("type") == type), None)


def _is_present(resource: Object, found: Object) -> bool:
    observed = found.get("observedGeneration", resource.get("status", {}).get("observedGeneration"))
    return bool(observed == resource["metadata"].get("generation"))
