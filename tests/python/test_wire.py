"""`skytorch._wire` on its own: a server and its clients in this process, without torch's device and without C++.

What a session carries is tested through torch. Here: control calls, the GIL, Ctrl-C, threads, errors.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import re
import signal
import socket
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import ROOT
from skytorch import _wire, errors

TOKEN = "a-token-for-tests"
METRIC = ("cpu.utilization", 12.5, "percent", {"host": "here"})


class Source:
    """Metrics and log lines of a test, with what was asked."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.asked = threading.Event()

    def metrics(self) -> list[tuple[str, float, str, dict[str, str]]]:
        return [METRIC]

    def logs(self, from_index: int) -> tuple[int, list[str]]:
        self.asked.set()
        return from_index, self.lines[from_index:]


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def server(tmp_path: Path, source: Source) -> Iterator[_wire.Server]:
    server = _wire.Server(
        [f"unix://{tmp_path}/s", "tcp://127.0.0.1:0"],
        token=TOKEN,
        devices=[("cpu", "a test")],
        torch_version="2.15.0",
        version="0",
    )
    server.set_metrics_source(source.metrics)
    server.set_log_source(source.logs)
    server.start()
    yield server
    server.stop()


def test_addresses_have_real_ports(server: _wire.Server, tmp_path: Path) -> None:
    unix, tcp = server.addresses
    assert unix == f"unix://{tmp_path}/s"
    assert tcp.startswith("tcp://127.0.0.1:")
    assert not tcp.endswith(":0")


def test_capsules_hold_the_tables() -> None:
    header = (ROOT / "crates/skytorch-wire/include/skytorch/wire.h").read_text()
    expected = int(re.search(r"#define SKY_ABI_VERSION (\d+)", header)[1])
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    for capsule, name in ((_wire.client_api(), b"skytorch.client_api"), (_wire.server_api(), b"skytorch.server_api")):
        abi_version, size = ctypes.cast(get(capsule, name), ctypes.POINTER(ctypes.c_uint32))[:2]
        assert abi_version == expected
        assert size > 8
        with pytest.raises(ValueError, match="PyCapsule_GetPointer"):
            get(capsule, b"another")


def test_health(server: _wire.Server) -> None:
    for address in server.addresses:
        assert _wire.check_health(address, token=TOKEN)
        with pytest.raises(errors.Unauthenticated):
            _wire.check_health(address, token="another")
    unix = server.addresses[0]
    server.stop()
    server.stop()
    with pytest.raises(errors.Unreachable):
        _wire.check_health(unix, token=TOKEN)


def test_metrics(server: _wire.Server) -> None:
    before = time.time()
    snapshots = _wire.metrics(server.addresses[0], token=TOKEN, interval_s=0.05)
    assert iter(snapshots) is snapshots
    for _ in range(3):
        timestamp, metrics = next(snapshots)
        assert before - 1 < timestamp < time.time() + 1
        assert metrics == [METRIC]
    snapshots.close()
    assert list(snapshots) == []


def test_logs(server: _wire.Server, source: Source) -> None:
    source.lines += ["one", "zwölf"]
    assert list(_wire.logs(server.addresses[1], token=TOKEN)) == ["one", "zwölf"]
    followed = _wire.logs(server.addresses[1], token=TOKEN, follow=True)
    assert [next(followed), next(followed)] == ["one", "zwölf"]
    source.lines.append("three")
    assert next(followed) == "three"


def test_close_ends_a_wait_in_another_thread(server: _wire.Server, source: Source) -> None:
    followed = _wire.logs(server.addresses[0], token=TOKEN, follow=True)
    seen: list[list[str]] = []
    waiter = threading.Thread(target=lambda: seen.append(list(followed)))
    waiter.start()
    assert source.asked.wait(10)
    followed.close()
    waiter.join(10)
    assert seen == [[]]


def test_a_wait_lets_other_threads_run(server: _wire.Server, source: Source) -> None:
    # The server's own control thread needs the GIL to answer: this would hang if the wait held it.
    followed = _wire.logs(server.addresses[0], token=TOKEN, follow=True)

    def write_once_asked() -> None:
        assert source.asked.wait(10)
        source.lines.append("written meanwhile")

    writer = threading.Thread(target=write_once_asked)
    writer.start()
    assert next(followed) == "written meanwhile"
    writer.join()


