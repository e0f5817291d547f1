"""The devcluster itself: what the other tests take for granted about pods, their states, and the ways to reach them.

A pod that misbehaves here would make a test of the operator pass or fail for a wrong reason.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kubernetes
import pytest

ROOT = Path(__file__).resolve().parents[2]
STUB = "skytorch-test/stub:v1"
PYTHON = "skytorch-test/python:v1"
HEALTH = {"grpc": {"port": 7778}, "periodSeconds": 1}
WAITING = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"


def pod(name: str, image: str = STUB, spec: str = "", **container: object) -> str:
    """A pod of one container `server`. JSON is YAML, so its fields go in as they are."""
    fields = json.dumps({"name": "server", "image": image, **container})
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  containers: [{fields}]
  {spec}
"""


def python(name: str, program: str, spec: str = "", **container: object) -> str:
    """A pod that runs a Python program."""
    return pod(name, PYTHON, spec, command=["python", "-c", program], **container)


def env(**variables: object) -> list[dict[str, str]]:
    return [{"name": name, "value": str(value)} for name, value in variables.items()]


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 15) -> None:
    """For what has no watch of its own."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)


def wait_for_event(cluster, namespace: str, name: str, reason: str) -> None:
    """An event is written behind the status that it is about."""
    selector = f"--field-selector=involvedObject.name={name},reason={reason}"
    eventually(lambda: bool(cluster.get("events", "-n", namespace, selector)["items"]), f"event {reason} of {name}")


def container_status(cluster, namespace: str, name: str) -> dict:
    return cluster.get("pod", name, "-n", namespace)["status"]["containerStatuses"][0]


def address(cluster, namespace: str, name: str) -> str:
    return cluster.get("pod", name, "-n", namespace)["status"]["podIP"]


def fetch(url: str) -> dict:
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def accepts(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


@pytest.mark.alone
def test_starts_within_eight_seconds(cluster):
    print(f"the control plane, two nodes and their agent were up in {cluster.state['started_s']:.1f} s")
    assert cluster.state["started_s"] <= 8
    nodes = cluster.get("nodes")["items"]
    assert [node["status"]["capacity"]["nvidia.com/gpu"] for node in nodes] == ["4", "4"]
    assert cluster.get("storageclass", "standard")["provisioner"] == "kubernetes.io/host-path"


def test_pod_answers_at_its_address_and_its_service(cluster, namespace):
    service = """
apiVersion: v1
kind: Service
metadata: {name: stub}
spec: {selector: {app: stub}, ports: [{name: metrics, port: 80, targetPort: 7779}]}
"""
    cluster.apply(service, namespace)
    service = cluster.get("service", "stub", "-n", namespace)["spec"]["clusterIP"]
    assert not accepts(service, 80)
    cluster.apply(pod("stub", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/stub", "condition=Ready")
    assert fetch(f"http://{address(cluster, namespace, 'stub')}:7779/status")["devices"] == ["cpu"]
    eventually(lambda: accepts(service, 80), "the service's address")
    assert fetch(f"http://{service}/status")["sessions"] == 0
    for reason in ("Scheduled", "Pulled", "Created", "Started"):
        wait_for_event(cluster, namespace, "stub", reason)
    cluster.kubectl("delete", "pod", "stub", "-n", namespace)
    eventually(lambda: not accepts(service, 80), "a service without endpoints refuses")


def test_two_pods_listen_on_the_same_port(cluster, namespace):
    for name in ("one", "two"):
        cluster.apply(pod(name, readinessProbe=HEALTH), namespace)
    for name in ("one", "two"):
        cluster.wait(namespace, f"pod/{name}", "condition=Ready")
    assert address(cluster, namespace, "one") != address(cluster, namespace, "two")


STEADY = """
import os, socket, time
slowest, end = 0, time.monotonic() + 6
while time.monotonic() < end:
    began = time.monotonic()
    socket.create_connection((os.environ["KUBERNETES_SERVICE_HOST"], 443), timeout=10).close()
    slowest = max(slowest, time.monotonic() - began)
    time.sleep(0.02)
