"""Compute: a server somewhere and the session with it, from applying to deleting.

It is not where servers are started (providers/) nor where the session lives (_link.py); it is the order of things
and the promise that leaving always takes the server away. Every change of state runs under one lock, on a thread
that may block: the caller's in `with`, one of its own in `async with`. The subtle thing: a failure on the server
that nobody has read is raised when the block is left, but only if no other exception is on its way; if one is,
leaving waits for what was issued no longer than a moment. A forked child has a copy of all this: leaving does nothing
there, whatever else is asked of it is refused.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from skytorch import errors
from skytorch.client import _threads
from skytorch.client._events import SafeCallback
from skytorch.client._exit import open_computes
from skytorch.client._link import Link
from skytorch.client._metrics import MetricsSnapshot
from skytorch.client._resource import Metadata, Resource
from skytorch.client._signals import termination
from skytorch.client._spec import Options, Spec
from skytorch.client._watch import MetricsWatch, snapshots
from skytorch.providers import Cancel, Condition, Provider, settings

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("skytorch")
DEFAULT_GRACE_S = 30.0
PROMPT_S = 1.0  # for each step of leaving while an exception is on its way
HURRIED = (KeyboardInterrupt, SystemExit, GeneratorExit, asyncio.CancelledError)


class Compute:
    """A server that holds tensors and runs operators. Making one does no I/O."""

    def __init__(self, name: str, **options: Unpack[Options]) -> None:
        self._spec = Spec.check(name, options)
        self._transition = threading.Lock()  # one change of state at a time
        self._watch_lock = threading.Lock()  # guards _resource
        self._provider: Provider | None = None
        self._pid = 0  # the process that has the provider
        self._link: Link | None = None
        self._resource: Resource | None = None
        self._is_told = False  # the provider tells the whole resource, not only conditions
        self._metrics_watch: MetricsWatch | None = None
        self._on_event = SafeCallback(self._spec.on_events, keyword="on_events", compute=name)

    # -- what it is ------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The name that it was given."""
        return self._spec.placement.name

    @property
    def resource(self) -> Any:
        """What was applied, with `.status.conditions`; None until then."""
        return self._resource

    @property
    def server_info(self) -> dict[str, Any]:
        """What is known of the server: versions, and its process and threads where they can be known."""
        return self._connected().server_info

    def is_ready(self) -> bool:
        """Whether it can be used now."""
        resource, link = self._resource, self._link
        ready = resource.condition("Ready") if resource is not None else None
        return ready is not None and ready.status == "True" and link is not None and link.is_open

    def stats(self) -> dict[str, int]:
        """Counters of the session: operations, messages, bytes each way."""
        return self._connected().stats()

    def device(self, type: Any = None, index: int | None = None) -> torch.device:
        """The device of type `sky` that stands for one of the server's: "cuda", "cuda:1", ("cuda", 1), "cpu".

        Without arguments, the best that the server has.
        """
        return self._connected().device(type, index)

    def devices(self) -> list[str]:
        """The devices that the server has."""
        return self._connected().devices

    def __repr__(self) -> str:
        ready = self._resource.condition("Ready") if self._resource is not None else None
        state = (
            "not applied" if ready is None else ("ready" if self.is_ready() else ready.reason.lower() or "not ready")
        )
        return f"<Compute {self.name!r}: {state}>"

    # -- life ------------------------------------------------------------------------------------------------------

    async def ready(self, timeout: float | None = None) -> Self:
        """Apply it, wait until it is ready and connect. Already ready: nothing happens. Default: 300 seconds."""
        self._begin()
        with termination.settling(self):
            await self._in_thread("ready", lambda cancel: self._start(timeout or self._spec.timeout_s, cancel))
        return self

    async def suspend(self) -> None:
        """Take the server away and keep the rest. Its tensors are gone; a failure that nobody has read is raised."""
        self._refuse_in_child()
        await self._in_thread("suspend", self._suspend)

    async def resume(self, timeout: float | None = None) -> None:
        """Bring the server back after `suspend` and connect anew."""
        await self.ready(timeout)

    async def delete(self, grace_period_seconds: float = DEFAULT_GRACE_S) -> None:
        """Take everything away; what was issued has the grace period to end. Doing it again changes nothing."""
        if not self._is_parents:
            with termination.settling(self):
                await self._in_thread("delete", lambda cancel: self._delete(grace_period_seconds))

    async def __aenter__(self) -> Self:
        self._begin()
        with termination.settling(self):
            await self._in_thread("enter", self._enter)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_parents:
            with termination.settling(self):
                await self._in_thread("leave", lambda cancel: self._leave(error, cancel))

    def __enter__(self) -> Self:
        refuse_running_loop("Compute(...)")
        self._begin()
        with termination.settling(self):
            self._enter(Cancel())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_parents:
            with termination.settling(self):
                self._leave(error, Cancel())

    # -- observing -------------------------------------------------------------------------------------------------

    def metrics(self, interval: float = 1.0) -> AsyncIterator[MetricsSnapshot]:
        """A snapshot of the server's measurements now, and one every `interval` seconds."""
        link = self._connected()
        return _threads.iterate(
            lambda: snapshots(self.name, link.endpoint, interval, lives=lambda: link.is_open),
            name=f"{self.name}-metrics",
            kept=16,
        )

    def logs(self, follow: bool = False) -> AsyncIterator[str]:
        """The server's log lines; with `follow`, also those to come."""
        self._refuse_in_child()
        provider = self._provider
        if provider is None:
            raise self._unused()
        return _threads.iterate(lambda: provider.logs(follow=follow), name=f"{self.name}-logs")

    # -- the steps, blocking ---------------------------------------------------------------------------------------

    async def _in_thread(self, step: str, work: Callable[[Cancel], None]) -> None:
        await _threads.run(work, name=f"{self.name}-{step}")

    def _begin(self) -> None:
        """On the caller's thread, before anything is applied: what outlives a process must not outlive its end."""
        self._refuse_in_child()
        if settings.choose(self._spec.provider) == "kubernetes":
            termination.hold(self)

    @property
    def _is_applied(self) -> bool:
        """Whether there is something to take away."""
        return self._provider is not None

    @property
    def _is_parents(self) -> bool:
        """Whether this is a forked child's copy of what its parent has applied."""
        return self._is_applied and self._pid != os.getpid()

    def _refuse_in_child(self) -> None:
        if self._is_parents:
            raise errors.ForkedSession(
                f"compute {self.name!r} is of process {self._pid}, which this one was forked from: open another here"
            )

    def _enter(self, cancel: Cancel, *, claim: bool = True) -> None:
        if self._spec.suspend:
            with self._transition:
                provider = self._apply()
                try:
                    provider.apply_suspended(cancel=cancel)
                except BaseException as error:
                    self._give_up(error)
                    raise
            self._set_condition(Condition(type="Ready", status="False", reason="Suspended"))
        else:
            self._start(self._spec.timeout_s, cancel, claim=claim)

    def _start(self, timeout_s: float, cancel: Cancel, *, claim: bool = True) -> None:
        """Start and connect; `claim` gives the best device its index, which a Cluster does itself, in its order."""
        deadline = time.monotonic() + timeout_s
        with self._transition:
            if self._link is not None and self._link.is_open:
                return
            self._disconnect(DEFAULT_GRACE_S)  # of a server that died
            provider = self._apply()
            try:
                endpoint = provider.start(timeout_s=timeout_s, cancel=cancel)
                left_s = max(1.0, deadline - time.monotonic())
                self._link = Link.connect_or_cancel(self.name, endpoint, timeout_s=left_s, cancel=cancel)
                if claim:
                    self._link.device(None, None)
                if cancel.requested:
                    raise asyncio.CancelledError
            except BaseException as error:
                self._give_up(error)
                raise
            open_computes.add(self)
            self._set_condition(Condition(type="Ready", status="True", reason="Connected"))
            if self._spec.on_metrics is not None:
                callback = SafeCallback(self._spec.on_metrics, keyword="on_metrics", compute=self.name)
                link = self._link
                self._metrics_watch = MetricsWatch(self.name, endpoint, callback, lives=lambda: link.is_open)

    def _apply(self) -> Provider:
        if self._provider is None:
            placement = self._spec.placement
            self._is_told = False
            self._pid = os.getpid()
            self._provider = settings.make(
                self._spec.provider, placement, on_event=self._on_event, on_condition=self._set_condition,
                on_resource=self._set_resource,
            )  # fmt: skip
            metadata = Metadata(name=self.name, labels=placement.labels, annotations=placement.annotations)
            self._resource = Resource(metadata=metadata, spec=self._spec.options)
        return self._provider

    def _give_up(self, error: BaseException) -> None:
        """Nothing stays of what could not be had. That it could not be had is what the user is told."""
        try:
            self._take_away(grace_period_s=5)
        except errors.SkyTorchError as trouble:
            logger.error("%s: %s", self.name, trouble)
        self._set_condition(Condition(type="Ready", status="False", reason="Failed", message=str(error)))

    def _suspend(self, cancel: Cancel) -> None:
        cancel.when_requested(self._hurry)
        with self._transition:
            if self._provider is None:
                raise self._unused()
            failure = self._unread_failure(timeout_s=None)
            self._disconnect(DEFAULT_GRACE_S)
            self._provider.stop(grace_period_s=DEFAULT_GRACE_S)
            self._set_condition(Condition(type="Ready", status="False", reason="Suspended"))
        if failure is not None:
            raise failure

    def _delete(self, grace_period_s: float) -> None:
        with self._transition:
            if self._provider is not None:
                self._take_away(grace_period_s=grace_period_s)
                self._set_condition(Condition(type="Ready", status="False", reason="Deleted"), at_the_end=True)

    def _leave(self, error: BaseException | None, cancel: Cancel) -> None:
        """Wait for what was issued, if the program is not on its way out; then take the server away in any case."""
        failure: Exception | None = None
        grace_s = DEFAULT_GRACE_S if error is None else PROMPT_S
        cancel.when_requested(self._hurry)
        try:
            if not isinstance(error, HURRIED):
                failure = self._unread_failure(timeout_s=None if error is None else PROMPT_S)
        except BaseException:  # Ctrl-C
            grace_s = PROMPT_S
            raise
        finally:
            self._delete_after(error, grace_period_s=PROMPT_S if cancel.requested else grace_s)
        if failure is not None and error is None:
            raise failure
        if failure is not None and failure is not error:
            logger.error("%s: a failure on the server that nobody had read: %s", self.name, failure)

    def _delete_after(self, error: BaseException | None, *, grace_period_s: float) -> None:
        """Delete; trouble with that does not take the place of the exception that is on its way."""
        try:
            self._delete(grace_period_s)
        except errors.SkyTorchError as trouble:
            if error is None:
                raise
            logger.error("%s: %s", self.name, trouble)

    def _hurry(self) -> None:
        """End another thread's wait for what was issued. Returns at once: it is called on an event loop's thread."""
        link = self._link
        if link is not None:
            close = functools.partial(link.close, timeout_s=PROMPT_S)
            threading.Thread(target=close, name=f"{self.name}-hurry", daemon=True).start()

    def _unread_failure(self, *, timeout_s: float | None) -> Exception | None:
        link = self._link
        if link is None:
            return None
        if not link.is_open:
            logger.warning("%s: its session had ended before it was left", self.name)
            return None
        failure = link.take_failure(timeout_s=timeout_s)
        if timeout_s is not None and isinstance(failure, errors.Timeout):
            logger.warning("%s: left before the server had run what was issued", self.name)
            return None
        return failure

    def _take_away(self, *, grace_period_s: float) -> None:
        with termination.held_back():
            provider, self._provider = self._provider, None
            try:
                self._disconnect(grace_period_s)
            finally:
                if provider is not None:
                    provider.delete(grace_period_s=grace_period_s)

    def _disconnect(self, grace_period_s: float) -> None:
        watch, self._metrics_watch = self._metrics_watch, None
        link, self._link = self._link, None
        open_computes.discard(self)
        if watch is not None:
            watch.stop()
        if link is not None:
            link.close(timeout_s=grace_period_s)

    def _set_condition(self, condition: Condition, *, at_the_end: bool = False) -> None:
        """A condition of ours; of a resource that the provider tells, only the last one."""
        with self._watch_lock:
            if self._resource is not None and (at_the_end or not self._is_told):
                self._resource = self._resource.with_condition(condition)

    def _set_resource(self, told: Mapping[str, Any]) -> None:
        resource = Resource.of_kubernetes(told)
        with self._watch_lock:
            self._is_told = True
            self._resource = resource

    def _why_lost(self) -> str:
        """Why the session is gone, if it is and that is known."""
        link, provider = self._link, self._provider
        if link is None or provider is None or link.is_open:
            return ""
        why = provider.why_lost()
        return "" if why is None else f"compute {self.name!r}: {why}"

    def _connected(self) -> Link:
        self._refuse_in_child()
        if self._link is None:
            raise self._unused()
        return self._link

    def _unused(self) -> errors.SkyTorchError:
        return errors.SessionClosed(
            f"compute {self.name!r} is not connected: use it inside `async with` or `with`, or await its ready()"
        )


def refuse_running_loop(what: str) -> None:
    """`with` blocks its thread, which inside an event loop would stop everything else."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError(f"an event loop runs here: write `async with {what} as ...` instead of `with`")
