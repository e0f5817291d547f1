"""One Compute as this client holds it, on the control loop: its Lease, what was applied, and all that watches it.

It is the order of things: claim, look at the present, apply, watch, wait, choose a way; and back. The subtle thing
is what `delete` may do: only the object of the uid that was applied, only while the Lease is ours, and it ends when
the object and its pods are gone, or when its time is up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from skytorch import errors
from skytorch.providers._protocol import Endpoint, Event, Placement
from skytorch.providers.kubernetes import _address, _manifest, has_account
from skytorch.providers.kubernetes._api import COMPUTES, PODS, Api, Object
from skytorch.providers.kubernetes._credentials import Credentials
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._events import Events, newest_version, subjects
from skytorch.providers.kubernetes._lease import Lease
from skytorch.providers.kubernetes._owner import Owner
from skytorch.providers.kubernetes._pods import Pods
from skytorch.providers.kubernetes._route import find_way
from skytorch.providers.kubernetes._state import verdict
from skytorch.providers.kubernetes._tunnel import Tunnel
from skytorch.providers.kubernetes._watch import LISTED, Pause, watch

logger = logging.getLogger("skytorch")
SECRET_S = 10.0  # for the credentials of a Compute that says it is ready
POD_S = 5.0
GONE_S = 10.0  # for the API server to take the object away, or to come back


class Holding:
    """A claimed Compute."""

    def __init__(
        self,
        api: Api,
        placement: Placement,
        *,
        on_event: Callable[[Event], None],
        on_resource: Callable[[Object], None],
    ) -> None:
        self.api = api
        self.namespace = api.access.namespace
        self.name = _manifest.check_name(placement.name)
        self.pods = Pods(self._lost)
        self.tunnel: Tunnel | None = None
        self.resource: Object | None = None
        self._placement = placement
        self._on_resource = on_resource
        self._owner = Owner.this_process()
        self._lease = Lease(api, self.namespace, self.name, self._owner, on_lost=self.pods.say)
        self._events = Events(self.name, on_event)
        self._credentials = Credentials(f"{self.name}.{self.namespace}.svc")
        self._taken_over = False
        self._watching = False
        self._uid: str | None = None
        self._is_gone = False
        self._deleting = False
        self._changed = asyncio.Event()
        self._failure: Refused | errors.SkyTorchError | None = None
        self._swallowed: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    # -- up --------------------------------------------------------------------------------------------------------

    async def start(self, timeout_s: float) -> Endpoint:
        """Apply, wait until the server is ready, and find the way to it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self.apply(suspend=False)
                await self._until(self._is_ready)
                return await self._endpoint()
        except TimeoutError:
            where = "it was not applied" if self.resource is None else str(verdict(self.resource))
            if self.resource is not None and not self.resource.get("status"):
                where += " (does it run? `skytorch doctor` tells)"
            raise errors.ComputeNotReady(
                f"compute {self.name!r} was not ready within {timeout_s:g} s: {where}"
            ) from None

    async def apply(self, *, suspend: bool) -> None:
        """Claim the name, if it is not ours yet, and apply. Events count from here on."""
        if not self._watching:
            self._taken_over = await self._lease.acquire(adopt=self._placement.adopt)
            self._spawn(self._lease.keep(), "the lease")
        since = None if self._watching else await self._newest_event()
        body = _manifest.compute(self._placement, self._owner, suspend=suspend, taken_over=self._taken_over)
        try:
            found = await self.api.apply(COMPUTES, self.namespace, self.name, body)
        except Refused as refused:
            if not suspend or refused.fields != [".spec.suspend"]:
                raise
            del body["spec"]["suspend"]  # somebody resumed it once: it is patched below
            found = await self.api.apply(COMPUTES, self.namespace, self.name, body)
        if bool(found["spec"].get("suspend")) != suspend:
            found = await self._patch_suspend(suspend)
        self._uid, self._is_gone = found["metadata"]["uid"], False
        self._take_in(found)
        if not self._watching:
            self._watching = True
            self._spawn(self._follow(found["metadata"]["resourceVersion"]), "the Compute", vital=True)
            self._spawn(self._credentials.follow(self.api, self.namespace, self.name), "its Secret", vital=True)
            self._spawn(self._follow_pods(), "its pods")
            for subject in subjects(self.name):
                if since is not None:
                    self._spawn(self._events.follow(self.api, self.namespace, subject, since), "its events")
        self._spawn(self._lease.bind(found), "the lease")

    async def suspend(self, wait_s: float) -> None:
        """Have the operator take the pod away, and wait until it has."""
        self.pods.let_go()
        await self._close_tunnel()
        self._take_in(await self._patch_suspend(True))
        try:
            async with asyncio.timeout(wait_s):
                await self._until(lambda: self._is_gone or self._stands("suspended"))
        except TimeoutError:
            raise errors.Timeout(
                f"compute {self.name!r} was not suspended within {wait_s:g} s: {verdict(self.resource or {})}"
            ) from None

    async def delete(self, grace_period_s: float) -> None:
        """Delete what was applied, wait until it and its pods are gone, and let go of everything."""
        self._deleting = True
        self.pods.let_go()
        try:
            await self._close_tunnel()
            if self._uid is not None and not self._is_gone:
                async with asyncio.timeout(max(GONE_S, grace_period_s)):
                    await self._delete_object()
                    await self._until(lambda: self._is_gone)
                await self._wait_for_pods(grace_period_s)
            await self._lease.release()
        except TimeoutError:
            raise errors.Timeout(
                f"compute {self.name!r} in namespace {self.namespace!r} is not gone yet: see `skytorch ls`; "
                f"`skytorch delete {self.name}` deletes it, or else its idle timeout"
            ) from None
        finally:
            await self.close()

    async def close(self) -> None:
        """End everything that runs for it, and remove the credentials."""
        tasks, self._tasks = self._tasks, set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._credentials.remove()

    # -- the way to it ---------------------------------------------------------------------------------------------

    async def _endpoint(self) -> Endpoint:
        try:
            async with asyncio.timeout(SECRET_S):
                await self._credentials.there()
        except TimeoutError:
            raise errors.ComputeFailed(
                f"compute {self.name!r} is ready, but its Secret {self.name!r} has no token and no ca.crt"
            ) from None
        assert self.resource is not None
        pod = self.resource.get("status", {}).get("podName") or f"{self.name}-0"
        try:
            async with asyncio.timeout(POD_S):
                await self._until(lambda: self.pods.ready(pod))
        except TimeoutError:
            logger.debug("%s: the watch does not tell of pod %s", self.name, pod)
        self.pods.hold(pod)
        peer = _address.cluster_address(self.resource)
        await self._close_tunnel()
        swallowed = self._swallowed is not None and await self._swallowed
        address, self.tunnel = await find_way(
            self.api, self.namespace, self.name, pod, None if swallowed else peer, self._credentials
        )
        return Endpoint(
            address=f"tls://{address}",
            token=self._credentials.token,
            tls=self._credentials.tls,
            peer_address=None if peer is None else f"tls://{peer}",
            info={"pod": pod, "namespace": self.namespace},
        )

    async def _close_tunnel(self) -> None:
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is not None:
            await tunnel.close()

    def _lost(self, why: str) -> None:
        """The session's server is gone: whoever connects to the tunnel's port has to learn it at once."""
        logger.warning("compute %r: %s", self.name, why)
        self._spawn(self._close_tunnel(), "the tunnel")

    # -- watching --------------------------------------------------------------------------------------------------

    async def _follow(self, version: str) -> None:
        field = f"metadata.name={self.name}"
        async for what, found in watch(self.api, COMPUTES, self.namespace, field=field, version=version):
            if what == LISTED:
                if not found["items"]:
                    self._note_gone(self._uid)
                for item in found["items"]:
                    if item["metadata"]["uid"] != self._uid:
                        self._note_gone(self._uid)
                    self._take_in(item)
            elif what == "DELETED":
                self._note_gone(found["metadata"]["uid"])
            else:
                self._take_in(found)

    async def _follow_pods(self) -> None:
        label = f"compute.skytorch.dev/name={self.name}"
        async for what, found in watch(self.api, PODS, self.namespace, label=label):
            self.pods.note(what, found)
            self._changed.set()

    async def _newest_event(self) -> str | None:
        try:
            return await newest_version(self.api, self.namespace)
        except Refused as refused:
            if refused.status != 403:
                raise
            logger.warning("compute %r: no events: %s", self.name, refused.explain(self.api.place))
            return None

    def _take_in(self, found: Object) -> None:
        """What the API server says of the Compute now, unless something newer is known."""
        if found["metadata"]["uid"] != self._uid:
            return
        known = self.resource
        if known is not None and known["metadata"]["uid"] == self._uid and _version(known) > _version(found):
            return
        self.resource = found
        self._on_resource(found)
        self._changed.set()
        address = _address.cluster_address(found)
        if address is not None and self._swallowed is None and not has_account():
            self._swallowed = asyncio.ensure_future(_address.swallows(address))
            self._tasks.add(self._swallowed)

    def _note_gone(self, uid: str | None) -> None:
        if uid != self._uid or self._is_gone:
            return
        self._is_gone = True
        self._changed.set()
        if not self._deleting:
            self.pods.say("the Compute was deleted (by its idle timeout, `skytorch delete` or somebody else)")

    def _is_ready(self) -> bool:
        assert self.resource is not None
        if self._is_gone:
            raise errors.ComputeFailed(f"compute {self.name!r} was deleted before it was ready")
        found = verdict(self.resource)
        if found.kind == "failed":
            raise errors.ComputeFailed(f"compute {self.name!r}: {found}")
        return found.kind == "ready"

    def _stands(self, kind: str) -> bool:
        return self.resource is not None and verdict(self.resource).kind == kind

    async def _until(self, holds: Callable[[], bool]) -> None:
        """Wait for a state that some watch tells of."""
        while not holds():
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()

    def _spawn(self, work: Coroutine[Any, Any, None], what: str, *, vital: bool = False) -> None:
        async def guarded() -> None:
            try:
                await work
            except (Refused, errors.SkyTorchError) as error:
                if vital:
                    self._failure = error
                    self._changed.set()
                told = error.explain(self.api.place) if isinstance(error, Refused) else error
                logger.warning("compute %r: %s can no longer be watched: %s", self.name, what, told)

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _patch_suspend(self, suspend: bool) -> Object:
        return await self.api.merge(COMPUTES, self.namespace, self.name, {"spec": {"suspend": suspend}})

    async def _delete_object(self) -> None:
        """Delete it if it is still ours; an API server that is away is asked again."""
        pause = Pause()
        while True:
            try:
                if not await self._lease.is_ours():
                    self._is_gone = True  # for us
                else:
                    assert self._uid is not None
                    await self.api.delete(COMPUTES, self.namespace, self.name, uid=self._uid)
                    if not self._watching:
                        self._is_gone = True
                return
            except errors.Unreachable as error:
                logger.debug("%s: %s", self.name, error)
                await pause.wait()
            except Refused as refused:
                if refused.status < 500 and refused.status != 429:
                    raise
                await pause.wait()

    async def _wait_for_pods(self, grace_period_s: float) -> None:
        if self._lease.lost_to is not None:
            return
        try:
            async with asyncio.timeout(grace_period_s):
                await self._until(lambda: not self.pods.any_left)
        except TimeoutError:
            logger.info("compute %r was deleted; its pod still ends", self.name)


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])
