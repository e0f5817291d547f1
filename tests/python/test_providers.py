"""Which provider is chosen, claims on names of local Computes, and what a server that cannot start leaves behind."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import CancelledError

import pytest
from skytorch import errors
from skytorch.client import Compute, init
from skytorch.providers import Cancel, Event, Placement, Settings, rundir, settings
from skytorch.providers._child import Child, Log
from skytorch.providers.address import check_address
from skytorch.providers.local import LocalProvider


@pytest.fixture(autouse=True)
def _private_environment(tmp_path, monkeypatch):
    """No kubeconfig, no variables, and a runtime folder of the test's own."""
    for name in [name for name in os.environ if name.startswith(("SKYTORCH_", "KUBE"))]:
        if name != "SKYTORCH_AUTOLOAD":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    yield
    init()


def test_local_is_chosen_where_nothing_is_configured_and_said_once(caplog):
    caplog.set_level(logging.INFO, logger="skytorch")
    chosen = Settings()
    assert [chosen.choose(None), chosen.choose(None)] == ["local", "local"]
    assert [r.getMessage() for r in caplog.records] == [
        "provider local: there is no kubeconfig and no in-cluster account"
    ]


def test_kubernetes_is_chosen_by_a_kubeconfig_and_says_what_is_missing_in_it(tmp_path, monkeypatch):
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text("{}")
    assert Settings().choose(None) == "kubernetes"
    with pytest.raises(errors.InvalidArgument, match=r"\.kube/config: no current-context is set"), Compute("a"):
        pass
    monkeypatch.setenv("SKYTORCH_PROVIDER", "local")
    assert Settings().choose(None) == "local"


def test_order_of_choices(monkeypatch):
    monkeypatch.setenv("SKYTORCH_PROVIDER", "local")
    assert Settings(provider="address").choose(None) == "address"
    assert Settings(address="tcp://127.0.0.1:1").choose(None) == "address"
    assert Settings(client_config=object()).choose(None) == "kubernetes"
    assert Settings().choose("kubernetes") == "kubernetes"
    monkeypatch.setenv("SKYTORCH_PROVIDER", "docker")
    with pytest.raises(errors.InvalidArgument, match="SKYTORCH_PROVIDER"):
        Settings().choose(None)


def test_init_checks_and_replaces():
    with pytest.raises(errors.InvalidArgument, match="provider"):
        init(provider="docker")
    with pytest.raises(errors.InvalidArgument, match="address"):
        init(provider="local", address="tcp://127.0.0.1:7777")
    init(address="tcp://127.0.0.1:7777", token="t")
    assert settings.endpoint().token == "t"
    init()
    with pytest.raises(errors.InvalidArgument, match="SKYTORCH_ADDRESS"):
        settings.endpoint()


