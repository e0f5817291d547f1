"""The operator as a process of the test, so that a test may give it flags, kill it, and count what it alone asks.

It runs as a user of its own who has the operator's role and nothing else. While it runs, the operator of the
Deployment (for the other tests) stands still: two operators of one Compute would undo each other's work.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import ssl
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
USER = "carol"
STUB = "skytorch-test/stub:v1"
CRD = ROOT / "deploy/crd/compute.skytorch.dev_computes.yaml"
ROLE = ROOT / "deploy/rbac/operator-role.yaml"
BINDING = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRoleBinding",
    "metadata": {"name": "operator-of-the-tests"},
    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "skytorch-operator"},
    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
}
OWNED = "statefulset,service,secret,serviceaccount,networkpolicy,persistentvolumeclaim"
READS = {"get", "list", "watch"}


def binary() -> Path:
    target = os.environ.get("CARGO_TARGET_DIR", Path.home() / ".cache/skytorch-dev/target")
    path = Path(target) / "release/skytorch-operator"
    assert path.exists(), f"{path} is not there: cargo build --release -p skytorch-operator"
    return path


class Operator:
    """One process. It is at work when the constructor returns, or stands by with --leader-elect."""

    def __init__(
        self,
        cluster: Any,
        *flags: str,
        until: str | None = "all is seen: reconciling",
        kubeconfig: Path | None = None,
    ) -> None:
        self.lines: list[dict[str, Any]] = []
        self._told: queue.Queue[dict[str, Any] | None] = queue.Queue()
        command = [binary(), "run", "--metrics-address=127.0.0.1:0", "--log-format=json", *flags]
        environment = {
            **os.environ,
            "KUBECONFIG": str(kubeconfig or cluster.kubeconfig_for(USER)),
            "RUST_LOG": "info",
        }
        self.process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, daemon=True).start()
        self._address = self.wait_for("the operator starts")["fields"]["address"]
        if until is not None:
            self.wait_for(until)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            try:
                told = json.loads(line)
            except ValueError:
                told = {"fields": {"message": line.strip()}}
            self.lines.append(told)
            self._told.put(told)
        self._told.put(None)

    def wait_for(self, message: str, timeout_s: float = 30) -> dict[str, Any]:
        """Until it logs this; what was logged before is read once."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                told = self._told.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not within {timeout_s} s: {message!r}\n{self.log()}") from None
            assert told is not None, f"the operator ended before it said {message!r}\n{self.log()}"
            if message in told["fields"].get("message", ""):
                return told

    def log(self) -> str:
        return "\n".join(json.dumps(line) for line in self.lines[-40:])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self._address}{path}", timeout=5) as response:
            return response.read().decode()

    def metric(self, name: str, **labels: str) -> float:
        """A sum over the labels that are not given."""
        total = 0.0
        for line in self.get("/metrics").splitlines():
            found = re.match(r"skytorch_operator_(\w+)(?:\{(.*)\})? (\S+)$", line)
            if found and found[1] == name and all(f'{k}="{v}"' in (found[2] or "") for k, v in labels.items()):
                total += float(found[3])
        return total

    def memory_mib(self) -> tuple[float, float]:
        """Resident now, and at its peak."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        now, peak = (int(re.search(rf"{key}:\s+(\d+) kB", status)[1]) / 1024 for key in ("VmRSS", "VmHWM"))  # type: ignore[index]
        return now, peak

    def cpu_s(self) -> float:
        """What it has computed since its start."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout_s: float = 10) -> int:
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the operator did not end within {timeout_s} s\n{self.log()}") from None


@contextmanager
def operator(cluster: Any, *flags: str, **options: Any) -> Iterator[Operator]:
    running = Operator(cluster, *flags, **options)
    try:
        yield running
    except BaseException:
        print(running.log())
        raise
    finally:
        running.stop()


