"""A raw TCP peer in a process of its own: what the wire is measured against.

Ping-pong of one byte, and bulk both ways into buffers that exist already. Pieces of 1 MiB were the fastest here.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

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


def serve(port_out: int = 1) -> None:
    """The peer: answers one connection until it ends."""
    import os

    with socket.create_server(("127.0.0.1", 0)) as listener:
        os.write(port_out, f"{listener.getsockname()[1]}\n".encode())
        link, _ = listener.accept()
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
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

    def __init__(self, port: int) -> None:
        self.link = socket.create_connection(("127.0.0.1", port))
        self.link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

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


@contextlib.contextmanager
def raw_peer() -> Iterator[RawPeer]:
    process = subprocess.Popen([sys.executable, "-S", __file__], stdout=subprocess.PIPE, text=True)
    try:
        peer = RawPeer(int(process.stdout.readline()))
        with peer.link:
            yield peer
    finally:
        process.stdout.close()
        process.wait()


if __name__ == "__main__":
    serve()
