"""Tokens, certificates and keys: replaced while the server runs, and seen nowhere but in their files.

The servers are real `skytorch serve` processes; sessions are opened and closed without torch's device.
"""

from __future__ import annotations

import datetime
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import trustme
from servers import Served, environment, local_compute, run_python, serve
from skytorch import _wire, errors

OLD, NEW = "the-first-token-of-the-test", "the-second-token-of-the-test"


def connects(address: str, **credentials: object) -> bool:
    """Whether a session is granted; anything but a refused credential is raised."""
    try:
        _wire.connect(address, timeout_s=20, **credentials).close()
    except errors.Unauthenticated:
        return False
    return True


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("s"), "--port", "0", "--log-level", "debug", token=OLD) as server:
        yield server


@pytest.fixture
def token_file(served: Served) -> Iterator[Path]:
    path = Path(served.process.args[-1])
    yield path
    path.write_text(OLD)


def test_a_running_server_takes_a_rotated_token(served: Served, token_file: Path) -> None:
    assert connects(served.address, token=OLD)
    token_file.write_text(NEW)
    assert connects(served.address, token=NEW)
    assert not connects(served.address, token=OLD)
    replaced = token_file.with_name("next")
    replaced.write_text(OLD + "\n")
    replaced.rename(token_file)
    assert connects(served.address, token=OLD)
    assert connects(served.address, token=token_file)
    assert not connects(served.address, token=NEW)


@pytest.mark.parametrize("content", ["", " \n", None])
def test_without_a_token_to_compare_with_nobody_is_let_in(
    served: Served, token_file: Path, content: str | None
) -> None:
    if content is None:
        token_file.unlink()
    else:
        token_file.write_text(content)
    for token in (OLD, None):
        with pytest.raises(errors.Unauthenticated, match="token"):
            _wire.connect(served.address, token=token)
    token_file.write_text(OLD)
    assert connects(served.address, token=OLD)


def everything_about(process: psutil.Process) -> str:
    """What anybody may read of a process and its descendants: command lines and environments."""
    texts = []
    for each in [process, *process.children(recursive=True)]:
        texts += [Path(f"/proc/{each.pid}/{name}").read_bytes().decode() for name in ("cmdline", "environ")]
    return "\n".join(texts)


def test_a_token_is_in_no_log_command_line_or_environment(served: Served) -> None:
    wrong = "a-wrong-token-of-the-test"
    assert connects(served.address, token=OLD)
    assert not connects(served.address, token=wrong)
    seen = [everything_about(psutil.Process(served.process.pid)), *served.lines]
    seen += list(_wire.logs(served.address, token=OLD))
    assert any("listening" in text for text in seen), "nothing was collected"
    for secret in (OLD, wrong):
        assert not [text for text in seen if secret in text]


def test_a_local_server_gets_its_token_in_a_file(monkeypatch, caplog) -> None:
    monkeypatch.setenv("SKYTORCH_TOKEN", "a-token-of-another-server")
    caplog.set_level(logging.DEBUG)
    with local_compute("secrets") as (compute, process):
        token = compute._link.endpoint.token
        seen = everything_about(process) + caplog.text + repr(compute._link.endpoint)
        assert str(process.pid) in caplog.text or "sky" in seen
        assert token not in seen
        assert "a-token-of-another-server" not in seen


def test_a_token_that_the_server_makes_is_in_a_private_file(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with serve(tmp_path, "--port", "0", token=None) as server:
        while not (found := [re.search(r"^token in (\S+)$", line) for line in server.lines if "token" in line]):
            assert server.process.poll() is None
        path = Path(found[0][1])
        assert path.stat().st_mode & 0o777 == 0o600
        assert connects(server.address, token=path)
        assert not connects(server.address)
        assert not [line for line in server.lines if path.read_text() in line]
    assert not path.exists()


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        (("--uds", "/proc/s"), 1),
        pytest.param(("--import", "nothing"), 1, marks=pytest.mark.slow),
        pytest.param(("--import", "leaves"), 3, marks=pytest.mark.slow),
    ],
)
def test_a_server_that_cannot_start_leaves_no_token(tmp_path, monkeypatch, flags, code) -> None:
    """Not even if what it imports ends the process."""
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "skytorch.cli", "serve", "--port", "0", *flags],
        env=environment(XDG_RUNTIME_DIR=str(runtime)), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    assert code != 1 or "the server cannot start" in done.stderr
    assert list(runtime.iterdir()) == []


