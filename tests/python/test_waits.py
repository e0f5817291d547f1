"""Waits that C++ starts, with and without the GIL: other threads run, Ctrl-C ends them, the session stays usable.

ctypes stands in for the two C++ rooms: `PYFUNCTYPE` calls with the GIL held, `CFUNCTYPE` without it. The executor is
a Python thread over the server's C table, so that a wait that kept the GIL would hang here.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from skytorch import _wire, errors

TOKEN = "a-token-for-tests"
OK, TIMEOUT, INTERRUPTED, SESSION_CLOSED, FORKED, OP_RUNTIME = 0, 14, 13, 11, 12, 32
SYNCHRONIZE = 6


class Error(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint32), ("message", ctypes.c_char * 4096))


class Bytes(ctypes.Structure):
    _fields_ = (("data", ctypes.c_char_p), ("size", ctypes.c_uint64))


class Record(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("sequence", ctypes.c_uint64),
        ("slot", ctypes.c_uint32),
        ("template", ctypes.c_void_p),
        ("storages", ctypes.c_void_p),
        ("n_storages", ctypes.c_uint32),
        ("n_outputs", ctypes.c_uint32),
        ("scalars", ctypes.c_void_p),
        ("n_scalars", ctypes.c_uint32),
        ("payload", Bytes),
        ("request", ctypes.c_uint64),
        ("transfer", ctypes.c_uint64),
        ("n_bytes", ctypes.c_uint64),
        ("device", ctypes.c_uint32),
        ("method", ctypes.c_uint32),
        ("args", ctypes.c_void_p),
        ("n_args", ctypes.c_uint32),
    )


class Batch(ctypes.Structure):
    _fields_ = (("records", ctypes.POINTER(Record)), ("n_records", ctypes.c_uint32))


class Reply(ctypes.Structure):
    _fields_ = (
        ("geometries", ctypes.c_void_p),
        ("n_geometries", ctypes.c_uint32),
        ("values", ctypes.c_void_p),
        ("n_values", ctypes.c_uint32),
        ("bytes", Bytes),
    )


# Positions of the functions in the tables of abi.rs, after the two version fields.
CLIENT = {"lock": 2, "unlock": 3, "alloc": 6, "ask": 10, "reply_free": 12}
SERVER = {"accept": 1, "next": 2, "reply": 4, "session_close": 9}


def function(capsule: Any, name: str, prototype: Any) -> Callable[..., Any]:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    table, positions = (b"skytorch.client_api", CLIENT) if name in CLIENT else (b"skytorch.server_api", SERVER)
    address = get(capsule, table) + 8 + 8 * positions[name]
    called: Callable[..., Any] = prototype(ctypes.c_void_p.from_address(address).value)
    return called


class Executor:
    """A session's executor: answers a CALL when it is allowed to."""

    def __init__(self, server: _wire.Server) -> None:
        self.asked = threading.Event()
        self.may_answer = threading.Event()
        self.ended = threading.Event()
        self.stopping = threading.Event()
        self._server = server
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self.stopping.set()
        self._thread.join()

    def _run(self) -> None:
        api, pointer, u32 = _wire.server_api(), ctypes.c_void_p, ctypes.c_uint32
        accept = function(api, "accept", ctypes.CFUNCTYPE(u32, pointer, u32, pointer, pointer))
        get_next = function(api, "next", ctypes.CFUNCTYPE(u32, pointer, u32, pointer, pointer))
        reply = function(api, "reply", ctypes.CFUNCTYPE(u32, pointer, ctypes.c_uint64, pointer, pointer))
        close = function(api, "session_close", ctypes.CFUNCTYPE(None, pointer, u32, Bytes))
        session, batch, error = ctypes.c_void_p(), Batch(), Error()
        while not self.stopping.is_set():
            code = accept(self._server.pointer, 50, ctypes.byref(session), ctypes.byref(error))
            if code == TIMEOUT:
                continue
            assert code == OK, error.message
            unanswered: list[int] = []
            while not self.stopping.is_set():
                if self.may_answer.is_set():
                    for request in unanswered:
                        reply(session, request, ctypes.byref(Reply()), ctypes.byref(error))
                    unanswered.clear()
                code = get_next(session, 20, ctypes.byref(batch), ctypes.byref(error))
                if code not in (OK, TIMEOUT):
                    break
                for record in batch.records[: batch.n_records] if code == OK else ():
                    if record.request:
                        unanswered.append(record.request)
                        self.asked.set()
            close(session, OK, Bytes(b"", 0))
            self.ended.set()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[_wire.Server]:
    server = _wire.Server([f"unix://{tmp_path}/s", "tcp://127.0.0.1:0"], token=TOKEN, devices=[("cpu", "a test")])
    server.start()
    yield server
    server.stop()