def test_endpoint_from_the_environment(tmp_path, monkeypatch):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "ca").write_text("PEM")
    monkeypatch.setenv("SKYTORCH_ADDRESS", "tls://gpu-box:7777")
    monkeypatch.setenv("SKYTORCH_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("SKYTORCH_CA_FILE", str(tmp_path / "ca"))
    endpoint = settings.endpoint()
    files = (tmp_path / "token", tmp_path / "ca")  # read when they are needed: see test_secrets.py
    assert (endpoint.address, endpoint.token, endpoint.tls.ca) == ("tls://gpu-box:7777", *files)
    monkeypatch.setenv("SKYTORCH_CA_FILE", str(tmp_path / "none"))
    with pytest.raises(errors.InvalidArgument, match="SKYTORCH_CA_FILE"):
        settings.endpoint()


@pytest.mark.parametrize("address", ["tcp://h:1", "tls://[::1]:65535", "unix:///run/sky.sock"])
def test_addresses(address):
    assert check_address(address) == address


@pytest.mark.parametrize(
    "address", ["h:1", "http://h:1", "tcp://h", "tcp://:1", "tcp://h:0", "tcp://h:x", "unix://a"]
)
def test_wrong_addresses(address):
    with pytest.raises(errors.InvalidArgument, match="address:"):
        check_address(address)


def test_a_held_name_is_refused_naming_the_holder_and_freed_by_release():
    claim = rundir.RunDir.claim("a", adopt=False)
    claim.write_info(server_pid=None, address=None)
    with pytest.raises(errors.InvalidArgument, match="'a' is held by this process"):
        rundir.RunDir.claim("a", adopt=False)
    assert [found.name for found in rundir.live()] == ["a"]
    claim.release()
    assert list(rundir.live()) == []
    rundir.RunDir.claim("a", adopt=False).release()


def test_a_name_is_held_against_other_processes_until_its_holder_dies():
    holder = subprocess.Popen(
        [sys.executable, "-c",
         "import sys; from skytorch.providers.rundir import RunDir; c = RunDir.claim('a', adopt=False);"
         "c.write_info(server_pid=None, address=None); print('held', flush=True); sys.stdin.read()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "SKYTORCH_AUTOLOAD": "0"},
    )  # fmt: skip
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(errors.InvalidArgument, match=f"held by process {holder.pid}"):
            rundir.RunDir.claim("a", adopt=False)
        taken = rundir.RunDir.claim("a", adopt=True)
        taken.write_info(server_pid=None, address="unix:///x")
    finally:
        holder.kill()
        holder.communicate()
    assert rundir.find("a").address == "unix:///x"
    taken.release()


def test_the_token_is_private_and_the_folder_too():
    claim = rundir.RunDir.claim("a", adopt=False)
    token = claim.write_token()
    assert claim.token_file.read_text() == token
    assert claim.token_file.stat().st_mode & 0o777 == 0o600
    assert claim.path.stat().st_mode & 0o777 == 0o700
    claim.append_event(Event(reason="Started", message="m"))
    claim.release()
    assert not claim.path.exists()


def test_a_folder_open_to_others_is_refused(tmp_path):
    rundir.root().chmod(0o755)
    with pytest.raises(errors.ComputeFailed, match="mode 0700"):
        rundir.root()


def test_a_long_socket_path_moves_to_a_short_one(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(deep))
    claim = rundir.RunDir.claim("a", adopt=False)
    path = claim.socket_path()
    assert len(os.fsencode(path)) <= rundir.MAX_SOCKET_PATH_BYTES
    claim.release()
    assert not path.parent.exists()


def test_a_log_keeps_lines_and_can_be_followed():
    log = Log()
    log.feed(b"one\ntw")
    log.feed(b"o\nthree")
    assert list(log.read(follow=False)) == ["one", "two"]
    log.feed(b"")
    assert list(log.read(follow=True)) == ["one", "two", "three"]


def test_a_server_that_cannot_start_tells_why_and_leaves_nothing():
    events: list[Event] = []
    placement = Placement(name="a", args=("--log-level", "loud"))
    provider = LocalProvider(placement, on_event=events.append, on_condition=lambda condition: None)
    with pytest.raises(errors.ComputeFailed, match=r"exit code 2.*\n.*"):
        provider.start(timeout_s=60, cancel=Cancel())
    assert [event.reason for event in events] == ["Starting", "Failed"]
    assert list(rundir.live()) == []
    rundir.RunDir.claim("a", adopt=False).release()


def test_a_cancelled_start_ends_the_child():
    provider = LocalProvider(Placement(name="a"), on_event=lambda e: None, on_condition=lambda c: None)
    cancel = Cancel()
    cancel.request()
    with pytest.raises(CancelledError):
        provider.start(timeout_s=60, cancel=cancel)
    assert list(rundir.live()) == []


def test_a_child_that_is_killed_says_how_it_ended():
    ends: list[str] = []
    child = Child(arguments=["--uds", "/nowhere/at/all/sky.sock"], env={}, on_exit=ends.append)
    child.start()
    while child.pid is None and not child.exited.is_set():
        pass
    os.kill(child.pid, signal.SIGKILL)
    assert child.exited.wait(30)
    with pytest.raises(errors.ComputeFailed, match="SIGKILL"):
        child.ready.result(10)
