"""deploy/rbac: every verb of the two roles is used, none is missing, and what is not there is refused.

What was used is read from the API server's audit log, so it is what the programs really asked for. The audit log says
`patch` and 201 where a server-side apply created something, for which the API server wants `create` too.
"""

from __future__ import annotations

import json
import os
import subprocess
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import DevCluster

RBAC = Path(__file__).resolve().parents[2] / "deploy/rbac"
Right = tuple[str, str]  # "group/resource/subresource", verb
# The admission that asks for it, OwnerReferencesPermissionEnforcement, is on in some clusters only.
NEVER_ASKED_HERE = {("compute.skytorch.dev/computes/finalizers", "update")}


def expanded(rules: list[dict[str, Any]]) -> set[Right]:
    return {
        (f"{group}/{resource}", verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def granted(*files: str) -> set[Right]:
    """What the roles in these files allow."""
    documents = [document for name in files for document in yaml.safe_load_all((RBAC / name).read_text())]
    return set().union(*(expanded(document.get("rules", [])) for document in documents))


def asked(cluster: DevCluster, user: str, namespace: str | None = None, since: int = 0) -> dict[int, set[Right]]:
    """What a user asked for, by the status that it was answered with; from the event of that number on."""
    found: dict[int, set[Right]] = {}
    for event in islice(cluster.audit(user), since, None):
        what = event.get("objectRef", {})
        if "resource" not in what or (namespace and what.get("namespace") != namespace):
            continue
        name = "/".join(part for part in (what["resource"], what.get("subresource")) if part)
        code = event["responseStatus"]["code"]
        if code == 403 and event["annotations"]["authorization.k8s.io/decision"] == "allow":
            continue  # no matter of rights: the namespace of an earlier test is being deleted
        rights = found.setdefault(code, set())
        rights.add((f"{what.get('apiGroup', '')}/{name}", event["verb"]))
        if (event["verb"], code) == ("patch", 201):
            rights.add((f"{what.get('apiGroup', '')}/{name}", "create"))
    return found


def compute(cluster: DevCluster, namespace: str, name: str, **spec: Any) -> None:
    manifest = {
        "apiVersion": "compute.skytorch.dev/v1alpha1",
        "kind": "Compute",
        "metadata": {"name": name},
        "spec": {"image": "skytorch-test/stub:v1", **spec},
    }
    cluster.apply(json.dumps(manifest), namespace)


def suspend(cluster: DevCluster, namespace: str, name: str, wish: bool) -> None:
    patch = json.dumps({"spec": {"suspend": wish}})
    cluster.kubectl("patch", "-n", namespace, f"compute/{name}", "--type=merge", "-p", patch)
    cluster.wait(namespace, f"compute/{name}", f"condition={'Suspended' if wish else 'Ready'}")


def test_the_operator_uses_every_right_it_has(cluster: DevCluster, namespace: str, operator: str) -> None:
    begun = sum(1 for _ in cluster.audit(operator))
    volumes = [{"name": "v", "storage": "1Gi", "path": "/v"}]
    compute(cluster, namespace, "rolled", volumes=volumes)
    compute(cluster, namespace, "suspended", idleTimeout="1s", idleAction="Suspend")
    compute(cluster, namespace, "deleted", volumes=volumes, idleTimeout="1s")
    cluster.wait(namespace, "compute/rolled", "condition=Ready")
    compute(cluster, namespace, "rolled", volumes=volumes, args=["--import", "json"])
    cluster.wait(namespace, "compute/rolled", "condition=Ready")
    suspend(cluster, namespace, "rolled", True)
    for _ in range(10):  # an event that comes again is patched; it is another one while the pod of before is there
        suspend(cluster, namespace, "rolled", False)
        suspend(cluster, namespace, "rolled", True)
        if ("events.k8s.io/events", "patch") in asked(cluster, operator, namespace)[200]:
            break
    cluster.wait(namespace, "compute/suspended", "condition=Suspended")
    cluster.wait(namespace, "compute/deleted", "delete")
    cluster.kubectl("delete", "service", "rolled", "-n", namespace)
    cluster.wait(namespace, "service/rolled", "create")
    cleared_by_the_operator(cluster, namespace, "rolled")
    cluster.kubectl("rollout", "restart", "-n", "skytorch-system", "deployment/skytorch-operator")
    cluster.kubectl("rollout", "status", "-n", "skytorch-system", "deployment/skytorch-operator", "--timeout=60s")
    # Not before: an API server that an earlier test has started again refuses all until it has read the roles.
    assert not asked(cluster, operator, since=begun).get(403)
    used = set().union(*asked(cluster, operator).values())
    assert granted("operator-role.yaml", "operator-lease.yaml") - used == NEVER_ASKED_HERE


def cleared_by_the_operator(cluster: DevCluster, namespace: str, name: str) -> None:
    """Deletes a Compute where the garbage collector cannot be faster: then the operator has nothing to delete."""
    with cluster.without("controller-manager"):
        cluster.kubectl("delete", "compute", name, "-n", namespace)
        for kind in ("statefulset", "service", "networkpolicy", "secret", "serviceaccount"):
            cluster.wait(namespace, f"{kind}/{name}", "delete")
        # Protected until a controller has seen that no pod uses it.
        cluster.wait(namespace, f"persistentvolumeclaim/{name}-v", "jsonpath={.metadata.deletionTimestamp}")


def test_the_operator_may_nothing_else(cluster: DevCluster, namespace: str, operator: str) -> None:
    assert rules(cluster, operator, namespace) - rules(cluster, "bob", namespace) == granted("operator-role.yaml")
    everything = granted("operator-role.yaml", "operator-lease.yaml")
    assert rules(cluster, operator, "skytorch-system") - rules(cluster, "bob", "skytorch-system") == everything


def rules(cluster: DevCluster, user: str, namespace: str) -> set[Right]:
    """All that a user may do in a namespace, by the API server's own account."""
    groups = ["system:serviceaccounts"] if user.startswith("system:serviceaccount:") else []
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    people = [f"--as={user}", *(f"--as-group={group}" for group in (*groups, "system:authenticated"))]
    answer = cluster.kubectl("create", "--validate=false", "-f", "-", "-o", "json", *people, input=json.dumps(review))
    status = json.loads(answer)["status"]
    assert not status["incomplete"], status
    return expanded(status["resourceRules"])


@pytest.fixture
def alices(cluster: DevCluster, namespace: str, operator: str) -> str:
    """A namespace in which alice has the user role."""
    cluster.kubectl("create", "rolebinding", "alice", "--clusterrole=skytorch-user", "--user=alice", "-n", namespace)
    return namespace


def test_a_user_may_what_the_role_says_in_one_namespace(cluster: DevCluster, alices: str) -> None:
    assert rules(cluster, "alice", alices) - rules(cluster, "bob", alices) == granted("user-role.yaml")
    for other in ("default", "skytorch-system", "kube-system"):
        assert rules(cluster, "alice", other) == rules(cluster, "bob", other)


def test_a_user_can_use_every_right_of_the_role(cluster: DevCluster, alices: str) -> None:
    def kubectl(*words: str, input: str | None = None) -> str:
        return cluster.kubectl("-n", alices, *words, user="alice", input=input)

    def watch(path: str) -> None:
        kubectl("get", "--raw", f"/{path}&watch=true&timeoutSeconds=1".replace("NAMESPACE", f"namespaces/{alices}"))

    manifest = {
        "apiVersion": "compute.skytorch.dev/v1alpha1",
        "kind": "Compute",
        "metadata": {"name": "mine"},
        "spec": {"image": "skytorch-test/stub:v1"},
    }
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "mine"}, "spec": {}}
    kubectl("apply", "--server-side", "-f", "-", input=json.dumps(manifest))
    kubectl("wait", "compute/mine", "--for=condition=Ready", "--timeout=30s")
    kubectl("get", "compute/mine", "secret/mine", "service/mine", "pod/mine-0")
    kubectl("get", "computes,pods,events.v1.")
    for path in ("api/v1/NAMESPACE/pods", "api/v1/NAMESPACE/events"):
        watch(f"{path}?limit=1")
    kubectl("logs", "mine-0")
    forward(cluster, alices, websockets=True)
    forward(cluster, alices, websockets=False)
    kubectl("create", "-f", "-", input=json.dumps(lease))
    kubectl("replace", "-f", "-", input=kubectl("get", "lease/mine", "-o", "json"))
    kubectl("delete", "lease/mine")
    kubectl("delete", "compute/mine")
    rights = asked(cluster, "alice", alices)
    assert not rights.get(403)
    assert granted("user-role.yaml") - set().union(*rights.values()) == set()


