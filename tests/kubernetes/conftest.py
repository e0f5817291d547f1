"""The running devcluster as the tests see it: kubectl, namespaces, users, the audit log, and its parts to be killed.

The tests run inside the cluster's network namespace (`make test-kubernetes`). Outside of it they fail and say so;
they are not skipped.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import operator_process
import pytest

ROOT = Path(__file__).resolve().parents[2]
HOW = "run these tests by `make test-kubernetes`, or `python tests/devcluster run -- COMMAND`"


class DevCluster:
    """What the runner has written about itself, with verbs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def state(self) -> dict[str, Any]:
        """The file's content now: process ids change when a part is started again."""
        return json.loads(self._path.read_text())

    @property
    def kubeconfig(self) -> Path:
        """Of the user admin, who may do everything."""
        return Path(self.state["kubeconfig"])

    @property
    def pids(self) -> dict[str, int | None]:
        """Of etcd, apiserver, controller-manager, scheduler and agent."""
        return self.state["pids"]

    def kubeconfig_for(self, user: str) -> Path:
        """Of alice, bob or carol, who are bound to no role until a test does it; and of admin."""
        return Path(self.state["kubeconfigs"][user])

    def run(self, *arguments: str, user: str = "admin", input: str | None = None) -> subprocess.CompletedProcess[str]:
        """kubectl, whatever comes of it."""
        command = [self.state["kubectl"], f"--kubeconfig={self.kubeconfig_for(user)}", *arguments]
        return subprocess.run(command, input=input, capture_output=True, text=True)

    def kubectl(self, *arguments: str, user: str = "admin", input: str | None = None) -> str:
        """What kubectl prints; a failure fails the test with kubectl's words."""
        done = self.run(*arguments, user=user, input=input)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr or done.stdout}"
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """`kubectl get ... -o json`."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, manifest: str, namespace: str | None = None) -> None:
        """Server-side, and strict about unknown fields."""
        where = ["-n", namespace] if namespace else []
        self.kubectl("apply", "--server-side", "--validate=strict", *where, "-f", "-", input=manifest)

    def wait(self, namespace: str, resource: str, what: str, timeout_s: float = 30) -> None:
        """Until `what` holds, in the words of `kubectl wait --for`."""
        self.kubectl("wait", "-n", namespace, resource, f"--for={what}", f"--timeout={timeout_s}s")

    def audit(self, user: str | None = None) -> Iterator[dict[str, Any]]:
        """Every request so far that is answered, or one user's: `verb`, `objectRef`, `user.username`."""
        with Path(self.state["audit"]).open() as lines:
            for line in lines:
                event = json.loads(line)
                if user is None or event["user"].get("username") == user:  # nobody, if the API server knew none
                    yield event

    def process_of(self, namespace: str, pod: str, container: str | None = None) -> int:
        """The process id of a pod's container, to be killed."""
        for status in self.get("pod", pod, "-n", namespace)["status"]["containerStatuses"]:
            if container in (None, status["name"]):
                return int(status["containerID"].removeprefix("devcluster://"))
        raise LookupError(f"{pod} has no container {container}")

    def kill(self, part: str) -> None:
        """SIGKILL; it stays down until `start` or `restart`."""
        self._control("kill", part)

    def start(self, part: str) -> None:
        """Starts what was killed. The API server answers when this returns; its controllers begin anew with it."""
        self._control("start", part)

    def restart(self, part: str) -> None:
        """kill, then start."""
        self._control("restart", part)

    @contextlib.contextmanager
    def without(self, part: str) -> Iterator[None]:
        """A while in which this part does not run. The garbage collector is in the controller-manager."""
        self.kill(part)
        try:
            yield
        finally:
            self.start(part)

    def _control(self, verb: str, part: str) -> None:
        with socket.socket(socket.AF_UNIX) as control:
            control.connect(self.state["control"])
            control.sendall(f"{verb} {part}\n".encode())
            answer = control.makefile().readline().strip()
        assert answer == "ok", answer


@pytest.fixture(scope="session")
def cluster() -> DevCluster:
    """The cluster that this process runs in."""
    path = os.environ.get("SKYTORCH_DEVCLUSTER")
    if path is None:
        pytest.fail(f"no devcluster here: {HOW}", pytrace=False)
    return DevCluster(Path(path))


@pytest.fixture
def namespace(cluster: DevCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A fresh one for each test. Its deletion goes on after the test."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    name = f"{words[:40].strip('-')}-{uuid.uuid4().hex[:6]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def operator(cluster: DevCluster) -> str:
    """The operator, installed and available; returned is its user's name in the audit log."""
    overlay = ROOT / "deploy/kustomize/overlays/test"
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(overlay))
    cluster.kubectl("rollout", "status", "-n", "skytorch-system", "deployment/skytorch-operator", "--timeout=60s")
    return "system:serviceaccount:skytorch-system:skytorch-operator"


@pytest.fixture
def here(cluster: DevCluster, operator: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """This process as a client of the cluster, in a namespace of the test's own, whose name is returned."""
    from skytorch.client import init

    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    init(provider="kubernetes", namespace=namespace)
    yield namespace
    init()


@pytest.fixture(scope="module")
def running(cluster: DevCluster, request: pytest.FixtureRequest) -> Iterator[operator_process.Operator]:
    """The operator as a process of the test module, with the module's FLAGS."""
    flags = getattr(request.module, "FLAGS", ())
    with operator_process.alone(cluster), operator_process.operator(cluster, *flags) as process:
        yield process


@pytest.fixture
def space(cluster: DevCluster, namespace: str) -> operator_process.Namespace:
    """A fresh namespace with the verbs of the operator's tests."""
    return operator_process.Namespace(cluster, namespace)