@pytest.fixture
def executor(server: _wire.Server) -> Iterator[Executor]:
    executor = Executor(server)
    yield executor
    executor.stop()


@pytest.fixture(params=["unix", "tcp"])
def session(request: pytest.FixtureRequest, server: _wire.Server, executor: Executor) -> Iterator[_wire.Session]:
    address = server.addresses[["unix", "tcp"].index(request.param)]
    session = _wire.connect(address, token=TOKEN, timeout_s=10, client="tests", torch_version="2.15.0")
    yield session
    executor.may_answer.set()
    session.close()


def synchronize(session: _wire.Session, gil: bool) -> tuple[int, str]:
    """What C++ does for `torch.sky.synchronize`: (code, message)."""
    api, pointer, u32 = _wire.client_api(), ctypes.c_void_p, ctypes.c_uint32
    kind = ctypes.PYFUNCTYPE if gil else ctypes.CFUNCTYPE
    lock = function(api, "lock", kind(u32, pointer, pointer))
    ask = function(api, "ask", kind(u32, pointer, u32, pointer, u32, Bytes, pointer, pointer))
    free = function(api, "reply_free", kind(None, pointer))
    error, reply, device = Error(), ctypes.c_void_p(), ctypes.c_int64(0)
    code = lock(session.pointer, ctypes.byref(error))
    if code == OK:
        code = ask(
            session.pointer,
            SYNCHRONIZE,
            ctypes.byref(device),
            1,
            Bytes(b"", 0),
            ctypes.byref(reply),
            ctypes.byref(error),
        )
    if reply.value:
        free(reply)
    return code, error.message.decode() if code else ""


@pytest.mark.parametrize("gil", [True, False])
def test_other_threads_run_during_a_wait(session: _wire.Session, executor: Executor, gil: bool) -> None:
    def allow() -> None:
        assert executor.asked.wait(10)
        executor.may_answer.set()

    allower = threading.Thread(target=allow)
    allower.start()
    assert synchronize(session, gil) == (OK, "")
    allower.join()


@pytest.mark.parametrize("gil", [True, False])
def test_ctrl_c_ends_a_wait_and_leaves_the_session_usable(
    session: _wire.Session, executor: Executor, gil: bool
) -> None:
    def press() -> None:
        assert executor.asked.wait(10)
        signal.raise_signal(signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    code, _ = synchronize(session, gil)
    presser.join()
    assert code == INTERRUPTED
    executor.may_answer.set()
    assert synchronize(session, gil) == (OK, "")
    assert session.is_open


def test_a_session_says_what_it_is(session: _wire.Session) -> None:
    assert session.devices == [("cpu", "a test")]
    assert session.server_info["torch_version"] == ""
    assert session.server_info["pid"] == os.getpid()
    assert session.session_id
    assert session.stats()["ops"] == 0


def test_a_closed_session_refuses(session: _wire.Session, executor: Executor) -> None:
    executor.may_answer.set()
    session.close()
    session.close()
    assert not session.is_open
    code, message = synchronize(session, gil=True)
    assert code == SESSION_CLOSED
    assert message


def test_a_second_session_is_refused(session: _wire.Session, server: _wire.Server) -> None:
    with pytest.raises(errors.ServerBusy):
        _wire.connect(server.addresses[0], token=TOKEN, timeout_s=10)


def test_a_server_that_stops_loses_the_connection(
    session: _wire.Session, executor: Executor, server: _wire.Server
) -> None:
    def stop() -> None:
        assert executor.asked.wait(10)
        executor.stopping.set()
        server.stop()

    stopper = threading.Thread(target=stop)
    stopper.start()
    code, message = synchronize(session, gil=True)
    stopper.join()
    assert code != OK
    assert message
    assert not session.is_open


def test_dropping_a_session_does_not_wait(server: _wire.Server, executor: Executor) -> None:
    session = _wire.connect(server.addresses[0], token=TOKEN, timeout_s=10)
    del session
    # The server notices that the connection is gone and takes the next session.
    assert executor.ended.wait(10)
    _wire.connect(server.addresses[0], token=TOKEN, timeout_s=10).close()


def test_a_forked_child_is_refused(session: _wire.Session, executor: Executor) -> None:
    executor.may_answer.set()
    child = os.fork()
    if child == 0:
        try:
            code, message = synchronize(session, gil=True)
            good = code == FORKED and bool(message) and not session.is_open
            os._exit(0 if good else 1)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert synchronize(session, gil=True) == (OK, "")
