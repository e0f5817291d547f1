"""What stands between a client and the cluster: a proxy of the API server, and a load balancer.

Both pass everything on as it is, until a test tells them to lose something. The proxy speaks HTTP/1.0 to the client,
a connection for each request, so that hanging up is all it takes to lose an answer.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from typing import Any

WAIT_S = 30.0
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive", "date", "server"}


@dataclass
class Rule:
    """What becomes of the next `times` requests of a method whose path has the pattern in it."""

    method: str
    path: str
    times: int = 1
    answer: tuple[int, bytes] | None = None  # instead of passing it on
    waits: str = ""  # "before" or "after" it is passed on, for `go`; then the answer is lost
    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)


class Cuttable:
    """A server that knows its open connections."""

    daemon_threads = allow_reuse_address = True
    request_queue_size = 128  # who does not fit waits for seconds, which is no fault that a test arranged
    open: set[socket.socket]

    def cut(self) -> None:
        """Hang up on everybody."""
        for connection in list(self.open):
            hang_up(connection)


class ApiProxy(Cuttable, ThreadingHTTPServer):
    """The API server under another address."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Passing)
        told = json.loads(kubeconfig.read_text())
        cluster = told["clusters"][0]["cluster"]
        self.upstream = urllib.parse.urlsplit(cluster["server"])
        self.context = ssl.create_default_context(cafile=cluster["certificate-authority"])
        self.kubeconfig = folder / "proxied.kubeconfig"
        self.told = told | {"clusters": [{"name": "devcluster", "cluster": {"server": f"http://{self.address}"}}]}
        self.kubeconfig.write_text(json.dumps(self.told))
        self.open: set[socket.socket] = set()
        self._rules: list[Rule] = []
        self._lock = threading.Lock()

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"{host}:{port}"

    def refuse(self, status: int, method: str, path: str, times: int = 1) -> Rule:
        """Answer in the API server's place."""
        told = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": "of the test"}
        return self.add(Rule(method, path, times, answer=(status, json.dumps(told).encode())))

    def lose_answer(self, method: str, path: str, times: int = 1) -> Rule:
        """Pass it on and hang up."""
        rule = self.add(Rule(method, path, times, waits="after"))
        rule.go.set()
        return rule

    def add(self, rule: Rule) -> Rule:
        with self._lock:
            self._rules.append(rule)
        return rule

    def take(self, method: str, path: str) -> Rule | None:
        """The rule for a request, which is thereby used."""
        with self._lock:
            for rule in self._rules:
                if rule.times > 0 and rule.method == method and re.search(rule.path, path):
                    rule.times -= 1
                    return rule
        return None


class _Passing(BaseHTTPRequestHandler):
    server: ApiProxy

    def setup(self) -> None:
        super().setup()
        self.server.open.add(self.connection)

    def finish(self) -> None:
        self.server.open.discard(self.connection)
        with suppress(OSError):
            super().finish()

    def _pass(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        rule = self.server.take(self.command, self.path)
        if rule is not None and rule.answer is not None:
            status, text = rule.answer
            self._send(status, {"Content-Type": "application/json", "Content-Length": str(len(text))}.items())
            self.wfile.write(text)
            return
        if rule is not None and rule.waits == "before":
            rule.reached.set()
            rule.go.wait(WAIT_S)
        upstream = self.server.upstream
        connection = http.client.HTTPSConnection(upstream.hostname, upstream.port, context=self.server.context)
        try:
            connection.request(self.command, self.path, body, dict(self.headers))
            answer = connection.getresponse()
            if rule is not None:
                answer.read()
                rule.reached.set()
                rule.go.wait(WAIT_S)
                return
            self._send(answer.status, answer.getheaders())
            while piece := answer.read1(65536):
                self.wfile.write(piece)
        except OSError:
            pass  # one side has hung up, and so do we
        finally:
            connection.close()

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass

    def _send(self, status: int, headers: Any) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *words: Any) -> None:
        """Say nothing."""


class Balancer(Cuttable, ThreadingTCPServer):
    """Passes connections to an address on to another one, which is asked for when the first one comes."""

    def __init__(self, address: tuple[str, int], target: Callable[[], tuple[str, int]]) -> None:
        super().__init__(address, _Forward)
        self.target = target
        self.open: set[socket.socket] = set()
        self.passed = 0


class _Forward(BaseRequestHandler):
    server: Balancer

    def handle(self) -> None:
        with suppress(OSError), socket.create_connection(self.server.target(), WAIT_S) as pod:
            pod.settimeout(None)
            self.server.open |= {self.request, pod}
            self.server.passed += 1
            back = threading.Thread(target=_copy, args=(pod, self.request), daemon=True)
            back.start()
            _copy(self.request, pod)
            back.join()
            self.server.open -= {self.request, pod}


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)
    hang_up(target)


def hang_up(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def serving(server: ThreadingTCPServer) -> Iterator[Any]:
    """A proxy or balancer at work."""
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