print(slowest)
"""


@pytest.mark.alone
def test_network_of_a_pod_while_others_come_and_go(cluster, namespace):
    cluster.apply(python("steady", STEADY, "restartPolicy: Never"), namespace)
    cluster.wait(namespace, "pod/steady", "condition=Ready")
    for n in range(8):
        cluster.apply(pod(f"other-{n}", readinessProbe=HEALTH), namespace)
    for n in range(8):
        cluster.wait(namespace, f"pod/other-{n}", "condition=Ready")
        cluster.kubectl("delete", "pod", f"other-{n}", "-n", namespace)
    cluster.wait(namespace, "pod/steady", "jsonpath={.status.phase}=Succeeded")
    slowest = float(cluster.kubectl("logs", "steady", "-n", namespace))
    print(f"the slowest connection from one pod, while eight others came and went: {slowest * 1000:.0f} ms")
    assert slowest < 0.5


def test_pod_that_fits_no_node(cluster, namespace):
    cluster.apply(pod("large", resources={"limits": {"nvidia.com/gpu": 5}}), namespace)
    cluster.wait(namespace, "pod/large", "condition=PodScheduled=False")
    condition = cluster.get("pod", "large", "-n", namespace)["status"]["conditions"][0]
    assert condition["reason"] == "Unschedulable"
    assert "Insufficient nvidia.com/gpu" in condition["message"]


def test_unknown_image_and_its_arrival(cluster, namespace):
    cluster.apply(pod("late", f"skytorch-test/{namespace}:v1"), namespace)
    cluster.wait(namespace, "pod/late", f"{WAITING}=ErrImagePull")
    cluster.wait(namespace, "pod/late", f"{WAITING}=ImagePullBackOff")
    assert "not found" in container_status(cluster, namespace, "late")["state"]["waiting"]["message"]
    for reason in ("Failed", "BackOff"):
        wait_for_event(cluster, namespace, "late", reason)
    table = Path(cluster.state["images"])
    images = json.loads(table.read_text())
    images[f"skytorch-test/{namespace}"] = images[STUB]
    fresh = table.with_suffix(".new")
    fresh.write_text(json.dumps(images))
    fresh.rename(table)
    cluster.wait(namespace, "pod/late", "condition=Ready")


def test_invalid_image_name(cluster, namespace):
    cluster.apply(pod("typo", "skytorch-test/UPPER:v1"), namespace)
    cluster.wait(namespace, "pod/typo", f"{WAITING}=InvalidImageName")


def test_crash_loop(cluster, namespace):
    policy = "FallbackToLogsOnError"
    cluster.apply(pod("crash", env=env(STUB_EXIT_CODE=3), terminationMessagePolicy=policy), namespace)
    cluster.wait(namespace, "pod/crash", f"{WAITING}=CrashLoopBackOff")
    status = container_status(cluster, namespace, "crash")
    terminated = status["lastState"]["terminated"]
    assert (terminated["exitCode"], terminated["reason"]) == (3, "Error")
    assert terminated["message"].splitlines()[-1] == "stub exits, as its environment says"
    assert status["restartCount"] >= 1
    wait_for_event(cluster, namespace, "crash", "BackOff")


def test_program_that_is_not_there(cluster, namespace):
    cluster.apply(pod("absent", PYTHON, command=["no-such-program"]), namespace)
    state = "jsonpath={.status.containerStatuses[0].lastState.terminated.reason}"
    cluster.wait(namespace, "pod/absent", f"{state}=StartError")
    terminated = container_status(cluster, namespace, "absent")["lastState"]["terminated"]
    assert terminated["exitCode"] == 128
    assert "no-such-program" in terminated["message"]


def test_out_of_memory(cluster, namespace):
    limits = {"limits": {"memory": "64Mi"}}
    cluster.apply(pod("oom", env=env(STUB_ALLOC_MIB=256), resources=limits), namespace)
    state = "jsonpath={.status.containerStatuses[0].lastState.terminated.reason}"
    cluster.wait(namespace, "pod/oom", f"{state}=OOMKilled")
    assert container_status(cluster, namespace, "oom")["lastState"]["terminated"]["exitCode"] == 137


def test_finished_pods_keep_their_phase(cluster, namespace):
    cluster.apply(python("good", "pass", "restartPolicy: Never"), namespace)
    cluster.apply(python("bad", "raise SystemExit(7)", "restartPolicy: Never"), namespace)
    cluster.wait(namespace, "pod/good", "jsonpath={.status.phase}=Succeeded")
    cluster.wait(namespace, "pod/bad", "jsonpath={.status.phase}=Failed")
    assert container_status(cluster, namespace, "bad")["state"]["terminated"]["exitCode"] == 7


def test_killed_process_is_restarted(cluster, namespace):
    cluster.apply(pod("victim", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/victim", "condition=Ready")
    os.kill(cluster.process_of(namespace, "victim"), signal.SIGKILL)
    cluster.wait(namespace, "pod/victim", "jsonpath={.status.containerStatuses[0].restartCount}=1")
    assert container_status(cluster, namespace, "victim")["lastState"]["terminated"]["exitCode"] == 137
    cluster.wait(namespace, "pod/victim", "condition=Ready")


def test_liveness_probe_restarts(cluster, namespace):
    probe = {"tcpSocket": {"port": 1}, "initialDelaySeconds": 1, "failureThreshold": 1}
    cluster.apply(pod("sick", livenessProbe=probe), namespace)
    cluster.wait(namespace, "pod/sick", "jsonpath={.status.containerStatuses[0].restartCount}=1")
    for reason in ("Unhealthy", "Killing"):
        wait_for_event(cluster, namespace, "sick", reason)


def test_startup_probe_holds_readiness_back(cluster, namespace):
    probes = {"startupProbe": {**HEALTH, "failureThreshold": 60}, "readinessProbe": HEALTH}
    cluster.apply(pod("slow", env=env(STUB_START_DELAY_S=3), **probes), namespace)
    cluster.wait(namespace, "pod/slow", "jsonpath={.status.phase}=Running")
    assert container_status(cluster, namespace, "slow")["started"] is False
    cluster.wait(namespace, "pod/slow", "condition=Ready")


@pytest.mark.parametrize(
    "probe",
    [
        {"httpGet": {"path": "/status", "port": 7779}},
        {"exec": {"command": ["sh", "-c", "test -e /usr/local/bin/pod"]}},
    ],
    ids=["http", "exec"],
)
def test_probes_of_other_kinds(cluster, namespace, probe):
    cluster.apply(pod("probed", readinessProbe={**probe, "periodSeconds": 1}), namespace)
    cluster.wait(namespace, "pod/probed", "condition=Ready")


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("asked to stop", flush=True))
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@pytest.mark.alone
def test_grace_period_ends_with_a_kill(cluster, namespace):
    cluster.apply(python("stubborn", STUBBORN, "terminationGracePeriodSeconds: 2"), namespace)
    cluster.wait(namespace, "pod/stubborn", "condition=Ready")
    eventually(lambda: "ready" in cluster.kubectl("logs", "stubborn", "-n", namespace), "the program's first line")
    with following(cluster, "logs", "-f", "stubborn", "-n", namespace) as lines:
        assert next(lines) == "ready"
        began = time.monotonic()
        cluster.kubectl("delete", "pod", "stubborn", "-n", namespace)
        took = time.monotonic() - began
        assert next(lines) == "asked to stop"
    assert 2 <= took < 5, f"deletion took {took:.1f} s"


@pytest.mark.alone
def test_quick_pod_is_deleted_quickly(cluster, namespace):
    cluster.apply(pod("quick", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/quick", "condition=Ready")
    began = time.monotonic()
    cluster.kubectl("delete", "pod", "quick", "-n", namespace)
    assert time.monotonic() - began < 3


@contextmanager
def following(cluster, *arguments: str) -> Iterator[Iterator[str]]:
    """The lines of a kubectl that goes on."""
    command = [cluster.state["kubectl"], f"--kubeconfig={cluster.kubeconfig}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield (line.rstrip("\n") for line in process.stdout)
        finally:
            process.kill()


COUNTING = """
import os, time
if os.path.exists("/state/ran"):
    print("second run", flush=True)
    time.sleep(600)
