"""Kubernetes Events of a Compute and its pods, each told once, and only those from after the apply.

`events.k8s.io/v1` and `v1` are two views of the same stored objects, so one watch (of `v1`) sees both kinds. The
subtle thing: an event that happens again is the same object with a higher count. It is told again; a change of
anything else is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from skytorch.providers._protocol import Event
from skytorch.providers.kubernetes._api import EVENTS, Api, Object
from skytorch.providers.kubernetes._watch import LISTED, watch

KINDS = ("Compute", "Pod")


class Events:
    """The events of one Compute, in the order in which the API server tells them."""

    def __init__(self, compute: str, on_event: Callable[[Event], None]) -> None:
        self._compute = compute
        self._on_event = on_event
        self._told: dict[str, int] = {}  # uid -> count

    async def follow(self, api: Api, namespace: str, subject: str, version: str) -> None:
        """Tell those about the object of that name, from `version` on, for ever."""
        seen = int(version)
        changes = watch(api, EVENTS, namespace, field=f"involvedObject.name={subject}", version=version)
        async for what, found in changes:
            items = sorted(found["items"], key=_version) if what == LISTED else [found]  # LISTED: after a gap
            for item in items:
                if _version(item) > seen and what != "DELETED":
                    self._note(item)
                seen = max(seen, _version(item))

    def _note(self, found: Object) -> None:
        uid, count = found["metadata"]["uid"], count_of(found)
        if found["involvedObject"].get("kind") in KINDS and count > self._told.get(uid, 0):
            self._told[uid] = count
            self._on_event(event_of(found, self._compute))


async def newest_version(api: Api, namespace: str) -> str:
    """The version of the present: what happens later has a higher one."""
    found = await api.list(EVENTS, namespace, limit=1)
    return str(found["metadata"]["resourceVersion"])


async def present(api: Api, namespace: str, compute: str) -> Iterator[Event]:
    """The events of a Compute and its pod that the API server still keeps, the oldest first."""
    found: list[Object] = []
    for subject in subjects(compute):
        listed = await api.list(EVENTS, namespace, fieldSelector=f"involvedObject.name={subject}")
        found += [item for item in listed["items"] if item["involvedObject"].get("kind") in KINDS]
    return iter(sorted((event_of(item, compute) for item in found), key=lambda event: event.timestamp))


def subjects(compute: str) -> tuple[str, str]:
    """The names that events of a Compute are about."""
    return compute, f"{compute}-0"


def count_of(found: Object) -> int:
    """How often it happened."""
    return int((found.get("series") or {}).get("count") or found.get("count") or 1)


def event_of(found: Object, compute: str) -> Event:
    """The event in SkyTorch's form."""
    series = found.get("series") or {}
    times = (series.get("lastObservedTime"), found.get("lastTimestamp"), found.get("eventTime"),
             found["metadata"].get("creationTimestamp"))  # fmt: skip
    time = next((datetime.fromisoformat(told) for told in times if told), datetime.now(UTC))
    kind: Any = "Warning" if found.get("type") == "Warning" else "Normal"
    return Event(
        reason=found.get("reason") or "", message=found.get("message") or "", type=kind, count=count_of(found),
        timestamp=time, name=compute,
    )  # fmt: skip


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])
