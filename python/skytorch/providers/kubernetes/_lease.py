"""The Lease `skytorch-<name>`: one client at a time holds a Compute.

It is renewed on the control loop, so a program that computes for an hour keeps it. Expiry goes by the API server's
clock. The subtle things: a client that was taken over learns it at its next renewal, and asks once more before it
changes anything, because the Compute is then somebody else's. And a claim whose answer was lost may be there all the
same, so what counts is whom the API server names as its holder.
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
        self._claimed = False  # or tried to: there may be one in our name
        self._write = asyncio.Lock()
        self.taken_over = False  # from somebody who had not given it back
        self.lost_to: str | None = None  # who took it over

    @property
    def is_held(self) -> bool:
        """Whether it was acquired and has not been released; somebody may have taken it over since."""
        return self._object is not None

    async def acquire(self, *, adopt: bool) -> None:
        """Take it, or raise naming who holds it."""
        for _ in range(ATTEMPTS):
            found = await self._api.find(LEASES, self._namespace, self._name)
            holder = _holder(found)
            if holder != str(self._owner):
                if found is not None and holder and not adopt and self._is_alive(found):
                    raise errors.InvalidArgument(
                        f"name: compute {self._compute!r} in namespace {self._namespace!r} is held by {holder}; "
                        "adopt=True takes it over"
                    )
                self.taken_over = bool(holder)
            self._claimed = True
            try:
                if found is None:
                    self._object = await self._api.create(LEASES, self._namespace, self._wanted({}))
                else:
                    self._object = await self._api.replace(LEASES, self._namespace, self._name, self._wanted(found))
                return
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
            self._note(await self._api.find(LEASES, self._namespace, self._name))
        return self.lost_to is None

    def check(self) -> None:
        """Raise if it is known that somebody has taken it over."""
        if self.lost_to is not None:
            raise errors.ComputeFailed(
                f"compute {self._compute!r} in namespace {self._namespace!r} was taken over by {self.lost_to}; "
                "a new Compute with adopt=True takes it back"
            )

    async def release(self) -> None:
        """Give it back, if it is ours, and renew it no longer. Doing it again changes nothing."""
        async with self._write:
            self._object, self._owned_by = None, []
            if self._claimed and self.lost_to is None:
                found = await self._api.find(LEASES, self._namespace, self._name)
                if found is not None and _holder(found) == str(self._owner):
                    uid, version = found["metadata"]["uid"], found["metadata"]["resourceVersion"]
                    await self._api.delete(LEASES, self._namespace, self._name, uid=uid, version=version)
            self._claimed = False

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
                elif self.lost_to is None:  # somebody deleted it, or it went with an earlier Compute of this name
                    self._object = await self._api.create(LEASES, self._namespace, self._wanted({}))

    def _note(self, found: Object | None) -> None:
        holder = _holder(found)
        if holder and holder != str(self._owner):
            self.lost_to = holder
            logger.warning("compute %r was taken over by %s", self._compute, holder)
            self._on_lost(holder)

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


def _holder(found: Object | None) -> str | None:
    return None if found is None else found["spec"].get("holderIdentity")


def owner_of(resource: Object) -> Any:
    """What an object's annotation says of its owner, or None."""
    try:
        return json.loads(resource["metadata"].get("annotations", {})[OWNER])
    except (KeyError, ValueError):
        return None
