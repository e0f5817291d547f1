"""The Lease `skytorch-<name>`: one client at a time holds a Compute.

It is renewed on the control loop, so a program that computes for an hour keeps it. Expiry goes by the API server's
clock. The subtle thing: a client that was taken over learns it at its next renewal, and asks once more before it
deletes anything, because the Compute is then somebody else's.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from skytorch import errors
from skytorch.providers.kubernetes._api import LEASES, Api, Object
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._manifest import API_VERSION, OWNER
from skytorch.providers.kubernetes._owner import Owner, is_dead

logger = logging.getLogger("skytorch")
DURATION_S = 15
RENEW_S = 5.0
ATTEMPTS = 5


class Lease:
    """The claim on the name of one Compute."""

    def __init__(
        self, api: Api, namespace: str, compute: str, owner: Owner, *, on_lost: Callable[[str], None]
    ) -> None:
        self._api = api
        self._on_lost = on_lost
        self._namespace = namespace
        self._compute = compute
        self._name = f"skytorch-{compute}"
        self._owner = owner
        self._owned_by: list[Object] = []
        self._object: Object | None = None
        self._write = asyncio.Lock()
        self.lost_to: str | None = None  # who took it over

    async def acquire(self, *, adopt: bool) -> bool:
        """Take it, or raise naming who holds it. Whether it was taken from somebody who had not given it back."""
        for _ in range(ATTEMPTS):
            found = await self._api.find(LEASES, self._namespace, self._name)
            try:
                if found is None:
                    self._object = await self._api.create(LEASES, self._namespace, self._wanted({}))
                    return False
                holder = found["spec"].get("holderIdentity")
                if holder and not adopt and self._is_alive(found):
                    raise errors.InvalidArgument(
                        f"name: compute {self._compute!r} in namespace {self._namespace!r} is held by {holder}; "
                        "adopt=True takes it over"
                    )
                self._object = await self._api.replace(LEASES, self._namespace, self._name, self._wanted(found))
                return bool(holder)
            except Refused as refused:
                if refused.status != 409:
                    raise
        raise errors.ComputeFailed(f"compute {self._compute!r} could not be claimed: others claim it too; try again")

    async def bind(self, compute: Object) -> None:
        """Have the cluster delete the Lease with the Compute."""
        metadata = compute["metadata"]
        self._owned_by = [
            {"apiVersion": API_VERSION, "kind": "Compute", "name": metadata["name"], "uid": metadata["uid"]}
        ]
        if self._object is not None and self._object["metadata"].get("ownerReferences") != self._owned_by:
            await self._renew()

    async def keep(self) -> None:
        """Renew it for ever, or until somebody else has it."""
        while self.lost_to is None:
            await asyncio.sleep(RENEW_S)
            try:
                await self._renew()
            except (Refused, errors.SkyTorchError) as error:
                logger.debug("%s: the lease could not be renewed: %s", self._compute, error)

    async def is_ours(self) -> bool:
        """Whether nobody has taken it over, by what the API server says now."""
        if self.lost_to is None:
            found = await self._api.find(LEASES, self._namespace, self._name)
            self._note(found)
        return self.lost_to is None

    async def release(self) -> None:
        """Give it back, if it is ours."""
        async with self._write:
            held, self._object = self._object, None
            if held is not None and self.lost_to is None:
                metadata = held["metadata"]
                await self._api.delete(
                    LEASES, self._namespace, self._name, uid=metadata["uid"], version=metadata["resourceVersion"]
                )

    async def _renew(self) -> None:
        async with self._write:
            if self._object is None or self.lost_to is not None:
                return
            try:
                wanted = self._wanted(self._object)
                self._object = await self._api.replace(LEASES, self._namespace, self._name, wanted)
            except Refused as refused:
                if refused.status not in (404, 409):
                    raise
                found = await self._api.find(LEASES, self._namespace, self._name)
                self._note(found)
                if found is not None:
                    self._object = found
                elif self.lost_to is None:  # it went with an earlier Compute of this name
                    self._object = await self._api.create(LEASES, self._namespace, self._wanted({}))

    def _note(self, found: Object | None) -> None:
        holder = found["spec"].get("holderIdentity") if found is not None else None
        if holder and holder != str(self._owner):
            self.lost_to = holder
            logger.warning("compute %r was taken over by %s", self._compute, holder)
            self._on_lost(f"it was taken over by {holder}")

    def _is_alive(self, found: Object) -> bool:
        if is_dead(owner_of(found)):
            return False
        spec = found["spec"]
        renewed = spec.get("renewTime")
        if renewed is None:
            return False
        lasts = timedelta(seconds=spec.get("leaseDurationSeconds") or DURATION_S)
        return datetime.fromisoformat(renewed) + lasts > self._api.now()

    def _wanted(self, found: Object) -> Object:
        """The Lease as ours, renewed now. Of an earlier holder's, only the identity of the object stays."""
        now = self._api.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        ours = found.get("spec", {}).get("holderIdentity") == str(self._owner)
        metadata: dict[str, Any] = {
            "name": self._name,
            "annotations": {OWNER: json.dumps(self._owner.told())},
            "labels": {"app.kubernetes.io/managed-by": "skytorch-client"},
            "ownerReferences": self._owned_by,
        }
        if version := found.get("metadata", {}).get("resourceVersion"):
            metadata["resourceVersion"] = version
        return {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": str(self._owner),
                "leaseDurationSeconds": DURATION_S,
                "acquireTime": found["spec"].get("acquireTime", now) if ours else now,
                "renewTime": now,
                "leaseTransitions": found.get("spec", {}).get("leaseTransitions", 0) + (0 if ours else 1),
            },
        }


def owner_of(resource: Object) -> Any:
    """What an object's annotation says of its owner, or None."""
    try:
        return json.loads(resource["metadata"].get("annotations", {})[OWNER])
    except (KeyError, ValueError):
        return None