class Alarm(Exception):
    """What the handler of a test raises."""


@pytest.mark.parametrize("handler_raises", [KeyboardInterrupt, Alarm])
def test_ctrl_c_ends_a_wait_and_leaves_it_usable(
    server: _wire.Server, source: Source, handler_raises: type[BaseException]
) -> None:
    followed = _wire.logs(server.addresses[0], token=TOKEN, follow=True)

    def handler(number: int, frame: object) -> None:
        raise handler_raises("from the handler")

    def press_once_asked_again() -> None:
        # The first question may come before the main thread waits; the second comes a pause later.
        for _ in range(2):
            assert source.asked.wait(10)
            source.asked.clear()
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, handler)
    try:
        presser = threading.Thread(target=press_once_asked_again)
        presser.start()
        with pytest.raises(handler_raises, match="from the handler"):
            next(followed)
        presser.join()
    finally:
        signal.signal(signal.SIGINT, before)
    source.lines.append("after")
    assert next(followed) == "after"


@pytest.fixture
def silent_address() -> Iterator[str]:
    """Somebody listens there and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"tcp://127.0.0.1:{silent.getsockname()[1]}"


def test_connecting_takes_no_longer_than_it_may(silent_address: str) -> None:
    began = time.monotonic()
    with pytest.raises(errors.Timeout):
        _wire.connect(silent_address, token=TOKEN, timeout_s=0.3)
    assert 0.2 < time.monotonic() - began < 5


def test_ctrl_c_ends_connecting(silent_address: str) -> None:
    def handler(number: int, frame: object) -> None:
        raise Alarm("from the handler")

    before = signal.signal(signal.SIGUSR1, handler)
    main_thread = threading.get_ident()
    # There is no event to wait for: the signal comes well before the time given, whatever connecting does by then.
    timer = threading.Timer(0.3, signal.pthread_kill, (main_thread, signal.SIGUSR1))
    try:
        with pytest.raises(Alarm):  # noqa: PT012
            timer.start()
            _wire.connect(silent_address, token=TOKEN, timeout_s=60)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_a_source_that_raises_is_logged_once(server: _wire.Server, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> list[tuple[str, float, str, dict[str, str]]]:
        raise Alarm("no thermometer")

    server.set_metrics_source(broken)
    snapshots = _wire.metrics(server.addresses[0], token=TOKEN, interval_s=0.05)
    with caplog.at_level(logging.ERROR, logger="skytorch.server"):
        for _ in range(3):
            assert next(snapshots)[1] == []
    assert len(caplog.records) == 1
    assert "no thermometer" in caplog.text


def test_stop_lets_go_of_the_sources(tmp_path: Path) -> None:
    server = _wire.Server([f"unix://{tmp_path}/s"], token=TOKEN, devices=[("cpu", "")])
    source = Source()
    server.set_log_source(source.logs)
    server.start()
    gone = weakref.ref(source)
    server.stop()
    del source
    gc.collect()
    assert gone() is None


def test_info_counts(server: _wire.Server) -> None:
    info = server.info()
    assert info["session_active"] is False
    assert info["session_age_s"] is None
    assert info["sessions_served"] == 0
    assert server.pointer != 0


def test_arguments_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        _wire.connect("tcp://127.0.0.1:1", timeout_s=-1)
    with pytest.raises(errors.InvalidArgument, match="gopher"):
        _wire.Server(["gopher://here"], devices=[("cpu", "")])
    with pytest.raises(ValueError, match="unknown limit"):
        _wire.Server([f"unix://{tmp_path}/s"], devices=[("cpu", "")], limits={"patience": 1})


@pytest.mark.parametrize("listen", ["tcp://0.0.0.0:0", "tls://0.0.0.0:0", "tcp://[::]:0"])
def test_no_open_door(listen: str) -> None:
    with pytest.raises(errors.SkyTorchError):
        _wire.Server([listen], devices=[("cpu", "")]).start()
