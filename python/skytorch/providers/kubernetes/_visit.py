"""Computes of a cluster as the command line sees them: listed, looked at, suspended, deleted, without holding any.

A visit holds no Lease: whatever it changes, the program that holds the Compute learns from its own watch. The subtle
thing is `attach`, the way to a server that somebody else's session is with: metrics have connections of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypeVar

from skytorch import errors
from skytorch.providers._protocol import Endpoint, Event
from skytorch.providers.kubernetes import check_package
from skytorch.providers.kubernetes._config import Wish
from skytorch.providers.kubernetes._loop import ControlLoop

T = TypeVar("T")
Object = dict[str, Any]


class Visit:
    """A look at one namespace, from `with` to its end."""

    def __init__(self, wish: Wish) -> None:
        check_package()
        self._wish = wish

    def __enter__(self) -> Self:
        from skytorch.providers.kubernetes._api import connect

        self._control = ControlLoop.hold()
        try:
            self.api = self._control.run(connect(self._control, self._wish))
        except BaseException:
            self._control.let_go()
            raise
        self.namespace: str = self.api.access.namespace
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._control.let_go()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run something on the control loop; a refusal becomes an error of SkyTorch's."""
        from skytorch.providers.kubernetes._errors import Refused

        try:
            return self._control.run(work)
        except Refused as refused:
            raise refused.explain(self.api.place) from None

    def computes(self) -> list[Object]:
        """All of the namespace."""
        from skytorch.providers.kubernetes._api import COMPUTES

        found: list[Object] = self.run(self.api.list(COMPUTES, self.namespace))["items"]
        return found

    def compute(self, name: str) -> Object:
        """One of them."""
        from skytorch.providers.kubernetes._api import COMPUTES

        return self.run(self.api.get(COMPUTES, self.namespace, name))

    def suspend(self, name: str, suspend: bool) -> None:
        """Say whether it shall rest."""
        from skytorch.providers.kubernetes._api import COMPUTES

        self.compute(name)  # a merge patch of what is not there has a message of its own
        self.run(self.api.merge(COMPUTES, self.namespace, name, {"spec": {"suspend": suspend}}))

    def delete(self, name: str, wait_s: float) -> None:
        """Delete it, and wait until it and its pods are gone."""
        self.run(self._delete(self.compute(name), wait_s))

    def events(self, name: str) -> Iterator[Event]:
        """Its events and those of its pod, the oldest first."""
        from skytorch.providers.kubernetes._events import present

        self.compute(name)
        return self.run(present(self.api, self.namespace, name))

    def logs(self, name: str, *, follow: bool) -> Iterator[str]:
        """The log of its pod."""
        from skytorch.providers.kubernetes._logs import LogLines

        pod = self.compute(name).get("status", {}).get("podName") or f"{name}-0"
        return LogLines(self._control, self.api, namespace=self.namespace, compute=name, pod=pod, follow=follow)

    @contextmanager
    def attach(self, name: str) -> Iterator[Endpoint]:
        """How to reach its server."""
        endpoint, end = self.run(self._attach(self.compute(name)))
        try:
            yield endpoint
        finally:
            self.run(end())

    async def _attach(self, found: Object) -> tuple[Endpoint, Callable[[], Coroutine[Any, Any, None]]]:
        from skytorch.providers.kubernetes._address import cluster_address
        from skytorch.providers.kubernetes._api import SECRETS
        from skytorch.providers.kubernetes._credentials import Credentials
        from skytorch.providers.kubernetes._route import find_way
        from skytorch.providers.kubernetes._state import verdict

        name, stands = found["metadata"]["name"], verdict(found)
        if stands.kind != "ready":
            raise errors.ComputeFailed(f"compute {name!r} has no running server ({stands or stands.kind})")
        credentials = Credentials(f"{name}.{self.namespace}.svc")

        async def end() -> None:
            if tunnel is not None:
                await tunnel.close()
            credentials.remove()

        tunnel = None
        try:
            if not credentials.write(await self.api.get(SECRETS, self.namespace, name)):
                raise errors.ComputeFailed(f"compute {name!r}: its Secret has no token and no ca.crt")
            pod = found["status"].get("podName") or f"{name}-0"
            address, tunnel = await find_way(self.api, self.namespace, name, pod, cluster_address(found), credentials)
        except BaseException:
            await end()
            raise
        return Endpoint(address=f"tls://{address}", token=credentials.token, tls=credentials.tls), end

    async def _delete(self, found: Object, wait_s: float) -> None:
        from skytorch.providers.kubernetes._api import COMPUTES, PODS
        from skytorch.providers.kubernetes._watch import LISTED, watch

        name, uid = found["metadata"]["name"], found["metadata"]["uid"]
        await self.api.delete(COMPUTES, self.namespace, name, uid=uid)
        left: set[str] = set()
        try:
            async with asyncio.timeout(wait_s):
                label = f"compute.skytorch.dev/name={name}"
                async for what, told in watch(self.api, PODS, self.namespace, label=label):
                    if what == LISTED:
                        left = {pod["metadata"]["uid"] for pod in told["items"]}
                    elif what == "DELETED":
                        left.discard(told["metadata"]["uid"])
                    if not left:
                        return
        except TimeoutError:
            raise errors.Timeout(f"compute {name!r} is deleted, but its pod still runs after {wait_s:g} s") from None
