"""A raw TCP or Unix peer in a process of its own: what the wire is measured against.

Ping-pong of one byte, and bulk both ways into buffers that exist already. Pieces of 1 MiB were the fastest here.
Targets are against TCP; the Unix peer shows what the machine does to Unix sockets themselves (docs/decisions/0003).
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

PING, UPLOAD, DOWNLOAD = b"p", b"u", b"d"
HEADER = struct.Struct("<cQ")
PIECE = 1 << 20


def receive_into(link: socket.socket, view: memoryview) -> None:
    at = 0
    while at < len(view):
        got = link.recv_into(view[at : at + PIECE])
        if got == 0:
            raise ConnectionError("the raw peer hung up")
        at += got


def serve(link: socket.socket) -> None:
    """The peer: answers one connection until it ends."""
    buffer = bytearray(1)
    header = bytearray(HEADER.size)
    while True:
        try:
            receive_into(link, memoryview(header))
        except ConnectionError:
            return
        command, size = HEADER.unpack(header)
        if command == PING:
            for _ in range(size):
                link.sendall(link.recv(1))
            continue
        if len(buffer) < size:
            buffer = bytearray(size)
        if command == UPLOAD:
            receive_into(link, memoryview(buffer)[:size])
            link.sendall(b"a")
        else:
            link.sendall(memoryview(buffer)[:size])


class RawPeer:
    """This side of the raw connection."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link

    def ping_pong(self, count: int) -> list[float]:
        """Microseconds of each round trip of one byte."""
        self.link.sendall(HEADER.pack(PING, count))
        spent = []
        for _ in range(count):
            started = time.perf_counter_ns()
            self.link.sendall(b"x")
            self.link.recv(1)
            spent.append((time.perf_counter_ns() - started) / 1000)
        return spent

    def upload(self, view: memoryview) -> float:
        """Seconds until the peer has it all."""
        started = time.perf_counter()
        self.link.sendall(HEADER.pack(UPLOAD, len(view)))
        self.link.sendall(view)
        receive_into(self.link, memoryview(bytearray(1)))
        return time.perf_counter() - started

    def download(self, view: memoryview) -> float:
        started = time.perf_counter()
        self.link.sendall(HEADER.pack(DOWNLOAD, len(view)))
        receive_into(self.link, view)
        return time.perf_counter() - started


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    for link in (ours, theirs):
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return ours, theirs


@contextlib.contextmanager
def raw_peer(pair: Callable[[], tuple[socket.socket, socket.socket]] = tcp_pair) -> Iterator[RawPeer]:
    """A peer at the other end of `pair`: `tcp_pair` or `socket.socketpair`."""
    ours, theirs = pair()
    with ours:
        with theirs:
            command = [sys.executable, "-S", __file__, str(theirs.fileno())]
            process = subprocess.Popen(command, pass_fds=[theirs.fileno()])
        try:
            yield RawPeer(ours)
        finally:
            ours.close()
            process.wait()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