open("/state/ran", "w").close()
for n in range(5):
    print("line", n, flush=True)
raise SystemExit(1)
"""


def test_logs(cluster, namespace):
    mounts = [{"name": "state", "mountPath": "/state"}]
    cluster.apply(
        python("counting", COUNTING, "volumes: [{name: state, emptyDir: {}}]", volumeMounts=mounts), namespace
    )
    cluster.wait(namespace, "pod/counting", "jsonpath={.status.containerStatuses[0].restartCount}=1")

    def logs(*options: str) -> list[str]:
        return cluster.kubectl("logs", "counting", "-n", namespace, *options).splitlines()

    lines = [f"line {n}" for n in range(5)]
    assert logs("--previous") == logs("--previous", "--since=1h") == lines
    assert logs("--previous", "--tail=2") == lines[3:]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z line 4", logs("--previous", "--timestamps")[-1])
    with following(cluster, "logs", "-f", "counting", "-n", namespace) as followed:
        assert next(followed) == "second run"
    assert cluster.run("logs", "counting", "-n", namespace, "-c", "other").returncode != 0


def test_followed_log_ends_with_its_container(cluster, namespace):
    program = "import time; print('begin', flush=True); time.sleep(1); print('end', flush=True)"
    cluster.apply(python("told", program, "restartPolicy: Never"), namespace)
    cluster.wait(namespace, "pod/told", "condition=Ready")
    assert cluster.kubectl("logs", "-f", "told", "-n", namespace).splitlines() == ["begin", "end"]


def test_exec(cluster, namespace):
    cluster.apply(pod("stub", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/stub", "condition=Ready")

    def inside(*command: str, **how) -> subprocess.CompletedProcess[str]:
        return cluster.run("exec", "-n", namespace, *how.pop("options", ()), "stub", "--", *command, **how)

    assert inside("hostname").stdout == "stub\n"
    assert inside("sh", "-c", "exit 5").returncode == 5
    assert inside("cat", options=["-i"], input="through\n").stdout == "through\n"
    assert inside("cat", "/proc/1/comm").stdout == "pod\n"


@pytest.mark.parametrize("websockets", ["true", "false"], ids=["websocket", "spdy"])
def test_port_forward(cluster, namespace, websockets, monkeypatch):
    monkeypatch.setenv("KUBECTL_PORT_FORWARD_WEBSOCKETS", websockets)
    cluster.apply(pod("stub", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/stub", "condition=Ready")
    with following(cluster, "port-forward", "-n", namespace, "pod/stub", ":7779", "--address=127.0.0.1") as lines:
        port = re.search(r"127\.0\.0\.1:(\d+)", next(lines))[1]
        for _ in range(3):
            assert fetch(f"http://127.0.0.1:{port}/status")["version"]


def test_port_forward_of_the_python_client(cluster, namespace):
    cluster.apply(pod("stub", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/stub", "condition=Ready")
    client = kubernetes.client.CoreV1Api(kubernetes.config.new_client_from_config(str(cluster.kubeconfig)))
    connect = client.connect_get_namespaced_pod_portforward
    forward = kubernetes.stream.portforward(connect, "stub", namespace, ports="7779")
    tunnel = forward.socket(7779)
    tunnel.settimeout(10)
    tunnel.sendall(b"GET /status HTTP/1.0\r\n\r\n")
    answer = b""
    while part := tunnel.recv(4096):
        answer += part
    assert json.loads(answer.split(b"\r\n\r\n")[1])["devices"] == ["cpu"]
    assert forward.error(7779) is None


def test_rights(cluster, namespace):
    refused = cluster.run("get", "pods", "-n", namespace, user="alice")
    assert refused.returncode != 0
    assert 'User "alice" cannot list resource "pods"' in refused.stderr
    cluster.kubectl("create", "rolebinding", "alice", "-n", namespace, "--clusterrole=view", "--user=alice")
    eventually(lambda: cluster.run("get", "pods", "-n", namespace, user="alice").returncode == 0, "the new right")
    assert cluster.run("get", "pods", "-n", "default", user="alice").returncode != 0
    assert cluster.run("get", "secrets", "-n", namespace, user="alice").returncode != 0
    assert any(
        event["verb"] == "list" and event["objectRef"].get("namespace") == namespace
        for event in cluster.audit("alice")
    )


VOLUMES = """volumes:
  - {name: secret, secret: {secretName: material, defaultMode: 0440}}
  - {name: settings, configMap: {name: settings, items: [{key: a, path: sub/b}]}}