def test_a_token_in_the_variable_is_not_handed_on() -> None:
    code = (
        "import os\nfrom skytorch.server._flags import parse\nflags = parse([], program='serve')\n"
        "print(flags, flags.token == 'from-the-variable', os.environ.get('SKYTORCH_TOKEN'))"
    )
    done = run_python(code, SKYTORCH_TOKEN="from-the-variable")
    assert done.stdout.rstrip().endswith("True None"), done.stderr
    assert "from-the-variable" not in done.stdout


def test_credentials_do_not_show_in_repr() -> None:
    from skytorch.providers import Endpoint, Settings, TlsFiles

    key = TlsFiles(key=b"PRIVATE")
    for thing in (Settings(token="secret"), Endpoint(address="tcp://h:1", token="secret", tls=key), key):
        assert "secret" not in repr(thing)
        assert "PRIVATE" not in repr(thing)


def write(folder: Path, certificate: trustme.LeafCert, name: str) -> None:
    """NAME.pem and NAME.key."""
    (folder / f"{name}.pem").write_bytes(b"".join(part.bytes() for part in certificate.cert_chain_pems))
    (folder / f"{name}.key").write_bytes(certificate.private_key_pem.bytes())


def test_a_running_server_takes_a_new_certificate(tmp_path: Path) -> None:
    first, second = trustme.CA(), trustme.CA()
    first.cert_pem.write_to_path(str(tmp_path / "first"))
    second.cert_pem.write_to_path(str(tmp_path / "second"))
    write(tmp_path, first.issue_cert("127.0.0.1"), "server")
    flags = ("--port", "0", "--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key"))
    with serve(tmp_path, *flags, token=OLD) as server:

        def trusts(authority: str) -> bool:
            return connects(server.address, token=OLD, tls=_wire.Tls(ca=tmp_path / authority))

        assert trusts("first")
        assert not trusts("second")
        other = second.issue_cert("127.0.0.1")
        key = other.private_key_pem.bytes()
        (tmp_path / "server.key").write_bytes(key)  # half of a pair: the old one stays
        assert trusts("first")
        write(tmp_path, other, "server")
        assert trusts("second")
        assert not trusts("first")
        (tmp_path / "server.pem").write_text("no certificate")
        assert trusts("second")


def test_clients_show_a_certificate_where_one_is_asked_for(tmp_path: Path) -> None:
    authority, clients, strangers = trustme.CA(), trustme.CA(), trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    clients.cert_pem.write_to_path(str(tmp_path / "clients"))
    write(tmp_path, authority.issue_cert("127.0.0.1"), "server")
    write(tmp_path, clients.issue_cert("me"), "me")
    yesterday = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    write(tmp_path, clients.issue_cert("me", not_after=yesterday), "expired")
    write(tmp_path, strangers.issue_cert("me"), "stranger")
    flags = ["--port", "0", "--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    flags += ["--tls-client-ca", str(tmp_path / "clients")]
    with serve(tmp_path, *flags, token=OLD) as server:

        def lets_in(name: str | None) -> bool:
            own = {} if name is None else {"cert": tmp_path / f"{name}.pem", "key": tmp_path / f"{name}.key"}
            return connects(server.address, token=OLD, tls=_wire.Tls(ca=tmp_path / "ca", **own))

        assert lets_in("me")
        for name in (None, "expired", "stranger"):
            assert not lets_in(name), name
        assert lets_in("me")
        strangers.cert_pem.write_to_path(str(tmp_path / "clients"))
        assert lets_in("stranger")
        assert not lets_in("me")


def test_init_takes_the_files_of_a_tls_address(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca"))
    write(tmp_path, authority.issue_cert("127.0.0.1"), "server")
    write(tmp_path, authority.issue_cert("me"), "me")
    flags = ["--port", "0", "--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.key")]
    program = (
        "import os, pathlib\nfrom skytorch.client import Compute, init\n"
        "here = pathlib.Path(os.environ['HERE'])\n"
        "init(address=os.environ['ADDRESS'], token=here / 'token', ca=here / 'ca', cert=here / 'me.pem',\n"
        "     key=here / 'me.key')\n"
        "import torch\n"
        "with Compute('by-files') as node:\n"
        "    print(torch.arange(4, device=node.device()).sum().item())\n"
    )
    with serve(tmp_path, *flags, "--tls-client-ca", str(tmp_path / "ca"), token=OLD) as server:
        done = run_python(program, HERE=str(tmp_path), ADDRESS=server.address)
        assert done.stdout == "6\n", done.stderr
        assert not [name for name in environment() if name == "SKYTORCH_TOKEN"], os.environ
