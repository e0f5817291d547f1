"""Cluster: several Computes that are applied, awaited and deleted together, each on a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from skytorch import errors
from skytorch.client import _threads
from skytorch.client._compute import DEFAULT_GRACE_S, Compute, refuse_running_loop
from skytorch.providers import Cancel

Step = Callable[[Compute, Cancel], None]


def _enter(compute: Compute, cancel: Cancel) -> None:
    compute._enter(cancel, claim=False)


class Cluster:
    """Computes with one life. If one cannot be had, the others are taken away again."""

    def __init__(self, *computes: Compute) -> None:
        names = [compute.name for compute in computes]
        for name in names:
            if names.count(name) > 1:
                raise errors.InvalidArgument(f"name: two Computes of the cluster are called {name!r}")
        self._computes = computes

    def __iter__(self) -> Iterator[Compute]:
        return iter(self._computes)

    def __getitem__(self, index: int) -> Compute:
        return self._computes[index]

    def __len__(self) -> int:
        return len(self._computes)

    def __repr__(self) -> str:
        return f"Cluster({', '.join(repr(compute) for compute in self._computes)})"

    def is_ready(self) -> bool:
        """Whether every one can be used now."""
        return all(compute.is_ready() for compute in self._computes)

    async def ready(self, timeout: float | None = None) -> Self:
        """Apply all, wait until all are ready and connect. If one fails, none stays."""
        self._begin()
        await _threads.run(
            lambda cancel: self._start(
                lambda compute, stop: compute._start(timeout or compute._spec.timeout_s, stop, claim=False), cancel
            ),
            name="cluster-ready",
        )
        return self

    async def delete(self, grace_period_seconds: float = DEFAULT_GRACE_S) -> None:
        """Take all away."""
        await _threads.run(lambda cancel: self._delete(grace_period_seconds), name="cluster-delete")

    async def __aenter__(self) -> Self:
        self._begin()
        await _threads.run(lambda cancel: self._start(_enter, cancel), name="cluster-enter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _threads.run(lambda cancel: self._leave(error, cancel), name="cluster-leave")

    def __enter__(self) -> Self:
        refuse_running_loop("Cluster(...)")
        self._begin()
        self._start(_enter, Cancel())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave(error, Cancel())

    def _begin(self) -> None:
        for compute in self._computes:
            compute._begin()

    def _start(self, step: Step, cancel: Cancel) -> None:
        try:
            failed = self._each(step, cancel)
            if cancel.requested:
                raise asyncio.CancelledError
            for compute in self._computes:
                if not failed and compute.is_ready():
                    compute.device()  # the indices follow the order of the cluster
        except BaseException:  # Ctrl-C or a cancellation: nothing stays
            cancel.request()
            self._delete(DEFAULT_GRACE_S)
            raise
        if failed:
            self._delete(DEFAULT_GRACE_S)
            self._raise("could not be made ready", failed)

    def _delete(self, grace_period_s: float) -> None:
        failed = self._each(lambda compute, cancel: compute._delete(grace_period_s), Cancel())
        self._raise("could not be deleted", failed)

    def _leave(self, error: BaseException | None, cancel: Cancel) -> None:
        failed = self._each(lambda compute, cancel: compute._leave(error, cancel), cancel)
        self._raise("failed", failed)

    def _raise(self, what: str, failed: dict[str, BaseException]) -> None:
        if not failed:
            return
        names = ", ".join(failed)
        problems = [error for error in failed.values() if isinstance(error, Exception)]
        if len(problems) < len(failed):
            raise next(error for error in failed.values() if not isinstance(error, Exception))
        for name, error in failed.items():
            error.add_note(f"compute {name!r}")
        raise ExceptionGroup(f"{len(failed)} of {len(self)} computes {what}: {names}", problems)

    def _each(self, step: Step, cancel: Cancel) -> dict[str, BaseException]:
        """Take the step for every Compute at once; the errors by name."""
        failed: dict[str, BaseException] = {}

        def body(compute: Compute) -> None:
            try:
                step(compute, cancel)
            except BaseException as error:
                failed[compute.name] = error

        threads = [
            threading.Thread(target=body, args=(compute,), name=f"{compute.name}-step", daemon=True)
            for compute in self._computes
        ]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                thread.join()
        except BaseException:
            cancel.request()
            for thread in threads:
                thread.join()
            raise
        return {compute.name: failed[compute.name] for compute in self._computes if compute.name in failed}
