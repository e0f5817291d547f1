"""One Compute as this client holds it, on the control loop: its Lease, what was applied, and the way to it.

It is the order of things: claim, look at the present, apply, watch, wait, choose a way; and back. The subtle thing
is what `delete` may do: only the object of the uid that was applied, only while the Lease is ours, and it ends when
the object and its pods are gone, or when its time is up. An apply whose answer was lost counts: then the object that
names us as its owner is the one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from skytorch import errors
from skytorch.providers._protocol import Endpoint, Event, Placement
from skytorch.providers.kubernetes import _address, _manifest, has_account
from skytorch.providers.kubernetes._api import COMPUTES, Api, Object
from skytorch.providers.kubernetes._credentials import Credentials
from skytorch.providers.kubernetes._errors import Refused, may_pass
from skytorch.providers.kubernetes._lease import Lease, owner_of
from skytorch.providers.kubernetes._owner import Owner
from skytorch.providers.kubernetes._route import find_way
from skytorch.providers.kubernetes._state import verdict
from skytorch.providers.kubernetes._tunnel import Tunnel
from skytorch.providers.kubernetes._view import View
from skytorch.providers.kubernetes._watch import Pause

logger = logging.getLogger("skytorch")
T = TypeVar("T")
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
        self.tunnel: Tunnel | None = None
        self._placement = placement
        self._on_resource = on_resource
        self._owner = Owner.this_process()
        self._lease = Lease(api, self.namespace, self.name, self._owner, on_lost=self._taken_over)
        self._view = View(
            api, self.name, on_event=on_event, on_resource=self._note_resource, on_lost=self._lost,
            on_gone=self._release,
        )  # fmt: skip
        self.pods = self._view.pods
        self._credentials = Credentials(f"{self.name}.{self.namespace}.svc")
        self._keeper: asyncio.Task[None] | None = None
        self._releasing: asyncio.Task[None] | None = None  # the Lease of a Compute that is gone
        self._watching = False
        self._unanswered = False  # an apply was sent, and nobody knows whether it was taken
        self._trouble: Refused | errors.SkyTorchError | None = None  # that is waited out
        self._swallowed: asyncio.Task[bool] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def resource(self) -> Object | None:
        """The Compute as it was told last; None until it was applied."""
        return self._view.resource

    # -- up --------------------------------------------------------------------------------------------------------

    async def start(self, timeout_s: float) -> Endpoint:
        """Apply, wait until the server is ready, and find the way to it."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._patiently(lambda: self.apply(suspend=False), passes=_is_busy)
                await self._view.until(self._is_ready)
                return await self._endpoint()
        except TimeoutError:
            where = "it was not applied" if self._trouble is None else str(self._told(self._trouble))
            if self.resource is not None:
                where = str(verdict(self.resource))
            if self.resource is not None and not self.resource.get("status"):
                where += " (does it run? `skytorch doctor` tells)"
            raise errors.ComputeNotReady(
                f"compute {self.name!r} was not ready within {timeout_s:g} s: {where}"
            ) from None

    async def apply(self, *, suspend: bool) -> None:
        """Claim the name, if it is not ours yet, and apply. Events count from here on."""
        await self._claim()
        since = None if self._watching else await self._view.newest_event()
        body = _manifest.compute(self._placement, self._owner, suspend=suspend, taken_over=self._lease.taken_over)
        try:
            found = await self._send(body)
        except Refused as refused:
            if not suspend or refused.fields != [".spec.suspend"]:
                raise
            del body["spec"]["suspend"]  # somebody resumed it once: it is patched below
            found = await self._send(body)
        if bool(found["spec"].get("suspend")) != suspend:
            found = await self._patch_suspend(suspend)
        self._view.take_in(found)
        if not self._watching:
            self._watching = True
            self._spawn(self._view.follow(found["metadata"]["resourceVersion"]), "the Compute", vital=True)
            self._spawn(self._credentials.follow(self.api, self.namespace, self.name), "its Secret")
            self._spawn(self._view.follow_pods(), "its pods")
            for following in () if since is None else self._view.follow_events(since):
                self._spawn(following, "its events")
        self._spawn(self._patiently(lambda: self._lease.bind(found)), "the lease")

    async def _claim(self) -> None:
        """Acquire the Lease, or make sure that it is still ours."""
        if self._releasing is not None:
            await asyncio.wait([self._releasing])
        if self._lease.is_held:
            await self._lease.is_ours()
        self._lease.check()
        if not self._lease.is_held:
            await self._lease.acquire(adopt=self._placement.adopt)
        if self._keeper is None:
            self._keeper = self._spawn(self._lease.keep(), "the lease", vital=True)

    async def _send(self, body: Object) -> Object:
        self._unanswered = True
        try:
            found = await self.api.apply(COMPUTES, self.namespace, self.name, body)
        except Refused as refused:
            self._unanswered = may_pass(refused)
            raise
        self._unanswered, self._view.is_gone, self._view.uid = False, False, found["metadata"]["uid"]
        return found

    async def suspend(self, wait_s: float) -> None:
        """Have the operator take the pod away, and wait until it has."""
        if self._view.is_gone:
            raise errors.ComputeFailed(f"compute {self.name!r} was deleted; there is nothing left to suspend")
        await self._lease.is_ours()
        self._lease.check()
        self.pods.let_go()
        await self._close_tunnel()
        self._view.take_in(await self._patch_suspend(True))
        try:
            async with asyncio.timeout(wait_s):
                await self._view.until(lambda: self._view.is_gone or self._view.stands("suspended"))
        except TimeoutError:
            raise errors.Timeout(
                f"compute {self.name!r} was not suspended within {wait_s:g} s: {verdict(self.resource or {})}"
            ) from None

    async def delete(self, grace_period_s: float) -> None:
        """Delete what was applied, wait until it and its pods are gone, and let go of everything."""
        self._view.is_deleted_here = True
        self.pods.let_go()
        try:
            await self._close_tunnel()
            if self._unanswered or (self._view.uid is not None and not self._view.is_gone):
                async with asyncio.timeout(max(GONE_S, grace_period_s)):
                    await self._patiently(self._delete_object)
                    await self._view.until(lambda: self._view.is_gone)
                await self._wait_for_pods(grace_period_s)
            async with asyncio.timeout(GONE_S):
                await self._patiently(self._lease.release)
        except TimeoutError:
            why = "" if self._trouble is None else f" ({self._told(self._trouble)})"
            raise errors.Timeout(
                f"compute {self.name!r} in namespace {self.namespace!r} is not gone yet{why}: see `skytorch ls`; "
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
        await self._fetch_credentials()
        assert self.resource is not None
        pod = self.resource.get("status", {}).get("podName") or f"{self.name}-0"
        try:
            async with asyncio.timeout(POD_S):
                await self._view.until(lambda: self.pods.ready(pod))
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

    async def _fetch_credentials(self) -> None:
        pause, deadline = Pause(), time.monotonic() + SECRET_S
        fetch = partial(self._credentials.fetch, self.api, self.namespace, self.name)
        while not await self._patiently(fetch):
            if time.monotonic() > deadline:
                raise errors.ComputeFailed(
                    f"compute {self.name!r} is ready, but its Secret {self.name!r} has no token and no ca.crt"
                )
            await pause.wait()

    async def _close_tunnel(self) -> None:
        tunnel, self.tunnel = self.tunnel, None
        if tunnel is not None:
            await tunnel.close()

    def _lost(self, why: str) -> None:
        """The session's server is gone: whoever connects to the tunnel's port has to learn it at once."""
        logger.warning("compute %r: %s", self.name, why)
        self._spawn(self._close_tunnel(), "the tunnel")

    # -- what is told of it ----------------------------------------------------------------------------------------

    def _note_resource(self, found: Object) -> None:
        self._on_resource(found)
        address = _address.cluster_address(found)
        if address is not None and self._swallowed is None and not has_account():
            self._swallowed = asyncio.ensure_future(_address.swallows(address))
            self._tasks.add(self._swallowed)

    def _release(self) -> None:
        """The Lease goes with the Compute, but a renewal may just have made it anew."""
        self._releasing = self._spawn(self._patiently(self._lease.release), "the lease")

    def _taken_over(self, holder: str) -> None:
        self.pods.say(f"it was taken over by {holder}")
        self._view.look_again()

    def _is_ready(self) -> bool:
        assert self.resource is not None
        self._lease.check()
        if self._view.is_gone:
            raise errors.ComputeFailed(f"compute {self.name!r} was deleted before it was ready")
        found = verdict(self.resource)
        if found.kind == "failed":
            raise errors.ComputeFailed(f"compute {self.name!r}: {found}")
        return found.kind == "ready"

    def _spawn(self, work: Coroutine[Any, Any, None], what: str, *, vital: bool = False) -> asyncio.Task[None]:
        """Run it until `close`. Its failure is told, and if it is vital, so is every wait from then on."""

        async def guarded() -> None:
            try:
                await work
            except Exception as error:
                told = self._told(error)
                if vital:
                    self._view.fail(told)
                bug = error if isinstance(told, errors.InternalError) else None
                logger.warning("compute %r: %s is no longer looked after: %s", self.name, what, told, exc_info=bug)

        task = asyncio.ensure_future(guarded())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _patiently(self, work: Callable[[], Awaitable[T]], passes: Callable[[Exception], bool] = may_pass) -> T:
        """Do it until it works: trouble that passes is waited out, for as long as the caller waits."""
        pause = Pause()
        while True:
            try:
                done = await work()
            except (Refused, errors.SkyTorchError) as error:
                if not passes(error):
                    raise
                logger.debug("%s: %s", self.name, error)
                self._trouble = error
            else:
                self._trouble = None
                return done
            await pause.wait()

    def _told(self, error: Exception) -> errors.SkyTorchError:
        if isinstance(error, Refused):
            return error.explain(self.api.place)
        if isinstance(error, errors.SkyTorchError):
            return error
        return errors.InternalError(f"compute {self.name!r}: {error!r}")

    # -- writing ---------------------------------------------------------------------------------------------------

    async def _patch_suspend(self, suspend: bool) -> Object:
        return await self.api.merge(COMPUTES, self.namespace, self.name, {"spec": {"suspend": suspend}})

    async def _delete_object(self) -> None:
        """Delete it if it is still ours. One that is not is gone for us."""
        if self._unanswered:
            found = await self.api.find(COMPUTES, self.namespace, self.name)
            self._unanswered, self._view.uid = False, None
            if found is not None and owner_of(found) == self._owner.told():
                self._view.uid, self._view.is_gone = found["metadata"]["uid"], False
        if self._view.uid is None or not await self._lease.is_ours():
            self._view.is_gone = True
            return
        await self.api.delete(COMPUTES, self.namespace, self.name, uid=self._view.uid)
        if not self._watching:
            self._view.is_gone = True

    async def _wait_for_pods(self, grace_period_s: float) -> None:
        if self._lease.lost_to is not None:
            return
        try:
            async with asyncio.timeout(grace_period_s):
                await self._view.until(lambda: not self.pods.any_left)
        except TimeoutError:
            logger.info("compute %r was deleted; its pod still ends", self.name)


def _is_busy(error: Exception) -> bool:
    return isinstance(error, Refused) and error.is_busy
