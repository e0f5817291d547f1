"""The ways to be let in by a real API server: a plugin's certificate, and the account of a pod whose token changes.

A pod's account is three files at a path that is the same everywhere; a mount namespace gives a program its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from clients import program, until
from servers import environment

USER = "kubelet-client"  # the subject of a certificate that the devcluster has in any case
LOOK = """
import sys
from skytorch.providers import settings
from skytorch.providers.kubernetes._visit import Visit
with Visit(settings.cluster()) as visit:
    for _ in sys.stdin:
        print("computes", len(visit.computes()), "in", visit.namespace)
"""


def kubeconfig(path: Path, cluster, namespace: str, user: dict) -> str:
    """The cluster's, with another user."""
    told = json.loads(cluster.kubeconfig.read_text())
    told["users"][0]["user"] = user
    told["contexts"][0]["context"]["namespace"] = namespace
    path.write_text(json.dumps(told))
    return str(path)


def test_a_certificate_from_a_plugin(cluster, here, tmp_path):
    cluster.kubectl("create", "rolebinding", "plugin", "--clusterrole=skytorch-user", f"--user={USER}", "-n", here)
    folder = Path(cluster.state["folder"]) / "credentials"
    status = {
        "clientCertificateData": (folder / "kubelet-client.pem").read_text(),
        "clientKeyData": (folder / "kubelet-client.key").read_text(),
    }
    version = "client.authentication.k8s.io/v1"
    (tmp_path / "said").write_text(json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status}))
    plugin = {"exec": {"apiVersion": version, "command": "cat", "args": [str(tmp_path / "said")]}}
    config = kubeconfig(tmp_path / "config", cluster, here, plugin)
    done = subprocess.run(
        [sys.executable, "-c", LOOK], input="\n", env=environment(KUBECONFIG=config, SKYTORCH_PROVIDER="kubernetes"),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == f"computes 0 in {here}\n", done.stderr
    assert any(event["objectRef"].get("namespace") == here for event in cluster.audit(USER))


def token(cluster, namespace: str, holder: str) -> str:
    """One that is good for as long as its holder, a Secret, is there."""
    cluster.kubectl("create", "secret", "generic", holder, "-n", namespace)
    bound = ("--bound-object-kind=Secret", f"--bound-object-name={holder}", "-n", namespace)
    return cluster.kubectl("create", "token", "default", *bound).strip()


IN_A_POD = """
import os, subprocess, sys
code, account = sys.argv[1:]
runtime = os.path.realpath("/var/run")
subprocess.run(["mount", "-t", "tmpfs", "pod", runtime], check=True)
os.makedirs(f"{runtime}/secrets/kubernetes.io/serviceaccount")
subprocess.run(["mount", "--bind", account, f"{runtime}/secrets/kubernetes.io/serviceaccount"], check=True)
os.execv(sys.executable, [sys.executable, "-u", "-c", code])
"""


def test_a_pods_account_whose_token_changes(cluster, here, tmp_path):
    user = f"system:serviceaccount:{here}:default"
    cluster.kubectl("create", "rolebinding", "pod", "--clusterrole=skytorch-user", f"--user={user}", "-n", here)
    account = tmp_path / "account"
    account.mkdir()
    authority = json.loads(cluster.kubeconfig.read_text())["clusters"][0]["cluster"]["certificate-authority"]
    (account / "ca.crt").write_text(Path(authority).read_text())
    (account / "namespace").write_text(here)
    first = token(cluster, here, "first")
    (account / "token").write_text(first)
    host, _, port = cluster.state["server"].removeprefix("https://").rpartition(":")
    env = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "KUBECONFIG": "", "HOME": str(tmp_path)}
    words = ["unshare", "-m", sys.executable, "-c", IN_A_POD, LOOK, str(account)]
    with program(f"import os; os.execvp('unshare', {words!r})", SKYTORCH_PROVIDER="kubernetes", **env) as pod:

        def look() -> str:
            pod.process.stdin.write("\n")
            pod.process.stdin.flush()
            return pod.expect("computes")

        assert look() == f"0 in {here}"
        (account / "fresh").write_text(token(cluster, here, "second"))
        (account / "fresh").rename(account / "token")
        cluster.kubectl("delete", "secret", "first", "-n", here)
        looks = ("get", "computes", "-n", here, f"--token={first}")
        until(lambda: "Unauthorized" in cluster.run(*looks).stderr, "the API server forgets the first token")
        assert look() == f"0 in {here}"
