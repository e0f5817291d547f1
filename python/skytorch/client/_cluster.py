"""Cluster: several Computes that are applied, awaited and deleted together, each on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

from skytorch import errors
from skytorch.client import _threads
from skytorch.client._compute import DEFAULT_GRACE_S, Compute, refuse_running_loop
from skytorch.client._signals import termination
from skytorch.providers import Cancel

logger = logging.getLogger("skytorch")
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

        def start(compute: Compute, cancel: Cancel) -> None:
            compute._start(timeout or compute._spec.timeout_s, cancel, claim=False)

        with termination.settling(*self._computes):
            await _threads.run(lambda cancel: self._start(start, cancel), name="cluster-ready")
        return self

    async def delete(self, grace_period_seconds: float = DEFAULT_GRACE_S) -> None:
        """Take all away."""
        if not self._is_parents:
            with termination.settling(*self._computes):
                await _threads.run(lambda cancel: self._delete(grace_period_seconds), name="cluster-delete")

    async def __aenter__(self) -> Self:
        self._begin()
        with termination.settling(*self._computes):
            await _threads.run(lambda cancel: self._start(_enter, cancel), name="cluster-enter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_parents:
            with termination.settling(*self._computes):
                await _threads.run(lambda cancel: self._leave(error, cancel), name="cluster-leave")

    def __enter__(self) -> Self:
        refuse_running_loop("Cluster(...)")
        self._begin()
        with termination.settling(*self._computes):
            self._start(_enter, Cancel())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._is_parents:
            with termination.settling(*self._computes):
                self._leave(error, Cancel())

    @property
    def _is_parents(self) -> bool:
        return any(compute._is_parents for compute in self._computes)

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
        except BaseException as error:  # Ctrl-C or a cancellation: nothing stays
            cancel.request()
            self._delete_after(error)
            raise
        if failed:
            summary = self._summary("could not be made ready", failed)
            self._delete_after(summary)
            raise summary

    def _delete(self, grace_period_s: float) -> None:
        failed = self._each(lambda compute, cancel: compute._delete(grace_period_s), Cancel())
        if failed:
            raise self._summary("could not be deleted", failed)

    def _delete_after(self, error: BaseException) -> None:
        """Delete; trouble with that becomes notes of the error on its way; a cancellation shows none."""
        try:
            self._delete(DEFAULT_GRACE_S)
        except ExceptionGroup as trouble:
            for problem in trouble.exceptions:
                error.add_note(f"cleaning up failed too: {problem}")
            if isinstance(error, asyncio.CancelledError):
                logger.error("%s", trouble)

    def _leave(self, error: BaseException | None, cancel: Cancel) -> None:
        failed = self._each(lambda compute, cancel: compute._leave(error, cancel), cancel)
        if failed:
            raise self._summary("failed", failed)

    def _summary(self, what: str, failed: dict[str, BaseException]) -> BaseException:
        """One error for those of several Computes; what is none (Ctrl-C, a cancellation) stands for all."""
        problems = []
        for name, error in failed.items():
            if not isinstance(error, Exception):
                return error
            error.add_note(f"compute {name!r}")
            problems.append(error)
        return ExceptionGroup(f"{len(failed)} of {len(self)} computes {what}: {', '.join(failed)}", problems)

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
