"""How blocking work and an event loop meet: each piece of work gets a thread of its own, never the loop's.

It uses no shared pool: a stuck server must not hold up another Compute. The subtle thing is cancellation: the
awaiting task is told to stop at once, but `run` returns only when the thread has noticed and cleaned up after
itself.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar

from skytorch.providers import Cancel

T = TypeVar("T")
_END = object()


async def run(work: Callable[[Cancel], T], *, name: str) -> T:
    """Run `work` on a new thread and wait for it; a cancellation is passed on to it and waited for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()
    cancel = Cancel()

    def settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def body() -> None:
        result: Any = None
        problem: BaseException | None = None
        try:
            result = work(cancel)
        except BaseException as error:
            problem = error
        try:
            loop.call_soon_threadsafe(settle, result, problem)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more

    threading.Thread(target=body, name=name, daemon=True).start()
    cancelled = False
    while not done.done():
        try:
            await asyncio.wait([done])
        except asyncio.CancelledError:
            cancelled = True
            cancel.request()
    if cancelled:
        done.exception()  # looked at, so that asyncio does not report it as lost
        raise asyncio.CancelledError
    return done.result()


async def iterate(make: Callable[[], Iterator[T]], *, name: str, kept: int | None = None) -> AsyncIterator[T]:
    """The items of a blocking iterator, which lives on a thread of its own. Beyond `kept` of them, old ones drop."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[Any] = asyncio.Queue()
    stop = threading.Event()
    source: list[Any] = []

    def put(item: Any) -> None:
        if kept is not None and queue.qsize() >= kept:
            queue.get_nowait()
        queue.put_nowait(item)

    def send(item: Any) -> None:
        try:
            loop.call_soon_threadsafe(put, item)
        except RuntimeError:
            stop.set()

    def body() -> None:
        end: Any = _END
        try:
            source.append(make())
            for item in source[0]:
                if stop.is_set():
                    break
                send((item,))
        except Exception as error:
            end = error
        send(end)

    threading.Thread(target=body, name=name, daemon=True).start()
    try:
        while True:
            item = await queue.get()
            if item is _END:
                return
            if isinstance(item, Exception):
                raise item
            yield item[0]
    finally:
        stop.set()
        for iterator in source:
            close = getattr(iterator, "close", None)
            if close is not None:
                _close_quietly(close)


def _close_quietly(close: Callable[[], None]) -> None:
    try:
        close()
    except ValueError:
        pass  # a generator that is running on its thread: it ends by itself with its source