"""


def test_changed_secret_reaches_the_volume(cluster, namespace):
    cluster.kubectl("create", "secret", "generic", "material", "-n", namespace, "--from-literal=token=old")
    cluster.kubectl("create", "configmap", "settings", "-n", namespace, "--from-literal=a=1")
    mounts = [{"name": "secret", "mountPath": "/etc/material"}, {"name": "settings", "mountPath": "/etc/settings"}]
    cluster.apply(pod("reader", spec=VOLUMES, volumeMounts=mounts, readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/reader", "condition=Ready")

    def read(path: str) -> str:
        return cluster.kubectl("exec", "-n", namespace, "reader", "--", "cat", path)

    assert (read("/etc/material/token"), read("/etc/settings/sub/b")) == ("old", "1")
    began = time.monotonic()
    cluster.kubectl("patch", "secret", "material", "-n", namespace, "-p", '{"stringData": {"token": "new"}}')
    eventually(lambda: read("/etc/material/token") == "new", "the changed Secret in the volume")
    print(f"a changed Secret is in the running pod's volume after {time.monotonic() - began:.2f} s")
    assert "..data/token" in cluster.kubectl(
        "exec", "-n", namespace, "reader", "--", "readlink", "/etc/material/token"
    )


def test_missing_secret_holds_the_pod_back(cluster, namespace):
    volumes = "volumes: [{name: secret, secret: {secretName: late}}]"
    mounts = [{"name": "secret", "mountPath": "/etc/material"}]
    cluster.apply(pod("patient", spec=volumes, volumeMounts=mounts), namespace)
    wait_for_event(cluster, namespace, "patient", "FailedMount")
    cluster.kubectl("create", "secret", "generic", "late", "-n", namespace, "--from-literal=token=x")
    cluster.wait(namespace, "pod/patient", "condition=Ready")


def test_claim_outlives_its_pod(cluster, namespace):
    claim = """
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: cache}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
"""
    cluster.apply(claim, namespace)
    volumes = "volumes: [{name: cache, persistentVolumeClaim: {claimName: cache}}]\n  restartPolicy: Never"
    mounts = {"volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}
    for name, program in (
        ("writer", "open('/cache/kept', 'w').write('kept')"),
        ("reader", "assert open('/cache/kept').read() == 'kept'"),
    ):
        cluster.apply(python(name, program, volumes, **mounts), namespace)
        cluster.wait(namespace, f"pod/{name}", "jsonpath={.status.phase}=Succeeded")
    cluster.wait(namespace, "pvc/cache", "jsonpath={.status.phase}=Bound")


def test_service_account_talks_to_the_api_server(cluster, namespace):
    program = """
