"""What a kubelet and an operator see of `skytorch serve`: health, whether it is in use, and its end on SIGTERM.

The servers are real processes. Waits are on a state that the server answers, never on time.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import Served, environment, serve
from skytorch import _wire, errors
from skytorch.server._endpoint import CONNECTIONS
from skytorch.server._flags import parse

CLIENT = """
import sys
import torch
from skytorch.client import Compute, init

init(provider="address", address=sys.argv[1], token=sys.argv[2])
with Compute("probed", provider="address") as compute:
    x = torch.ones(2000, 2000, device=compute.device())
    print(x[0, 0].item(), flush=True)
    {body}
    sys.stdin.read()
"""


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serve(tmp_path, "--uds", str(tmp_path / "s"), "--health", "127.0.0.1:0", "--metrics-port", "0") as server:
        yield server


def health(served: Served) -> str:
    """The address for probes."""
    (found,) = (m[1] for line in served.lines if (m := re.search(r"health at (\S+)$", line)))
    return f"tcp://{found}"


def url(served: Served) -> str:
    """What /metrics and /status are appended to."""
    (found,) = (m[1] for line in served.lines if (m := re.search(r"metrics at (\S+)/metrics", line)))
    return found


def status(served: Served) -> dict[str, Any]:
    with urllib.request.urlopen(f"{url(served)}/status", timeout=10) as answer:
        assert answer.headers["Content-Type"] == "application/json"
        return json.load(answer)


def when(served: Served, fulfilled: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """The first status that is as it should be."""
    deadline = time.monotonic() + 10
    while not fulfilled(found := status(served)):
        assert time.monotonic() < deadline, found
    return found


def client(served: Served, body: str = "") -> subprocess.Popen[str]:
    """A program with an open session, until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT.format(body=body), served.address, served.token],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "1.0\n", process.communicate()[1]
    return process


def test_health_has_a_listener_of_its_own(served: Served) -> None:
    assert _wire.check_health(health(served))
    with pytest.raises(errors.NotSupported):
        _wire.connect(health(served), token=served.token)
    with pytest.raises(errors.NotSupported):
        _wire.logs(health(served), token=served.token)


def test_status_says_whether_a_client_is_connected(served: Served) -> None:
    import torch
    from skytorch import __version__

    before = status(served)
    assert before["sessions"] == 0
    assert before["last_used_unix"] == before["started_unix"] <= time.time()
    assert (before["version"], before["torch"]) == (__version__, torch.__version__)
    assert before["devices"][0] == "cpu"
    session = _wire.connect(served.address, token=served.token)
    connected = time.time()
    during = status(served)
    assert during["sessions"] == 1
    assert connected <= during["last_used_unix"] <= time.time()
    closing = time.time()
    session.close()
    after = when(served, lambda found: found["sessions"] == 0)
    assert closing - 0.01 <= after["last_used_unix"] <= time.time()
    assert status(served)["last_used_unix"] == pytest.approx(after["last_used_unix"], abs=0.01)


def test_a_killed_client_is_not_connected_although_its_session_waits(served: Served) -> None:
    process = client(served)
    assert status(served)["sessions"] == 1
    killed = time.time()
    process.kill()
    process.communicate()
    found = when(served, lambda found: found["sessions"] == 0)
    assert killed - 0.01 <= found["last_used_unix"] <= time.time()
    with pytest.raises(errors.ServerBusy, match="may come back"):
        _wire.connect(served.address, token=served.token)


def test_metrics_are_there_and_nothing_else(served: Served) -> None:
    with urllib.request.urlopen(f"{url(served)}/metrics", timeout=10) as answer:
        assert b"skytorch_ops_executed_total 0.0" in answer.read()
    for path in ("/", "/status/", "/metrics?x"):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{url(served)}{path}", timeout=10)


def test_silent_scrapers_make_room(served: Served) -> None:
    host, _, port = url(served).removeprefix("http://").rpartition(":")
    crowd = [socket.create_connection((host, int(port)), timeout=10) for _ in range(CONNECTIONS + 3)]
    assert status(served)["sessions"] == 0
    for oldest in crowd[:3]:
        assert oldest.recv(1) == b""
    for connection in crowd:
        connection.close()


def has_ipv6() -> bool:
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.param("::", marks=pytest.mark.skipif(not has_ipv6(), reason="the kernel of this machine has no IPv6"))


@pytest.mark.parametrize("host", ["0.0.0.0", IPV6])
def test_a_pod_listens_on_every_interface(tmp_path: Path, host: str) -> None:
    flags = ("--health", f"[{host}]:0" if ":" in host else f"{host}:0", "--metrics-host", host, "--metrics-port", "0")
    with serve(tmp_path, "--uds", str(tmp_path / "s"), *flags) as served:
        assert _wire.check_health(health(served).replace(host, "127.0.0.1" if host == "0.0.0.0" else "::1"))
        assert f"{'[::]' if ':' in host else host}:" in url(served)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "computing"])
def test_sigterm_ends_it_in_time_with_code_0_whatever_it_does(served: Served, busy: bool) -> None:
    process = client(served, "for _ in range(300): x = x @ x" if busy else "")
    start = time.monotonic()
    served.process.terminate()
    assert served.process.wait(25) == 0
    assert time.monotonic() - start < 10  # a pod has 30 s
    process.communicate()


def test_sigterm_ends_it_while_it_starts(tmp_path: Path) -> None:
    (tmp_path / "endless.py").write_text("import threading\nprint('here', flush=True)\nthreading.Event().wait()\n")
    run = tmp_path / "run"
    run.mkdir()
    environ = environment(XDG_RUNTIME_DIR=str(run))
    environ["PYTHONPATH"] += f"{os.pathsep}{tmp_path}"
    command = [sys.executable, "-m", "skytorch.cli", "serve", "--uds", str(run / "s"), "--import", "endless"]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout.readline() == "here\n"
    process.terminate()
    process.communicate(timeout=10)
    assert process.returncode == 0
    assert list(run.iterdir()) == [], "neither a socket nor a token is left"


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, True), (0o440, False), (0o444, True)])
def test_a_mounted_token_is_no_reason_for_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], mode: int, warns: bool
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    token.chmod(mode)
    parse(["--token-file", str(token)], program="serve")
    assert ("chmod 600" in capsys.readouterr().err) is warns
