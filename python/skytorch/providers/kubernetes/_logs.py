"""A pod's log through the API server, as a blocking iterator that another thread may close.

The lines are read on the control loop and wait in a queue. The subtle thing: the queue is bounded, so a reader that
stops reading stops the download too, and nothing is kept in memory.
"""

from __future__ import annotations

import asyncio
import logging
import queue
from contextlib import aclosing
from typing import Any

from skytorch import errors
from skytorch.providers.kubernetes._api import PODS, Api
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._loop import ControlLoop
from skytorch.providers.kubernetes._pods import CONTAINER

logger = logging.getLogger("skytorch")
WAITING_LINES = 1000
_END = object()


class LogLines:
    """Iterator of lines, until there are no more (or, followed, the container has ended), or `close`."""

    def __init__(
        self, control: ControlLoop, api: Api, *, namespace: str, compute: str, pod: str, follow: bool
    ) -> None:
        self._control = control
        self._api = api
        self._namespace = namespace
        self._compute = compute
        self._pod = pod
        self._lines: queue.Queue[Any] = queue.Queue()
        self._room = asyncio.Semaphore(WAITING_LINES)
        self._task: asyncio.Task[None] | None = None
        self._ended = False
        control.start(self._begin(follow))

    def __iter__(self) -> LogLines:
        return self

    def __next__(self) -> str:
        if self._ended:
            raise StopIteration
        line = self._lines.get()
        if isinstance(line, str):
            self._control.call(self._room.release)
            return line
        self._ended = True
        if isinstance(line, BaseException):
            raise line
        raise StopIteration

    def close(self) -> None:
        """End it; a `next` that waits in another thread ends too."""
        self._control.call(lambda: self._task.cancel() if self._task is not None else None)
        self._lines.put(_END)

    async def _begin(self, follow: bool) -> None:
        self._task = asyncio.ensure_future(self._read(follow))

    async def _read(self, follow: bool) -> None:
        end: Any = _END
        try:
            await self._take_lines(follow)
        except errors.SkyTorchError as error:
            end = error
        except Exception as error:
            end = errors.InternalError(f"compute {self._compute!r}: {error!r}")
            logger.warning("compute %r: its log is no longer read: %s", self._compute, end, exc_info=error)
        finally:
            self._lines.put(end)

    async def _take_lines(self, follow: bool) -> None:
        query = {"container": CONTAINER, "follow": "true" if follow else "false"}
        try:
            lines = self._api.lines("get", PODS, self._namespace, self._pod, "log", query=query, silence_s=None)
            async with aclosing(lines) as stream:
                async for line in stream:
                    await self._room.acquire()
                    self._lines.put(line.decode(errors="replace").rstrip("\r"))
        except Refused as refused:
            if refused.status not in (400, 404):
                raise refused.explain(self._api.place) from None
            raise errors.ComputeFailed(
                f"compute {self._compute!r}: pod {self._pod} has no log ({refused.message}): "
                "it has not started, is suspended or is gone"
            ) from None