import json, os, ssl, urllib.request
account = "/var/run/secrets/kubernetes.io/serviceaccount/"
host = os.environ["KUBERNETES_SERVICE_HOST"]
request = urllib.request.Request(f"https://{host}/version")
request.add_header("Authorization", "Bearer " + open(account + "token").read())
with urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "ca.crt")) as answer:
    print(json.load(answer)["gitVersion"], open(account + "namespace").read())
"""
    cluster.apply(python("caller", program, "restartPolicy: Never"), namespace)
    cluster.wait(namespace, "pod/caller", "jsonpath={.status.phase}=Succeeded")
    assert cluster.kubectl("logs", "caller", "-n", namespace) == f"v1.35.4 {namespace}\n"


def test_root_is_read_only_and_tmp_is_the_pods_own(cluster, namespace):
    program = """
import os, pathlib
pathlib.Path("/tmp/mine").write_text("x")
assert os.listdir("/tmp") == ["mine"], os.listdir("/tmp")
try:
    pathlib.Path("/usr/new").write_text("x")
except OSError as error:
    print(error.strerror)
import skytorch
"""
    volumes = "volumes: [{name: tmp, emptyDir: {}}]\n  restartPolicy: Never"
    container = {
        "securityContext": {"readOnlyRootFilesystem": True},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }
    cluster.apply(python("confined", program, volumes, **container), namespace)
    cluster.wait(namespace, "pod/confined", "jsonpath={.status.phase}=Succeeded", timeout_s=60)
    assert cluster.kubectl("logs", "confined", "-n", namespace).splitlines()[0] == "Read-only file system"
    assert not Path("/usr/new").exists()


def test_environment(cluster, namespace):
    cluster.kubectl("create", "secret", "generic", "s", "-n", namespace, "--from-literal=key=secret")
    variables = [
        {"name": "PLAIN", "value": "a"},
        {"name": "JOINED", "value": "$(PLAIN)-b"},
        {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "key"}}},
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    program = "import os; print(*(os.environ[n] for n in ('JOINED', 'SECRET', 'NAME', 'ADDRESS')))"
    cluster.apply(python("told", program, "restartPolicy: Never", env=variables), namespace)
    cluster.wait(namespace, "pod/told", "jsonpath={.status.phase}=Succeeded")
    expected = f"a-b secret told {address(cluster, namespace, 'told')}\n"
    assert cluster.kubectl("logs", "told", "-n", namespace) == expected


def test_restarted_api_server_finds_the_pods_running(cluster, namespace):
    cluster.apply(pod("steady", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/steady", "condition=Ready")
    before = cluster.process_of(namespace, "steady")
    cluster.restart("apiserver")
    assert cluster.process_of(namespace, "steady") == before
    cluster.apply(pod("later", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/later", "condition=Ready")


def test_restarted_agent_starts_its_pods_again(cluster, namespace):
    cluster.apply(pod("again", readinessProbe=HEALTH), namespace)
    cluster.wait(namespace, "pod/again", "condition=Ready")
    cluster.restart("agent")
    cluster.wait(namespace, "pod/again", "jsonpath={.status.containerStatuses[0].restartCount}=1")
    cluster.wait(namespace, "pod/again", "condition=Ready")
    assert fetch(f"http://{address(cluster, namespace, 'again')}:7779/status")["devices"] == ["cpu"]


def test_a_node_that_was_taken_for_lost_is_ready_again(cluster):
    lost = '{"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}'
    cluster.kubectl("patch", "node", "node-2", "--subresource=status", "-p", lost)
    cluster.kubectl("wait", "node/node-2", "--for=condition=Ready", "--timeout=30s")


def test_another_cluster_beside_this_one_leaves_nothing_when_killed(cluster):
    command = [sys.executable, str(ROOT / "tests/devcluster"), "run", "--no-operator", "--", "sh", "-c"]
    script = 'kubectl get nodes --no-headers | wc -l; cat "$SKYTORCH_DEVCLUSTER" > /dev/null; exec sleep 600'
    before = devclusters()
    with subprocess.Popen([*command, script], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline().strip() == "2"
        assert devclusters() > before
        other.kill()
        eventually(lambda: devclusters() == before, "no process of the other cluster")


def test_says_so_where_namespaces_are_not_allowed():
    forbid = 'echo 0 > /proc/sys/user/max_net_namespaces && exec "$@"'
    command = ["unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh"]
    command += [sys.executable, str(ROOT / "tests/devcluster"), "run", "--", "true"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert "allows no namespaces" in done.stderr


def devclusters() -> set[str]:
    """The process ids of API servers that this process sees, itself in a namespace or not."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                name = (entry / "comm").read_text().strip()
            except OSError:
                continue
            if name in ("kube-apiserver", "server", "agent", "kube-scheduler", "kube-controller"):
                found.add(entry.name)
    return found
