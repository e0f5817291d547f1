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


def test_commands_on_a_compute_of_another_process(cluster, here, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # no Computes of other programs on this machine
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
        f"ok    namespace '{here}'", "ok    operator's version: 0.1",
        "ok    operator in namespace 'skytorch-system': 1 of 1 replicas are ready",
        "ok    GPUs: ",
    ):  # fmt: skip
        assert words in told, told


def test_doctor_says_what_a_user_may_not_do(cluster, here):
    told = skytorch("doctor", "-n", here, code=1, KUBECONFIG=str(cluster.kubeconfig_for("bob")))
    assert f"FAIL  rights in namespace '{here}': may not get, list, watch, create, patch, delete computes" in told
    assert "bind the role skytorch-user" in told
    assert f"operator: not seen; this account may not look into all namespaces, 'skytorch-system', '{here}'" in told
    cluster.kubectl("create", "rolebinding", "carol", "--clusterrole=skytorch-user", "--user=carol", "-n", here)
    as_carol = {"KUBECONFIG": str(cluster.kubeconfig_for("carol"))}
    assert "all is well" in skytorch("doctor", "-n", here, **as_carol)
    reader = ("role", "operator-reader", "-n", "skytorch-system")
    what = ("--verb=list,get", "--resource=deployments.apps,leases.coordination.k8s.io")
    cluster.kubectl("create", *reader, *what)
    cluster.kubectl("create", "rolebinding", *reader[1:], "--role=operator-reader", "--user=carol")
    try:
        told = skytorch("doctor", "-n", here, **as_carol)
    finally:
        cluster.kubectl("delete", "role,rolebinding", *reader[1:])
    assert "ok    operator in namespace 'skytorch-system': 1 of 1 replicas are ready" in told


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
        assert "FAIL  operator in namespace 'skytorch-system': 0 of 0 replicas are ready" in told
        stale = {"holderIdentity": "dead-0", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}
        patch = ("--type=merge", "-p", json.dumps({"spec": stale}))
        cluster.kubectl("patch", "lease", "skytorch-operator", *system, *patch)
        told = skytorch("doctor", "-n", here, code=1)
        patch = ("--type=merge", "-p", '{"spec": {"holderIdentity": ""}}')  # for the next operator to lead at once
        cluster.kubectl("patch", "lease", "skytorch-operator", *system, *patch)
        assert re.search(r"FAIL  operator in .*: down: its leader 'dead-0' was last heard of \d+ s ago", told), told
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
    assert "FAIL  operator: no Deployment with the label app.kubernetes.io/name=skytorch-operator looks after" in said
    assert "GPUs: " in said


ELSEWHERE = """
import json, os, subprocess, sys
from pathlib import Path
state = json.loads(Path(os.environ["SKYTORCH_DEVCLUSTER"]).read_text())
subprocess.run(["kubectl", "create", "namespace", "skytorch"], check=True)
overlay = "deploy/kustomize/overlays/namespaced"
subprocess.run(["kubectl", "apply", "--server-side", "-k", overlay], check=True, stdout=subprocess.DEVNULL)
role = ["--clusterrole=skytorch-user", "--user=alice", "-n", "skytorch"]
subprocess.run(["kubectl", "create", "rolebinding", "alice", *role], check=True)
operator = ["deployment/skytorch-operator", "-n", "skytorch", "--timeout=60s"]
subprocess.run(["kubectl", "rollout", "status", *operator], check=True)
for user, namespace in (("admin", "skytorch"), ("admin", "default"), ("alice", "skytorch")):
    print("as", user, "in", namespace, flush=True)
    where = {**os.environ, "KUBECONFIG": state["kubeconfigs"][user]}
    subprocess.run([sys.executable, "-m", "skytorch.cli", "doctor", "-n", namespace], env=where)
"""


def test_doctor_finds_an_operator_in_another_namespace():
    """A control plane of its own, with an operator that sees one namespace, and a user who sees only its Lease."""
    done = subprocess.run(
        [sys.executable, "tests/devcluster", "run", "--no-operator", "--", sys.executable, "-c", ELSEWHERE],
        env=environment(SKYTORCH_PROVIDER="kubernetes"), capture_output=True, text=True, timeout=180, cwd=ROOT,
    )  # fmt: skip
    _, there, elsewhere, as_user = re.split("^as .*$", done.stdout, flags=re.MULTILINE)
    assert "ok    operator in namespace 'skytorch': 1 of 1 replicas are ready" in there, done.stdout + done.stderr
    assert "all is well" in there
    assert "looks after namespace 'default'; the one in 'skytorch' is for 'skytorch' only" in elsewhere
    assert re.search(r"ok    operator in namespace 'skytorch': its leader '.+' was last heard of", as_user), as_user
    assert "all is well" in as_user