@contextmanager
def alone(cluster: Any) -> Iterator[None]:
    """The definition is there, the user of the tests has the operator's role, and no other operator is at work."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(CRD), "-f", str(ROLE))
    cluster.kubectl("wait", "--for=condition=Established", "crd/computes.compute.skytorch.dev", "--timeout=10s")
    cluster.apply(json.dumps(BINDING))
    deployment = ["-n", "skytorch-system", "deployment/skytorch-operator"]
    there = cluster.run("get", *deployment, "-o", "jsonpath={.spec.replicas}").stdout
    if there:
        cluster.kubectl("scale", *deployment, "--replicas=0")
        selector = ["-l", "app.kubernetes.io/name=skytorch-operator", "--timeout=30s"]
        cluster.kubectl("wait", "-n", "skytorch-system", "pod", "--for=delete", *selector)
    yield
    if there:
        cluster.kubectl("scale", *deployment, f"--replicas={there}")
        cluster.kubectl("rollout", "status", *deployment, "--timeout=60s")


def compute(name: str, image: str = STUB, env: dict[str, object] | None = None, **spec: Any) -> dict[str, Any]:
    """A Compute of the stub, which speaks health and state and needs no torch."""
    if env:
        spec["env"] = [{"name": key, "value": str(value)} for key, value in env.items()]
    kind = {"apiVersion": "compute.skytorch.dev/v1alpha1", "kind": "Compute"}
    return {**kind, "metadata": {"name": name}, "spec": {"image": image, **spec}}


def condition(resource: dict[str, Any], kind: str) -> dict[str, Any]:
    """A condition of the newest generation; empty while there is none."""
    for found in resource.get("status", {}).get("conditions", []):
        if found["type"] == kind and found["observedGeneration"] == resource["metadata"]["generation"]:
            return dict(found)
    return {}


class Namespace:
    """The objects of one namespace, and a watch that waits for what is to become of them."""

    def __init__(self, cluster: Any, name: str) -> None:
        self.cluster, self.name = cluster, name

    def apply(self, *resources: dict[str, Any]) -> None:
        self.cluster.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(resources)}), self.name)

    def create_at_once(self, resources: list[dict[str, Any]]) -> None:
        """Sixteen at a time: kubectl sends one after the other, and no more than a few in a second."""
        config = json.loads(Path(self.cluster.kubeconfig).read_text())
        server, token = config["clusters"][0]["cluster"], config["users"][0]["user"]["token"]
        context = ssl.create_default_context(cafile=server["certificate-authority"])
        url = f"{server['server']}/apis/compute.skytorch.dev/v1alpha1/namespaces/{self.name}/computes"
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token}"}

        def create(resource: dict[str, Any]) -> None:
            request = urllib.request.Request(url, json.dumps(resource).encode(), headers)
            urllib.request.urlopen(request, context=context, timeout=60).close()

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(create, resources))

    def kubectl(self, *arguments: str) -> str:
        return str(self.cluster.kubectl("-n", self.name, *arguments))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        return dict(json.loads(self.kubectl("get", kind, name, "-o", "json")))

    def list(self, kind: str, *arguments: str) -> list[dict[str, Any]]:
        return list(json.loads(self.kubectl("get", kind, "-o", "json", *arguments))["items"])

    def patch(self, kind: str, name: str, patch: dict[str, Any]) -> None:
        self.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))

    def changes(self, kind: str, timeout_s: float) -> Iterator[tuple[str, dict[str, Any]]]:
        """ADDED, MODIFIED and DELETED with their objects, what is there already at first; fails after `timeout_s`."""
        command = [self.cluster.state["kubectl"], f"--kubeconfig={self.cluster.kubeconfig}", "-n", self.name]
        command += ["get", kind, "--watch", "--output-watch-events", "-o", "json"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                change = json.loads(line)
                yield change["type"], change["object"]
            raise AssertionError(f"not within {timeout_s} s")
        finally:
            timer.cancel()
            process.kill()
            process.wait()

    @contextmanager
    def watched(self, name: str) -> Iterator[Callable[[str], dict[str, Any]]]:
        """What is asked inside sees each state of a Compute from here on, also one that is soon another."""
        with closing(self.changes("computes.compute.skytorch.dev", 20)) as changes:
            next(changes)

            def told(reason: str) -> dict[str, Any]:
                states = (state for _, state in changes if state["metadata"]["name"] == name)
                return next(state for state in states if condition(state, "Ready").get("reason") == reason)

            yield told

    def until(self, name: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 20,
              kind: str = "computes.compute.skytorch.dev") -> dict[str, Any]:  # fmt: skip
        """The object once `holds` of it."""
        last: dict[str, Any] = {}
        try:
            for change, last in self.changes(kind, timeout_s):
                if last["metadata"]["name"] == name and change != "DELETED" and holds(last):
                    return last
        except AssertionError as error:
            state = {k: v for k, v in last.items() if k in ("spec", "status")}
            raise AssertionError(f"{kind} {name}: {error}; it is {json.dumps(state)}") from None
        raise AssertionError("a watch does not end")

    def until_ready(self, name: str, timeout_s: float = 20) -> dict[str, Any]:
        return self.until(name, lambda c: condition(c, "Ready").get("status") == "True", timeout_s)

    def until_reason(self, name: str, reason: str, timeout_s: float = 20) -> dict[str, Any]:
        """Until it stands still for this reason."""

        def stuck(resource: dict[str, Any]) -> bool:
            ready, progressing = condition(resource, "Ready"), condition(resource, "Progressing")
            return ready.get("reason") == reason and ready["status"] == progressing["status"] == "False"

        return self.until(name, stuck, timeout_s)

    def until_gone(self, name: str, timeout_s: float = 20, kind: str = "computes.compute.skytorch.dev") -> None:
        self.kubectl("wait", "--for=delete", f"{kind}/{name}", f"--timeout={timeout_s}s")


def writes(cluster: Any, namespace: str | None = None, user: str = USER) -> list[str]:
    """What the operator has written so far, or tried to, a word for each request."""
    return [
        f"{event['verb']} {event['objectRef']['resource']}/{event['objectRef'].get('subresource', '')}"
        for event in cluster.audit(user)
        if event["verb"] not in READS and namespace in (None, event["objectRef"].get("namespace"))
    ]


def owned(space: Namespace) -> list[dict[str, Any]]:
    return space.list(OWNED, "-l", "app.kubernetes.io/managed-by=skytorch-operator")


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 15) -> None:
    """For what has no watch: a metric, the audit log."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
