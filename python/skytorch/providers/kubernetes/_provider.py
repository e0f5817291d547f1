"""The provider object of one Compute: blocking calls of the client's threads, handed to the control loop.

It translates what the API server refuses into SkyTorch's errors, and tells events on a thread of their own, since a
user's callback may block and the loop must not. The subtle thing: the loop is held from the first call to `delete`,
and what was begun on it is undone there, also when the caller was interrupted.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

from skytorch.providers._protocol import Cancel, Endpoint, Event, OnEvent, OnResource, Placement
from skytorch.providers.kubernetes._api import connect
from skytorch.providers.kubernetes._config import Wish
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._holding import Holding
from skytorch.providers.kubernetes._logs import LogLines
from skytorch.providers.kubernetes._loop import ControlLoop

T = TypeVar("T")
NEWS_S = 2.0  # how long a lost session waits for the news of what became of its pod
SUSPENDED_S = 15.0  # beyond the grace period


class KubernetesProvider:
    """Runs one Compute in a cluster."""

    def __init__(self, placement: Placement, wish: Wish, *, on_event: OnEvent, on_resource: OnResource) -> None:
        self._placement = placement
        self._wish = wish
        self._on_resource = on_resource
        self._teller = Teller(placement.name, on_event)
        self._control: ControlLoop | None = None
        self._holding: Holding | None = None

    def start(self, *, timeout_s: float, cancel: Cancel) -> Endpoint:
        """Apply it and wait until its server is ready and can be reached."""
        return self._run(self._start(timeout_s), cancel)

    def apply_suspended(self, *, cancel: Cancel) -> None:
        """Apply it without a pod."""
        self._run(self._apply_suspended(), cancel)

    def stop(self, *, grace_period_s: float) -> None:
        """Suspend it: the pod goes, volumes and name stay."""
        holding = self._holding
        if holding is not None:
            self._run(holding.suspend(grace_period_s + SUSPENDED_S))

    def delete(self, *, grace_period_s: float) -> None:
        """Delete it and wait until it is gone."""
        holding, self._holding = self._holding, None
        control = self._control
        try:
            if holding is not None:
                self._run(holding.delete(grace_period_s))
        finally:
            self._teller.close()
            self._control = None
            if control is not None:
                control.let_go()

    def logs(self, *, follow: bool) -> Iterator[str]:
        """The pod's log, through the API server."""
        holding, control = self._holding, self._control
        if holding is None or control is None:
            return iter(())
        status = (holding.resource or {}).get("status", {})
        return LogLines(
            control, holding.api, namespace=holding.namespace, compute=self._placement.name,
            pod=status.get("podName") or f"{self._placement.name}-0", follow=follow,
        )  # fmt: skip

    def why_lost(self) -> str | None:
        """What became of the pod that a lost session was with."""
        holding = self._holding
        return None if holding is None else holding.pods.why_lost(NEWS_S)

    def _run(self, work: Coroutine[Any, Any, T], cancel: Cancel | None = None) -> T:
        if self._control is None:
            self._control = ControlLoop.hold()
        return self._control.run(self._explained(work), cancel=cancel)

    async def _explained(self, work: Coroutine[Any, Any, T]) -> T:
        holding = self._holding
        try:
            return await work
        except Refused as refused:
            holding = self._holding or holding
            raise refused.explain("the cluster" if holding is None else holding.api.place) from None

    async def _held(self) -> Holding:
        if self._holding is None:
            assert self._control is not None
            api = await connect(self._control, self._wish)
            self._holding = Holding(api, self._placement, on_event=self._teller.tell, on_resource=self._on_resource)
        return self._holding

    async def _start(self, timeout_s: float) -> Endpoint:
        return await (await self._held()).start(timeout_s)

    async def _apply_suspended(self) -> None:
        await (await self._held()).apply(suspend=True)


class Teller:
    """A thread that calls back with events, in their order. It starts with the first and ends with `close`."""

    def __init__(self, compute: str, on_event: OnEvent) -> None:
        self._compute = compute
        self._on_event = on_event
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def tell(self, event: Event) -> None:
        """Hand over an event; called on the control loop."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self._compute}-on-events", daemon=True)
            self._thread.start()
        self._events.put(event)

    def close(self) -> None:
        """End after what was handed over; a callback that blocks is not waited for."""
        self._events.put(None)

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            self._on_event(event)
