"""Who is refused, and what they see: every way in without the right to it, against real `skytorch serve` processes.

After each refusal the server has run no operator, has taken no memory and has no session, and the next good client is
let in. `pytest -v` on this file lists them.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import psutil
import pytest
import trustme
from servers import Served, run_python, serve
from skytorch import _wire, errors

TOKEN = "a-token-for-tests"
HELLO_MAGIC = b"SKYT"


class Relay:
    """Passes one connection on to a server, with its hello changed, and keeps what either side said."""

    def __init__(self, address: str, change: Callable[[bytes], bytes] = bytes) -> None:
        self.server = Relay.parse(address)
        self.said = self.heard = b""
        self._change = change
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @staticmethod
    def parse(address: str) -> tuple[str, int]:
        host, _, port = address.partition("://")[2].rpartition(":")
        return host, int(port)

    def address(self, scheme: str) -> str:
        return f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def _run(self) -> None:
        client, _ = self._listener.accept()
        with client, socket.create_connection(self.server) as server:
            down = threading.Thread(target=self._copy, args=(server, client, self._overhear))
            down.start()
            self._copy(client, server, self._note)
            down.join()

    def _note(self, data: bytes) -> bytes:
        self.said += data
        return self._change(data) if HELLO_MAGIC in data else data

    def _overhear(self, data: bytes) -> bytes:
        self.heard += data
        return data

    @staticmethod
    def _copy(source: socket.socket, sink: socket.socket, change: Callable[[bytes], bytes]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                sink.sendall(change(data))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._thread.join(20)
        assert not self._thread.is_alive()
        self._listener.close()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def of_wire_1(data: bytes) -> bytes:
    """The same hello of wire 1.0: the message's length is in the four bytes before the frame's header."""
    magic = data.index(HELLO_MAGIC)
    length = int.from_bytes(data[magic - 12 : magic - 8], "big")
    body = bytearray(data[magic : magic - 8 + length])
    body[4] = 1
    return data[: magic - 4] + crc32c(body).to_bytes(4, "little") + bytes(body) + data[magic - 8 + length :]


class Site:
    """A server with TLS and one on plain loopback, and the authority that both sides of the first know."""

    def __init__(self, folder: Path, tls: Served, plain: Served, authority: trustme.CA) -> None:
        self.folder, self.tls, self.plain, self.authority = folder, tls, plain, authority
        self.ca = authority.cert_pem.bytes()

    def certify(self, **options: object) -> None:
        """Give the TLS server another certificate of the same authority."""
        certificate = self.authority.issue_cert("127.0.0.1", **options)
        (self.folder / "pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
        (self.folder / "key").write_bytes(certificate.private_key_pem.bytes())

    def connect(self, address: str | None = None, *, token: str | None = TOKEN, **tls: object) -> None:
        credentials = _wire.Tls(**{"ca": self.ca, **tls})
        _wire.connect(address or self.tls.address, token=token, tls=credentials, timeout_s=20).close()

    def work(self, served: Served) -> tuple[float, float]:
        """Operators that the server has run, and bytes that tensors take on it."""
        snapshots = _wire.metrics(served.address, token=TOKEN, tls=_wire.Tls(ca=self.ca))
        values = {name: value for name, value, _, _ in next(snapshots)[1]}
        snapshots.close()
        return values["ops.executed"], values["tensors.resident_bytes"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, other = tmp_path_factory.mktemp("tls"), tmp_path_factory.mktemp("plain")
    authority = trustme.CA()
    made = Site(folder, None, None, authority)
    made.certify()
    flags = ("--port", "0", "--tls-cert", str(folder / "pem"), "--tls-key", str(folder / "key"))
    with serve(folder, *flags, token=TOKEN) as tls, serve(other, "--port", "0", token=TOKEN) as plain:
        made.tls, made.plain = tls, plain
        yield made


def no_token(site: Site) -> None:
    site.connect(token=None)


def wrong_token(site: Site) -> None:
    site.connect(token=TOKEN[:-1] + "x")


def expired_certificate(site: Site) -> None:
    site.certify(not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1))
    try:
        site.connect()
    finally:
        site.certify()


def wrong_name(site: Site) -> None:
    site.connect(server_name="gpu.example")


def unknown_authority(site: Site) -> None:
    site.connect(ca=trustme.CA().cert_pem.bytes())


def no_authority(site: Site) -> None:
    site.connect(ca=None)


def no_tls(site: Site) -> None:
    site.connect(site.tls.address.replace("tls://", "tcp://"))


def tls_where_there_is_none(site: Site) -> None:
    site.connect(site.plain.address.replace("tcp://", "tls://"))


def plain_off_this_machine(site: Site) -> None:
    site.connect("tcp://192.0.2.1:7777")


def a_client_of_tls_1_2(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection(Relay.parse(site.tls.address)) as raw, context.wrap_socket(raw):
        pass


def a_server_of_tls_1_2(site: Site) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(site.folder / "pem", site.folder / "key")
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def answer(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            context.wrap_socket(listener.accept()[0], server_side=True)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        try:
            site.connect(f"tls://127.0.0.1:{listener.getsockname()[1]}")
        finally:
            thread.join()


def an_old_version(site: Site) -> None:
    relay = Relay(site.plain.address, of_wire_1)
    try:
        site.connect(relay.address("tcp"))
    finally:
        relay.close()


REFUSALS = [
    (no_token, errors.Unauthenticated, "the server wants a token"),
    (wrong_token, errors.Unauthenticated, "the server refused the token"),
    (expired_certificate, errors.Unauthenticated, "expired"),
    (wrong_name, errors.Unauthenticated, r"gpu\.example"),
    (unknown_authority, errors.Unauthenticated, "UnknownIssuer"),
    (no_authority, errors.InvalidArgument, "needs the server's CA certificate"),
    (no_tls, errors.ConnectionLost, "the connection to the server broke|the server closed the connection"),
    (tls_where_there_is_none, errors.Unauthenticated, "TLS with tls://127.0.0.1"),
    (plain_off_this_machine, errors.InvalidArgument, "tcp:// would show the token to the network"),
    (a_client_of_tls_1_2, ssl.SSLError, "(?i)protocol.version"),
    (a_server_of_tls_1_2, errors.Unauthenticated, "TLS with tls://127.0.0.1"),
    (an_old_version, errors.VersionMismatch, r"client speaks wire 1\.0, this server speaks 2\.0: install the same"),
]


@pytest.mark.parametrize(("attempt", "kind", "words"), REFUSALS, ids=[attempt.__name__ for attempt, *_ in REFUSALS])
def test_refused_and_the_server_goes_on(site: Site, attempt, kind, words) -> None:
    before = [site.work(served) for served in (site.tls, site.plain)]
    with pytest.raises(kind, match=words) as seen:
        attempt(site)
    print(f"{attempt.__name__}: {type(seen.value).__name__}: {seen.value}")
    assert TOKEN not in str(seen.value)
    assert [site.work(served) for served in (site.tls, site.plain)] == before
    site.connect()
    site.connect(site.plain.address)


@pytest.mark.parametrize("scheme", ["tls", "tcp"])
def test_a_replayed_handshake_opens_no_session(site: Site, scheme: str) -> None:
    served = site.tls if scheme == "tls" else site.plain
    relay = Relay(served.address)
    site.connect(relay.address(scheme))
    relay.close()
    before = site.work(served)
    with socket.create_connection(relay.server) as again:
        again.settimeout(20)
        again.sendall(relay.said)
        again.shutdown(socket.SHUT_WR)
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := again.recv(1 << 16):
                answer += data
    # A welcome names torch's version. Over TLS it cannot be read, but then the whole answer would not be shorter.
    version = metadata.version("torch").encode()
    assert (version in relay.heard) == (scheme == "tcp")
    assert version not in answer
    assert len(answer) < len(relay.heard)
    assert site.work(served) == before
    site.connect(served.address)


def test_health_needs_no_token_and_everything_else_does(site: Site) -> None:
    address = site.plain.address
    assert _wire.check_health(address) is True
    with pytest.raises(errors.Unauthenticated):
        _wire.check_health(address, token="another")
    for call in (_wire.metrics, _wire.logs):
        with pytest.raises(errors.Unauthenticated, match="wants a token"):
            call(address)


def test_nobody_at_the_address_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    for address in (f"tcp://127.0.0.1:{port}", f"tls://127.0.0.1:{port}", f"unix://{tmp_path}/none.sock"):
        with pytest.raises(errors.Unreachable) as seen:
            _wire.connect(address, token=TOKEN, tls=_wire.Tls(ca=trustme.CA().cert_pem.bytes()))
        assert address in str(seen.value)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(errors.Timeout) as seen:
            _wire.connect(address, token=TOKEN, timeout_s=0.3)
        assert address in str(seen.value)


@pytest.mark.slow
def test_ten_thousand_half_open_connections_keep_nobody_out(site: Site) -> None:
    process = psutil.Process(site.tls.process.pid)
    before = process.memory_info().rss
    beginnings = [b"", b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n", os.urandom(64)]
    crowd: list[socket.socket] = []
    try:
        for number in range(10_000):
            if len(crowd) == 500:
                crowd.pop(0).close()
            crowd.append(socket.create_connection(Relay.parse(site.tls.address)))
            with contextlib.suppress(OSError):
                crowd[-1].send(beginnings[number % len(beginnings)])
            if number % 1000 == 999:
                site.connect()
                # 64 may wait; those that are on their way out are few.
                assert process.num_threads() < 300
                assert process.num_fds() < 1000
    finally:
        for connection in crowd:
            connection.close()
    assert process.memory_info().rss - before < 256 << 20
    site.connect()


def test_a_unix_socket_is_private_and_so_is_its_folder(tmp_path: Path) -> None:
    path = tmp_path / "made" / "sky.sock"
    with serve(tmp_path, "--uds", str(path), token=TOKEN) as server:
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
        _wire.connect(server.address, token=TOKEN).close()
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(errors.InvalidArgument, match="0700"):
        _wire.Server([f"unix://{tmp_path}/open/s"], devices=[("cpu", "")])


AS_NOBODY = "import os, socket, sys\nfrom skytorch import _wire, errors\nos.setgroups([])\nos.setuid(65534)\n"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
def test_another_user_is_refused_at_a_unix_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sky.sock"
        with serve(Path(folder), "--uds", str(path), token=TOKEN) as server:
            os.chmod(folder, 0o755)
            path.chmod(0o666)
            code = f"{AS_NOBODY}\n_wire.connect({server.address!r}, token={TOKEN!r})"
            done = run_python(code)
            assert "Unauthenticated" in done.stderr, done.stderr
            assert "the client is user 65534" in done.stderr
            _wire.connect(server.address, token=TOKEN).close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become another user")
@pytest.mark.slow
def test_a_client_shows_no_token_to_another_users_socket() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        path = f"{folder}/sky.sock"
        code = f"""{AS_NOBODY}
listener = socket.socket(socket.AF_UNIX)
listener.bind({path!r})
listener.listen()
print("listening", flush=True)
print("heard", listener.accept()[0].recv(1000), flush=True)
"""
        seen: list[str] = []
        stranger = threading.Thread(target=lambda: seen.append(run_python(code).stdout))
        stranger.start()
        while True:
            assert stranger.is_alive()
            try:
                _wire.connect(f"unix://{path}", token=TOKEN)
            except errors.Unreachable:
                continue  # it is not listening yet
            except errors.Unauthenticated as error:
                assert "the server is user 65534" in str(error)  # noqa: PT017
                break
        stranger.join(60)
        assert "heard b''" in seen[0]
