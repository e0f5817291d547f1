"""The command line: what `skytorch serve` refuses, every command's help, and the server's small parts."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest
from servers import environment
from skytorch import cli
from skytorch._program import is_own_program
from skytorch.server._flags import parse
from skytorch.server._log import LogRing
from skytorch.server._metrics import Measurements
from skytorch.server._prometheus import exposition

COMMANDS = ["ls", "top", "logs", "events", "suspend", "resume", "delete", "build-backend", "doctor", "bench", "serve"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert "exit codes:" in out


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "needs a token"),
        (["--host", "gpu-box", "--token-file", "{token}"], "needs TLS"),
        (["--host", "0.0.0.0", "--tls-cert", "{token}", "--tls-key", "{token}"], "needs a token"),
        (["--tls-cert", "{token}"], "belong together"),
        (["--tls-client-ca", "{token}"], "only over TLS"),
        (["--token-file", "/nowhere"], "cannot be read"),
        (["--token-file", "{empty}"], "is empty"),
        (["--port", "70000"], "not a port"),
        (["--metrics-port", "70000"], "not a port"),
        (["--health", "7778"], "not HOST:PORT"),
        (["--health", "::1:7778"], "not HOST:PORT"),
        (["--bogus"], "--bogus"),
    ],
)
def test_serve_refuses(flags, words, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("SKYTORCH_TOKEN", raising=False)
    (tmp_path / "token").write_text("t")
    (tmp_path / "empty").write_text("\n")
    flags = [flag.format(token=tmp_path / "token", empty=tmp_path / "empty") for flag in flags]
    with pytest.raises(SystemExit) as ended:
        cli.main(["serve", *flags])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_serve_flags(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    flags = parse(["--token-file", str(tmp_path / "token"), "--port", "0"], program="serve")
    assert (flags.listen, flags.token) == ("tcp://127.0.0.1:0", tmp_path / "token")
    flags = parse(["--uds", str(tmp_path / "s"), "--import", "json"], program="serve")
    assert (flags.listen, flags.token, flags.imports) == (f"unix://{tmp_path}/s", None, ("json",))
    assert parse(["--host", "::1"], program="serve").listen == "tcp://[::1]:7777"


def test_unknown_computes_and_commands_fail_with_their_codes(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("SKYTORCH_PROVIDER", "local")
    assert cli.main(["ls"]) == 0
    for command in ("logs", "events", "suspend", "resume", "delete", "top"):
        assert cli.main([command, "nobody"]) == 1
        assert "no local compute 'nobody'" in capsys.readouterr().err
    monkeypatch.setenv("SKYTORCH_PROVIDER", "kubernetes")
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    for command in ("logs", "events", "suspend", "resume", "delete", "top"):
        assert cli.main([command, "nobody"]) == 1
        assert "there is no file" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        cli.main(["fly"])
    assert ended.value.code == 2


def test_the_command_line_does_not_load_torch():
    code = (
        "import sys; sys.orig_argv = ['python', '-m', 'skytorch.cli']\n"
        "from skytorch import cli; cli.main(['ls']); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize(
    ("line", "own"),
    [
        (["python", "-m", "skytorch.server", "--uds", "x"], True),
        (["python", "-P", "-m", "skytorch.cli", "ls"], True),
        (["python", "/venv/bin/skytorch", "serve"], True),
        (["python", "-m", "pytest", "skytorch.server"], False),
        (["python", "train.py", "skytorch"], False),
        (["python", "-c", "import skytorch"], False),
        (["python"], False),
    ],
)
def test_own_programs_are_known_by_their_command_line(line, own, monkeypatch):
    monkeypatch.setattr(sys, "orig_argv", line)
    assert is_own_program() is own


def test_the_log_ring_counts_lines():
    ring = LogRing()
    for text in ("a", "b\nc"):
        ring.emit(logging.LogRecord("x", logging.INFO, __file__, 1, text, None, None))
    assert ring.lines_from(0) == (0, ["a", "b", "c"])
    assert ring.lines_from(2) == (2, ["c"])
    assert ring.lines_from(3) == (3, [])


def test_measurements_and_their_prometheus_text():
    source = Measurements(
        executor=lambda: (7, 1, 4096), wire=lambda: {"bytes_received": 10, "bytes_sent": 20}, cuda=False
    )
    rows = source.rows()
    assert {row[0] for row in rows} == {
        "cpu.utilization", "memory.used", "ops.executed", "ops.queued", "bytes.received", "bytes.sent",
        "tensors.resident_bytes",
    }  # fmt: skip
    text = exposition([*rows, ("gpu.memory.used", 1.5, "bytes", {"device": 'a"b\\'})])
    assert "# TYPE skytorch_ops_executed_total counter\nskytorch_ops_executed_total 7.0\n" in text
    assert "skytorch_bytes_sent_bytes_total 20.0" in text or "skytorch_bytes_sent_total 20.0" in text
    assert 'skytorch_gpu_memory_used_bytes{device="a\\"b\\\\"} 1.5' in text
