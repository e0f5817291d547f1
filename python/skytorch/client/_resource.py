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
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    creation_timestamp: datetime = field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True, kw_only=True)
class Status:
    """`.status` of a resource."""

    conditions: tuple[Condition, ...] = ()
    address: str | None = None
    observed_generation: int | None = None
    pod_name: str | None = None
    secret_name: str | None = None
    devices: tuple[str, ...] = ()
    ports: tuple[Mapping[str, Any], ...] = ()
    sessions: int | None = None
    last_used: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What was applied and how it fares. A new one replaces it at each change; one that you hold does not change."""

    metadata: Metadata
    spec: Mapping[str, Any]
    status: Status = field(default_factory=Status)
    api_version: str = "compute.skytorch.dev/v1alpha1"
    kind: str = "Compute"

    @classmethod
    def of_kubernetes(cls, told: Mapping[str, Any]) -> Resource:
        """From the object as the API server tells it."""
        metadata, status = told["metadata"], told.get("status", {})
        return cls(
            metadata=Metadata(
                name=metadata["name"],
                namespace=metadata.get("namespace"),
                uid=metadata.get("uid"),
                generation=metadata.get("generation"),
                resource_version=metadata.get("resourceVersion"),
                labels=metadata.get("labels", {}),
                annotations=metadata.get("annotations", {}),
                creation_timestamp=_time(metadata.get("creationTimestamp")) or datetime.now(UTC),
            ),
            spec=told.get("spec", {}),
            status=Status(
                conditions=tuple(_condition(known) for known in status.get("conditions", [])),
                address=status.get("address"),
                observed_generation=status.get("observedGeneration"),
                pod_name=status.get("podName"),
                secret_name=status.get("secretName"),
                devices=tuple(status.get("devices", [])),
                ports=tuple(status.get("ports", [])),
                sessions=status.get("sessions"),
                last_used=_time(status.get("lastUsed")),
            ),
            api_version=told.get("apiVersion", cls.api_version),
            kind=told.get("kind", cls.kind),
        )

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


def _condition(told: Mapping[str, Any]) -> Condition:
    return Condition(
        type=told["type"],
        status=told["status"],
        reason=told.get("reason", ""),
        message=told.get("message", ""),
        last_transition_time=_time(told.get("lastTransitionTime")) or datetime.now(UTC),
        observed_generation=told.get("observedGeneration"),
    )


def _time(told: str | None) -> datetime | None:
    return None if told is None else datetime.fromisoformat(told)
