"""A port-forward tunnel: a listener on this machine whose connections go through the API server to a pod.

Each connection has a WebSocket of its own, in Kubernetes' channel protocol (channel 0 carries bytes, channel 1
errors). TLS goes end to end inside. The subtle thing is what a cut means: the wire takes a refused connection for a
server that is gone, and one that is accepted and breaks for a link to try again. So the listener stays while the way
to the pod may come back, and is closed the moment the pod is known to be gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

from skytorch import errors
from skytorch.providers.kubernetes._api import PODS, Api
from skytorch.providers.kubernetes._errors import Refused, may_pass
from skytorch.providers.kubernetes._watch import Pause

logger = logging.getLogger("skytorch")
PIECE_BYTES = 1 << 18
REOPEN_S = 20.0  # for a connection that waits for its way
DATA, ERROR = 0, 1


class Tunnel:
    """A local port that stands for a port of a pod."""

    def __init__(
        self, api: Api, *, compute: str, namespace: str, pod: str, port: int, on_open: Callable[[], Awaitable[None]]
    ) -> None:
        self._api = api
        self._on_open = on_open  # before the first byte of a connection is carried
        self._compute = compute
        self._namespace = namespace
        self._pod = pod
        self._port = port
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._broken = False
        self.opened = 0  # WebSockets so far, for those who count

    async def open(self) -> str:
        """Listen; the local address."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def close(self) -> None:
        """Stop listening and hang up."""
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            socket = await self._reach()
            try:
                await self._on_open()
                await _until_first(self._upward(reader, socket), self._downward(socket, writer))
            finally:
                await socket.close()
        except Exception as error:  # of whatever kind, it is a cut
            self._cut(str(error) or type(error).__name__)
        finally:
            writer.transport.abort()

    async def _reach(self) -> Any:
        """A WebSocket to the pod; while the API server cannot be reached, the connection waits."""
        pause = Pause()
        try:
            async with asyncio.timeout(REOPEN_S):
                while True:
                    try:
                        query = {"ports": self._port}
                        socket = await self._api.websocket(
                            PODS, self._namespace, self._pod, "portforward", query=query
                        )
                        break
                    except (Refused, errors.SkyTorchError) as error:
                        if not may_pass(error):
                            raise
                        self._cut(str(error))
                        await pause.wait()
        except TimeoutError:
            raise errors.Unreachable(f"no way to pod {self._pod} within {REOPEN_S:.0f} s") from None
        self.opened += 1
        if self._broken:
            self._broken = False
            logger.info("compute %r: the tunnel is open again", self._compute)
        return socket

    async def _upward(self, reader: asyncio.StreamReader, socket: Any) -> None:
        while piece := await reader.read(PIECE_BYTES):
            await socket.send_bytes(b"\0" + piece)

    async def _downward(self, socket: Any, writer: asyncio.StreamWriter) -> None:
        greeted = {DATA: False, ERROR: False}  # each channel begins with the port's number
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
                continue
            channel, content = message.data[0], memoryview(message.data)[1:]
            if not greeted.get(channel, True):
                greeted[channel], content = True, content[2:]
            if channel == ERROR and content:
                raise errors.Unreachable(bytes(content).decode(errors="replace").strip())
            if content:
                writer.write(content)
                await writer.drain()
        if socket.exception() is not None:
            raise errors.Unreachable(str(socket.exception()))

    def _cut(self, why: str) -> None:
        if not self._broken:
            self._broken = True
            logger.info(
                "compute %r: the tunnel was cut (%s); it is opened again when it is needed", self._compute, why
            )


async def _until_first(*works: Any) -> None:
    """Run them until one ends, and end the others."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if (error := task.exception()) is not None:
            raise error
