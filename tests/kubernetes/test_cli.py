"""The command line on a cluster: each command on a Compute that a program holds, and the findings of `doctor`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clients import STUB, gone_within, wait_for_values
from servers import environment
from skytorch import cli, errors
from skytorch.client import Compute

ROOT = Path(__file__).resolve().parents[2]


def skytorch(*words: str, code: int = 0, **env: str) -> str:
    """What a command prints; the exit code is checked."""
    done = subprocess.run(
        [sys.executable, "-m", "skytorch.cli", *words],
        env=environment(SKYTORCH_PROVIDER="kubernetes", **env), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_commands_on_a_compute_of_another_process(cluster, here, capsys):
    with Compute("seen", timeout=60) as node:
        assert torch.ones(2, device=node.device()).sum().item() == 2
        row = next(line for line in skytorch("ls", "-n", here).splitlines() if line.startswith("seen"))
        assert re.search(r"seen +kubernetes +ready +pod seen-0 +process \d+ on \S+ +\d+ s +10\.", row), row
        assert "seen cpu:" in skytorch("top", "seen", "--once", "-n", here)
        assert "seen cpu:" in skytorch("top", "--once", "-n", here, SKYTORCH_ROUTE="tunnel")
        assert "listening on tls://" in skytorch("logs", "seen", "-n", here, "--context", "admin")
        told = skytorch("events", "seen", "-n", here)
        assert "Scheduled" in told
        assert "Ready" in told
        assert "suspended seen" in skytorch("suspend", "seen", "-n", here)
        with pytest.raises(errors.ConnectionLost, match="seen-0"):
            wait_for_values(node.device())
        cluster.wait(here, "compute/seen", "condition=Suspended")
        assert "suspended" in skytorch("ls", "-n", here)
        assert "has no running server" in skytorch("top", "seen", "--once", "-n", here, code=1)
        assert "resumed seen" in skytorch("resume", "seen", "-n", here)
        cluster.wait(here, "compute/seen", "condition=Ready")
        assert f"deleted seen in namespace {here}" in skytorch("delete", "seen", "-n", here)
    gone_within(cluster, here, "seen", 10)
    for command in ("top", "logs", "events", "suspend", "resume", "delete"):
        assert cli.main([command, "nobody", "-n", here]) == 1
        assert f"compute 'nobody': there is none in namespace '{here}'" in capsys.readouterr().err


def test_doctor_finds_nothing_where_all_is_well(cluster, here):
    told = skytorch("doctor", "-n", here)
    assert "all is well" in told
    for words in (
        "ok    Kubernetes configuration: kubeconfig", "answers, version v1.", "ok    resource type computes",
        "all 20 that",
        f"ok    namespace '{here}'", "ok    operator: 1 of 1 replicas are ready", "ok    operator's version: 0.1",
        "ok    GPUs: ",
    ):  # fmt: skip
        assert words in told, told


def test_doctor_says_what_a_user_may_not_do(cluster, here):
    told = skytorch("doctor", "-n", here, code=1, KUBECONFIG=str(cluster.kubeconfig_for("bob")))
    assert f"FAIL  rights in namespace '{here}': may not get, list, watch, create, patch, delete computes" in told
    assert "bind the role skytorch-user" in told
    assert "--    operator: this account may not look" in told
    cluster.kubectl("create", "rolebinding", "carol", "--clusterrole=skytorch-user", "--user=carol", "-n", here)
    assert "all is well" in skytorch("doctor", "-n", here, KUBECONFIG=str(cluster.kubeconfig_for("carol")))


def test_doctor_says_which_part_of_the_way_is_broken(cluster, here, tmp_path):
    told = skytorch("doctor", code=1, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert "FAIL  Kubernetes configuration: none" in told
    text = re.sub(r"server: \S+", "server: https://127.0.0.1:1", cluster.kubeconfig.read_text())
    if '"server"' in text:
        text = re.sub(r'"server": "[^"]+"', '"server": "https://127.0.0.1:1"', text)
    (tmp_path / "away").write_text(text)
    told = skytorch("doctor", code=1, KUBECONFIG=str(tmp_path / "away"))
    assert re.search(r"FAIL  Kubernetes: the cluster https://127.0.0.1:1 .* does not answer", told), told
    assert "FAIL  namespace 'nowhere': missing" in skytorch("doctor", "-n", "nowhere", code=1)


def test_doctor_says_that_the_operator_is_down_or_of_another_version(cluster, here):
    system = ("-n", "skytorch-system")
    cluster.kubectl("scale", "deployment/skytorch-operator", "--replicas=0", *system)
    try:
        cluster.run("wait", "--for=delete", "pod", "-l", "app.kubernetes.io/name=skytorch-operator", *system)
        told = skytorch("doctor", "-n", here, code=1)
        assert "FAIL  operator: 0 of 0 replicas are ready" in told
        with pytest.raises(errors.ComputeNotReady, match=r"the operator has not looked at it yet .*skytorch doctor"):
            Compute("waits", image=STUB, timeout=3).__enter__()
        image = [
            {"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "ghcr.io/x/operator:9.9.0"}
        ]
        cluster.kubectl("patch", "deployment/skytorch-operator", *system, "--type=json", "-p", json.dumps(image))
        told = skytorch("doctor", "-n", here, code=1)
        assert "FAIL  operator's version: 9.9.0, this client's: 0.1" in told
    finally:
        cluster.kubectl(
            "apply", "--server-side", "--force-conflicts", "-k", str(ROOT / "deploy/kustomize/overlays/test")
        )
        cluster.kubectl("scale", "deployment/skytorch-operator", "--replicas=1", *system)
        cluster.kubectl("rollout", "status", "deployment/skytorch-operator", *system, "--timeout=60s")


WITHOUT = """
import subprocess, sys
from skytorch import cli, errors
from skytorch.client import Compute
try:
    Compute("a", provider="kubernetes").__enter__()
except errors.NotSupported as error:
    print("said:", error)
print(subprocess.run([sys.executable, "-m", "skytorch.cli", "doctor"], capture_output=True, text=True).stdout)
"""


def test_a_cluster_without_the_operator_says_how_to_install_it():
    """A control plane of its own, with neither the resource type nor the operator."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/devcluster"), "run", "--no-operator", "--", sys.executable, "-c", WITHOUT],
        env=environment(SKYTORCH_PROVIDER="kubernetes"), capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    said = done.stdout
    assert re.search("said: .* has no resource type computes.compute.skytorch.dev: .*kubectl apply -k", said), (
        said + done.stderr
    )
    assert "FAIL  resource type computes.compute.skytorch.dev: missing" in said
    assert "FAIL  operator: there is no Deployment 'skytorch-operator' in namespace 'skytorch-system'" in said
    assert "GPUs: " in said
