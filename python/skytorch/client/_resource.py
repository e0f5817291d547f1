"""`Compute.resource`: the Kubernetes resource, or, on the other providers, a plain object of the same shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from skytorch.providers import Condition


@dataclass(frozen=True, kw_only=True)
class Metadata:
    """`.metadata` of a resource."""

    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    creation_timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Status:
    """`.status` of a resource."""

    conditions: tuple[Condition, ...] = ()
    address: str | None = None


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What was applied and how it fares. A new one replaces it at each change; one that you hold does not change."""

    metadata: Metadata
    spec: Mapping[str, Any]
    status: Status = field(default_factory=Status)
    api_version: str = "skytorch.dev/v1alpha1"
    kind: str = "Compute"

    def with_condition(self, condition: Condition) -> Resource:
        """The resource with this condition in place of the one of the same type."""
        before = {known.type: known for known in self.status.conditions}
        old = before.get(condition.type)
        if old is not None and old.status == condition.status:
            condition = replace(condition, last_transition_time=old.last_transition_time)
        before[condition.type] = condition
        return replace(self, status=replace(self.status, conditions=tuple(before.values())))

    def condition(self, type: str) -> Condition | None:
        """The condition of that type."""
        return next((known for known in self.status.conditions if known.type == type), None)