def forward(cluster: DevCluster, namespace: str, *, websockets: bool) -> None:
    """A tunnel to the pod, opened and closed, in the newer way and in the one before it."""
    state = cluster.state
    command = [state["kubectl"], f"--kubeconfig={state['kubeconfigs']['alice']}", "port-forward", "-n", namespace]
    environment = {**os.environ, "KUBECTL_PORT_FORWARD_WEBSOCKETS": str(websockets).lower()}
    with subprocess.Popen(
        [*command, "pod/mine-0", ":7779"], stdout=subprocess.PIPE, text=True, env=environment
    ) as tunnel:
        try:
            line = tunnel.stdout.readline()
            assert line.startswith("Forwarding from 127.0.0.1:"), line
            port = line.split("127.0.0.1:")[1].split()[0]
            status = subprocess.run(
                [state["kubectl"], "get", "--raw", "/status", f"--server=http://127.0.0.1:{port}"],
                capture_output=True, text=True)  # fmt: skip
            assert json.loads(status.stdout)["sessions"] == 0, status
        finally:
            tunnel.terminate()


@pytest.mark.parametrize(
    "words",
    [
        "get secrets",
        "get --raw /api/v1/namespaces/NAMESPACE/secrets?watch=true&fieldSelector=metadata.name%3Dmine",
        "get computes -A",
        "get computes -n default",
        "get secret mine -n default",
        "delete pod mine-0",
        "get --raw /api/v1/namespaces/NAMESPACE/pods/mine-0/exec?command=true",
        "create --raw /api/v1/namespaces/NAMESPACE/pods/mine-0/attach -f /dev/null",
        "run another --image=skytorch-test/python:v1",
        "create secret generic another",
        "delete service mine",
        "scale statefulset mine --replicas=0",
        "create rolebinding more --clusterrole=admin --user=alice",
        "patch compute mine --subresource=status --type=merge -p {}",
        "get nodes",
        "get crds",
        "get clusterroles",
    ],
)
def test_a_user_may_nothing_else(cluster: DevCluster, alices: str, words: str) -> None:
    refused = cluster.run("-n", alices, *words.replace("NAMESPACE", alices).split(), user="alice")
    assert refused.returncode != 0
    assert "forbidden" in refused.stderr.lower(), refused.stderr
