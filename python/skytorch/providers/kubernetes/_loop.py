"""The process's one control loop: a thread with an event loop on which everything about Kubernetes runs.

It is owned by the Computes that use it: the first one starts it, the last one ends it. Blocking callers hand it a
coroutine and wait. The subtle thing: a caller that stops waiting (Ctrl-C, a cancellation) returns only when the
coroutine has ended too, so that what it undoes is undone. A forked child starts a loop of its own. Whoever comes
after the end (a log that is still read, a cancellation that is late) has nothing left to do, or is refused.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, ClassVar, Protocol, TypeVar

from skytorch import errors
from skytorch.providers._protocol import Cancel

END_S = 10.0  # for a coroutine that was told to end


class Closable(Protocol):
    """Something that is closed with the loop."""

    async def close(self) -> None:
        """Close it."""


T = TypeVar("T")
C = TypeVar("C", bound=Closable)


class Executor(ThreadPoolExecutor):
    """Threads, also for aiohttp. Where Python is on its way out and starts none, the work is done on the spot."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have it done."""
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            done: Future[T] = Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except BaseException as error:
                done.set_exception(error)
            return done


class ControlLoop:
    """A thread that runs an event loop for as long as somebody holds it."""

    _current: ClassVar[ControlLoop | None] = None
    _current_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._holders = 0
        self._open = True
        self._open_lock = threading.Lock()  # what is handed over while it is open is also run
        self._shared: dict[Hashable, asyncio.Task[Any]] = {}
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(Executor(thread_name_prefix="skytorch-kubernetes"))
        self._thread = threading.Thread(target=self._run, name="skytorch-kubernetes", daemon=True)
        self._thread.start()

    @classmethod
    def hold(cls) -> ControlLoop:
        """The process's loop, started if there is none. Each `hold` needs its `let_go`."""
        with cls._current_lock:
            if cls._current is None or cls._current._pid != os.getpid():
                cls._current = ControlLoop()
            cls._current._holders += 1
            return cls._current

    def let_go(self) -> None:
        """End the loop if nobody else holds it."""
        with ControlLoop._current_lock:
            self._holders -= 1
            if self._holders > 0 or self._pid != os.getpid():
                return
            if ControlLoop._current is self:
                ControlLoop._current = None
        self.call(self._loop.stop)
        self._thread.join(END_S)

    def run(self, work: Coroutine[Any, Any, T], *, cancel: Cancel | None = None) -> T:
        """Run a coroutine on the loop and wait for it. Not to be called on the loop's own thread."""
        done: Future[T] = Future()
        started: Future[asyncio.Task[T]] = Future()

        def settle(task: asyncio.Task[T]) -> None:
            if task.cancelled():
                done.set_exception(asyncio.CancelledError())
            elif (error := task.exception()) is not None:
                done.set_exception(error)
            else:
                done.set_result(task.result())

        def begin() -> None:
            task = self._loop.create_task(work)
            task.add_done_callback(settle)
            started.set_result(task)

        def end() -> None:
            self.call(lambda: started.result().cancel())

        if not self.call(begin):
            work.close()
            raise self._over()
        if cancel is not None:
            cancel.when_requested(end)
        try:
            return done.result()
        except BaseException:
            if not done.done():  # Ctrl-C here, not a failure there
                end()
                try:
                    done.exception(END_S)
                except (TimeoutError, asyncio.CancelledError):
                    pass
            raise

    async def share(self, key: Hashable, make: Callable[[], Awaitable[C]]) -> C:
        """The thing of that key, made if there is none; it is closed with the loop. Called on the loop."""

        async def made() -> C:
            return await make()

        task: asyncio.Task[C] | None = self._shared.get(key)
        if task is None or (task.done() and (task.cancelled() or task.exception() is not None)):
            task = self._shared[key] = asyncio.ensure_future(made())
        return await asyncio.shield(task)

    def start(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a coroutine on the loop and do not wait. It must not raise."""
        if not self.call(self._loop.create_task, work):
            work.close()
            raise self._over()

    def call(self, function: Callable[..., object], *arguments: Any) -> bool:
        """Call a function on the loop's thread. Whether the loop still runs; if not, nothing happens."""
        if self._pid != os.getpid():  # whose lock this is not
            return False
        with self._open_lock:
            if not self._open:
                return False
            self._loop.call_soon_threadsafe(function, *arguments)
            return True

    def _over(self) -> errors.SkyTorchError:
        if self._pid != os.getpid():
            return errors.ForkedSession(
                f"the connection with the cluster is of process {self._pid}, which this one was forked from: open a "
                "Compute of its own here"
            )
        return errors.SessionClosed("the connection with the cluster was closed with its last Compute: open another")

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            with self._open_lock:
                self._open = False
            self._loop.run_until_complete(self._end())
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    async def _end(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for shared in self._shared.values():
            if not shared.cancelled() and shared.exception() is None:
                await shared.result().close()
