"""Each example, run as a user runs it: in a process of its own, small, with what it prints checked."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys

import pytest
from servers import ROOT, environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
EXAMPLES = {
    "train_digits.py": ([], r"held-out accuracy (9[7-9]|100)"),
    "embed_text.py": ([], r"similarities in"),
    "generate.py": (["--tokens", "32"], r"tokens/s"),
    "two_servers.py": (["--rounds", "40"], r"reward"),
}
# Hardly more than they need to learn what they are run for. GRPO has a test of its own for the device.
SMALL = {
    "train_digits.py": ["--epochs", "4"],
    "embed_text.py": [],
    "generate.py": ["--tokens", "4"],
    "two_servers.py": ["--rounds", "40"],
    "grpo.py": ["--steps", "20", "--group", "8"],
}
# Those that are about Computes have no other device.
CONTROL = {
    "decorator.py": ([], r"tensor\(\[\["),
    "client.py": ([], r"suspended: Ready is False, Suspended"),
    "cluster.py": (["--members", "3"], r"summed on 3 servers"),
    "events.py": ([], r"[1-9]\d* events: "),
    "metrics.py": (["--rounds", "3", "--interval", "0.2"], r"snapshot by snapshot"),
}


def run(name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, env=environment(COLUMNS="200"), capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(request, name):
    arguments, pattern = EXAMPLES[name]
    out = run(name, *arguments, "--device", request.config.getoption("--device"))
    assert re.search(pattern, out), out
    print(out.splitlines()[-1])


@pytest.mark.parametrize("name", CONTROL)
def test_control(name):
    arguments, pattern = CONTROL[name]
    out = run(name, *arguments, "--provider", "local")
    assert re.search(pattern, out), out


@pytest.mark.remote
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_grpo_learns_and_its_bytes_go_from_server_to_server(seed):
    out = run("grpo.py", "--seed", str(seed), "--steps", "30", "--prompts", "16")
    print("\n".join(out.splitlines()[-2:]))
    first, last = (float(found) for found in re.search(r"reward ([\d.]+) -> ([\d.]+)", out).groups())
    assert last > first + 0.3, out
    assert "equal after every copy" in out
    words = ("copies: ", "server sent ", "received ", "this program sent ")
    counted = (re.search(rf"{word}([\d,]+)", out).group(1) for word in words)
    copied, left, came, client = (int(number.replace(",", "")) for number in counted)
    assert left > copied
    assert came > copied
    assert client < copied / 4


@pytest.mark.parametrize("name", SMALL)
def test_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # examples set it, for good
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    assert left.value.code == 0
    assert "--device {sky,cpu}" in capsys.readouterr().out


@pytest.mark.parametrize("name", SMALL)
def test_cpu_needs_no_skytorch(name, tmp_path):
    """`--device cpu` runs where SkyTorch cannot even be imported."""
    (tmp_path / "skytorch.py").write_text("raise ImportError('skytorch must not be imported')\n")
    command = [sys.executable, str(ROOT / "examples" / name), "--device", "cpu", *SMALL[name]]
    env = environment(TORCH_DEVICE_BACKEND_AUTOLOAD="0")
    env["PYTHONPATH"] = f"{tmp_path}:{env['PYTHONPATH']}"
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280)
    assert "must not be imported" not in done.stderr
    assert done.returncode == 0, done.stderr
