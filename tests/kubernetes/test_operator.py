"""What the operator makes of a Compute, and that it keeps it so: against a real control plane, with the stub's image.

Reasons that keep a Compute from being ready are in test_operator_reasons.py, idleness in test_operator_idle.py, many
Computes, kills and the lead in test_operator_load.py and test_operator_life.py.
"""

from __future__ import annotations

import base64
import json
import os
import ssl
import time
import urllib.error
from typing import Any

import pytest
from cryptography import x509
from operator_process import USER, Namespace, Operator, compute, condition, eventually, operator, owned, writes

VOLUME = {"name": "cache", "storage": "1Gi", "path": "/cache"}

pytestmark = pytest.mark.usefixtures("running")


def secret(space: Namespace, name: str) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in space.get("secret", name)["data"].items()}


def test_a_compute_becomes_ready_and_says_where_it_is(space: Namespace) -> None:
    begun = time.monotonic()
    space.apply(compute("demo", volumes=[VOLUME], labels={"team": "blue"}, annotations={"note": "x"}))
    ready = space.until_ready("demo")
    print(f"apply to Ready: {time.monotonic() - begun:.2f} s (a watch through kubectl included)")
    status = space.until("demo", lambda c: c["status"].get("devices"))["status"]
    service = space.get("service", "demo")
    assert status["address"] == f"{service['spec']['clusterIP']}:7777"
    ports = {port["name"]: port["port"] for port in status["ports"]}
    assert ports == {"session": 7777, "health": 7778, "metrics": 7779}
    assert (status["secretName"], status["podName"], status["sessions"]) == ("demo", "demo-0", 0)
    assert status["devices"] == ["cpu"]
    assert status["lastUsed"]
    assert status["observedGeneration"] == ready["metadata"]["generation"]
    told = {kind: (condition(ready, kind)["status"], condition(ready, kind)["reason"])
            for kind in ("Ready", "Progressing", "Suspended")}  # fmt: skip
    assert told == {
        "Ready": ("True", "Ready"),
        "Progressing": ("False", "Ready"),
        "Suspended": ("False", "NotSuspended"),
    }
    columns = space.kubectl("get", "compute", "demo").split("\n")
    assert columns[0].split() == ["NAME", "READY", "REASON", "GPUS", "AGE"]
    assert columns[1].split()[1:3] == [
        "True",
        "Ready",
    ]


def test_all_that_is_made_is_owned_and_labelled(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME], labels={"team": "blue"}, annotations={"note": "x"}))
    uid = space.until_ready("demo")["metadata"]["uid"]
    made = owned(space)
    names = sorted(f"{o['kind']} {o['metadata']['name']}" for o in made)
    assert names == ["NetworkPolicy demo", "PersistentVolumeClaim demo-cache", "Secret demo", "Secret demo-ca",
                     "Service demo", "ServiceAccount demo", "StatefulSet demo"]  # fmt: skip
    for each in made:
        meta = each["metadata"]
        assert [(r["kind"], r["uid"], r["controller"]) for r in meta["ownerReferences"]] == [("Compute", uid, True)]
        assert meta["labels"]["app.kubernetes.io/name"] == "skytorch"
        assert meta["labels"]["team"] == "blue"
        assert meta["labels"]["compute.skytorch.dev/name"] == "demo"
        assert meta["annotations"]["note"] == "x"


def test_the_pod_may_do_little(space: Namespace) -> None:
    limits = {"cpu": "0.5", "memory": "64Mi", "nvidia.com/gpu": 1}
    env = [{"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]
    resource = compute("demo", resources={"limits": limits}, args=["--more"], volumes=[VOLUME])
    resource["spec"]["env"] = env
    space.apply(resource)
    space.until_ready("demo")
    pod = space.get("pod", "demo-0")["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    security = container["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["serviceAccountName"] == "demo"
    assert pod["automountServiceAccountToken"] is False
    assert not [v for v in pod["volumes"] if "projected" in v]
    assert container["resources"]["limits"] == {"cpu": "500m", "memory": "64Mi", "nvidia.com/gpu": "1"}
    assert container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
    assert container["args"][:4] == ["--host", "0.0.0.0", "--port", "7777"]
    assert container["args"][-1] == "--more"
    assert container["readinessProbe"]["grpc"]["port"] == container["livenessProbe"]["grpc"]["port"] == 7778
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert mounts == {"/etc/skytorch": "skytorch", "/tmp": "tmp", "/cache": "cache"}
    assert pod["terminationGracePeriodSeconds"] == 30
    policy = space.get("networkpolicy", "demo")["spec"]
    assert [rule["ports"][0]["port"] for rule in policy["ingress"]] == [7777, 7779]
    assert "from" not in policy["ingress"][0]
    assert policy["ingress"][1]["from"][0]["namespaceSelector"]


def test_an_override_is_merged_into_the_pod(space: Namespace) -> None:
    patch = {
        "spec": {
            "terminationGracePeriodSeconds": 3,
            "containers": [{"name": "server", "env": [{"name": "A", "value": "b"}]}],
        }
    }
    space.apply(compute("demo", override=patch))
    space.until_ready("demo")
    pod = space.get("pod", "demo-0")["spec"]
    assert pod["terminationGracePeriodSeconds"] == 3
    assert len(pod["containers"]) == 1
    assert pod["containers"][0]["env"] == [{"name": "A", "value": "b"}]


def test_an_override_adds_a_port_and_a_mount(space: Namespace) -> None:
    """They need no name; the server's own stay, and with them the way to it."""
    added = {"ports": [{"containerPort": 9000}], "volumeMounts": [{"mountPath": "/more", "name": "tmp"}]}
    space.apply(compute("demo", override={"spec": {"containers": [{"name": "server", **added}]}}))
    space.until_ready("demo")
    (container,) = space.get("pod", "demo-0")["spec"]["containers"]
    assert [port["containerPort"] for port in container["ports"]] == [7777, 7778, 7779, 9000]
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/etc/skytorch", "/tmp", "/more"]

    def offered() -> list[int]:
        slices = space.list("endpointslice", "-l", "kubernetes.io/service-name=demo")
        return [port["port"] for found in slices for port in found.get("ports") or [] if found["endpoints"]]

    eventually(lambda: offered() == [7777], "the Service leads to the session's port")


def test_the_secret_has_a_token_and_a_certificate_of_its_authority(space: Namespace) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")
    data = secret(space, "demo")
    assert sorted(data) == ["ca.crt", "tls.crt", "tls.key", "token"]
    assert len(data["token"]) == 64
    certificate = x509.load_pem_x509_certificate(data["tls.crt"])
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    service = f"demo.{space.name}"
    assert names.get_values_for_type(x509.DNSName) == [
        "demo",
        service,
        f"{service}.svc",
        f"{service}.svc.cluster.local",
    ]
    days = (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days
    assert days == 90
    authority = x509.load_pem_x509_certificate(data["ca.crt"])
    certificate.verify_directly_issued_by(authority)
    assert data["ca.crt"] == secret(space, "demo-ca")["ca.crt"]
    # What a client does with it.
    context = ssl.create_default_context(cadata=data["ca.crt"].decode())
    assert context.cert_store_stats()["x509_ca"] == 1
    # The pod sees what the Secret has, and not the authority's key.
    volumes = space.get("pod", "demo-0")["spec"]["volumes"]
    (mounted,) = [volume["secret"] for volume in volumes if volume["name"] == "skytorch"]
    assert mounted["secretName"] == "demo"
    assert mounted["defaultMode"] == 0o440


def test_a_reconcile_of_what_is_right_asks_and_writes_nothing(cluster: Any, space: Namespace) -> None:
    empty = {"hostAliases": [], "topologySpreadConstraints": [], "nodeSelector": {}, "affinity": {}}
    more = {"volumes": [{"name": "more", "emptyDir": {}}], "initContainers": []}
    override = {"spec": {"tolerations": [{"operator": "Exists"}], **empty, **more}}
    limits = {"cpu": "0.5", "memory": "0.5Gi"}
    space.apply(compute("demo", volumes=[VOLUME], resources={"limits": limits}, override=override))
    space.until_ready("demo")
    space.until("demo", lambda c: c["status"].get("devices"))
    told = "--field-selector=reportingController=skytorch-operator,reason=Ready"
    eventually(lambda: bool(space.list("events.events.k8s.io", told)), "the last write, an event")
    before = writes(cluster, space.name)
    # One that starts anew, for this namespace alone; what the first one does is counted, too.
    with operator(cluster, f"--namespace={space.name}") as second:
        eventually(lambda: second.metric("polls_total", result="ok") >= 1, "the pod was asked")
        for number in range(20):
            done = second.metric("reconciles_total")
            space.kubectl("annotate", "compute", "demo", f"touch={number}", "--overwrite")
            eventually(lambda done=done: second.metric("reconciles_total") > done, "a reconcile")
        count, wrote, read = (second.metric(f"{what}_total") for what in ("reconciles", "writes", "reads"))
    print(f"{count:.0f} reconciles of a Compute that is right, from the start of an operator: "
          f"{wrote:.0f} writes, {read:.0f} reads")  # fmt: skip
    assert (wrote, read) == (0, 0)
    assert writes(cluster, space.name) == before


@pytest.mark.parametrize("kind", ["service", "statefulset", "serviceaccount", "networkpolicy", "secret"])
def test_what_somebody_deletes_comes_back(space: Namespace, kind: str) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")
    old = space.get(kind, "demo")["metadata"]["uid"]
    authority = secret(space, "demo-ca")
    space.kubectl("delete", kind, "demo", "--wait=false")
    space.until("demo", lambda o: o["metadata"]["uid"] != old and "deletionTimestamp" not in o["metadata"], kind=kind)
    space.until_ready("demo")
    assert secret(space, "demo-ca") == authority
    if kind == "secret":
        assert secret(space, "demo")["ca.crt"] == authority["ca.crt"]


CHANGES = [
    (
        "service",
        {"spec": {"ports": [{"name": "session", "port": 1234, "targetPort": 1}]}},
        lambda o: o["spec"]["ports"][0]["port"] == 7777,
    ),
    (
        "service",
        {"metadata": {"labels": {"app.kubernetes.io/name": "mine"}}},
        lambda o: o["metadata"]["labels"]["app.kubernetes.io/name"] == "skytorch",
    ),
    ("networkpolicy", {"spec": {"ingress": [{}]}}, lambda o: len(o["spec"]["ingress"]) == 2),
    ("statefulset", {"spec": {"replicas": 3}}, lambda o: o["spec"]["replicas"] == 1),
    ("serviceaccount", {"automountServiceAccountToken": True}, lambda o: o["automountServiceAccountToken"] is False),
    ("secret", {"data": {"tls.key": "eA=="}}, lambda o: len(o["data"]["tls.key"]) > 100),
]


@pytest.mark.parametrize(("kind", "change", "is_right"), CHANGES, ids=[f"{c[0]}-{next(iter(c[1]))}" for c in CHANGES])
def test_what_somebody_changes_is_put_right(
    space: Namespace, kind: str, change: dict[str, Any], is_right: Any
) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")
    version = int(space.get(kind, "demo")["metadata"]["resourceVersion"])
    space.patch(kind, "demo", change)
    space.until("demo", lambda o: int(o["metadata"]["resourceVersion"]) > version and is_right(o), kind=kind)


def test_what_others_add_is_theirs(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")
    space.patch("service", "demo", {"spec": {"type": "LoadBalancer"}, "metadata": {"annotations": {"cloud": "mine"}}})
    space.patch("service", "demo", {"metadata": {"labels": {"compute.skytorch.dev/name": "other"}}})
    space.until("demo", lambda o: o["metadata"]["labels"]["compute.skytorch.dev/name"] == "demo", kind="service")
    service = space.get("service", "demo")
    assert service["spec"]["type"] == "LoadBalancer"
    assert service["metadata"]["annotations"]["cloud"] == "mine"


def test_a_token_can_be_changed_or_thrown_away(space: Namespace) -> None:
    space.apply(compute("demo"))
    pod = space.until_ready("demo") and space.get("pod", "demo-0")["metadata"]["uid"]
    old = secret(space, "demo")
    mine = base64.b64encode(b"of my own").decode()
    space.patch("secret", "demo", {"data": {"token": mine}})
    applied = "compute.skytorch.dev/applied"
    digest = space.get("secret", "demo")["metadata"]["annotations"][applied]
    space.until(
        "demo", lambda o: o["metadata"]["annotations"][applied] != digest or o["data"]["token"] == mine, kind="secret"
    )
    assert secret(space, "demo")["token"] == b"of my own"
    space.patch("secret", "demo", {"data": {"token": None}})
    space.until("demo", lambda o: len(o["data"].get("token", "")) > 80, kind="secret")
    new = secret(space, "demo")
    assert new["token"] not in (old["token"], b"of my own")
    assert new["tls.crt"] == old["tls.crt"]
    assert space.get("pod", "demo-0")["metadata"]["uid"] == pod


def test_suspension_keeps_volumes_and_address(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME]))
    before = space.until_ready("demo")
    claim = space.get("persistentvolumeclaim", "demo-cache")["metadata"]["uid"]
    space.patch("compute", "demo", {"spec": {"suspend": True}})
    suspended = space.until("demo", lambda c: condition(c, "Suspended").get("status") == "True")
    assert condition(suspended, "Ready")["reason"] == condition(suspended, "Suspended")["reason"] == "Suspended"
    assert condition(suspended, "Progressing")["status"] == "False"
    assert space.list("pod") == []
    assert suspended["status"]["address"] == before["status"]["address"]
    space.patch("compute", "demo", {"spec": {"suspend": False}})
    resumed = space.until_ready("demo")
    assert condition(resumed, "Suspended")["status"] == "False"
    assert resumed["status"]["address"] == before["status"]["address"]
    assert space.get("persistentvolumeclaim", "demo-cache")["metadata"]["uid"] == claim


def test_a_changed_spec_replaces_the_pod_and_two_never_run(space: Namespace) -> None:
    space.apply(compute("demo", env={"STEP": 1}))
    space.until_ready("demo")
    first = space.get("pod", "demo-0")["metadata"]["uid"]
    space.apply(compute("demo", env={"STEP": 2}))
    alive: set[str] = set()
    for change, pod in space.changes("pod", 20):
        uid = pod["metadata"]["uid"]
        alive = alive - {uid} if change == "DELETED" else alive | {uid}
        assert len(alive) <= 1, "two pods"
        ready = [
            c for c in pod.get("status", {}).get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"
        ]
        if uid != first and ready:
            assert pod["spec"]["containers"][0]["env"] == [{"name": "STEP", "value": "2"}]
            break
    space.until_ready("demo")


def test_what_a_running_pod_can_follow_does_not_replace_it(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME]))
    space.until_ready("demo")
    first = space.get("pod", "demo-0")["metadata"]["uid"]
    space.patch("compute", "demo", {"spec": {"idleTimeout": "1h", "idleAction": "Suspend"}})
    space.until_ready("demo")
    assert space.get("pod", "demo-0")["metadata"]["uid"] == first


def test_a_killed_server_is_told_as_lost_and_is_back(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")
    with space.watched("demo") as told:
        os.kill(cluster.process_of(space.name, "demo-0"), 9)
        lost = told("PodLost")
    assert "pod demo-0 ended with exit code 137" in condition(lost, "Ready")["message"]
    assert condition(lost, "Progressing")["status"] == "True"
    space.until_ready("demo")
    with space.watched("demo") as told:
        space.kubectl("delete", "pod", "demo-0", "--wait=false")
        lost = told("PodLost")
    assert condition(lost, "Ready")["message"] in ("pod demo-0 was deleted", "pod demo-0 is gone")
    space.until_ready("demo")


def test_transitions_are_events(space: Namespace) -> None:
    space.apply(compute("demo"))
    space.until_ready("demo")

    def told() -> list[tuple[str, str]]:
        events = space.list("events.events.k8s.io", "--field-selector=reportingController=skytorch-operator")
        assert all(e["regarding"]["kind"] == "Compute" and e["regarding"]["name"] == "demo" for e in events)
        ordered = sorted(events, key=lambda e: e["eventTime"])
        return [(e["type"], e["reason"]) for e in ordered]

    eventually(lambda: told()[-1:] == [("Normal", "Ready")], "an event Ready")
    assert told() == [("Normal", "Starting"), ("Normal", "Ready")]
    space.kubectl("delete", "pod", "demo-0", "--wait=false")
    eventually(lambda: ("Warning", "PodLost") in told(), "an event PodLost")


def test_a_deleted_compute_leaves_nothing_within_ten_seconds(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME]))
    space.until_ready("demo")
    begun = time.monotonic()
    space.kubectl("delete", "compute", "demo")
    eventually(lambda: not owned(space) and not space.list("pod"), "nothing is left", 10)
    print(f"nothing left {time.monotonic() - begun:.1f} s after the deletion")


def test_the_operator_itself_deletes_what_is_left(cluster: Any, space: Namespace) -> None:
    """Kubernetes' collector does not know a kind that is younger than half a minute; here it does not run at all."""
    space.apply(compute("demo", volumes=[VOLUME]))
    space.until_ready("demo")
    kinds = ("statefulsets", "services", "secrets", "serviceaccounts", "networkpolicies", "persistentvolumeclaims")

    def deleted() -> set[str]:
        """A refusal would be no deletion."""
        requests = (
            e for e in cluster.audit(USER) if e["verb"] == "delete" and e["responseStatus"]["code"] in (200, 404)
        )
        return {e["objectRef"]["resource"] for e in requests if e["objectRef"].get("namespace") == space.name}

    with cluster.without("controller-manager"):
        space.kubectl("delete", "compute", "demo")
        eventually(lambda: set(kinds) <= deleted(), "each kind is deleted")


def test_what_is_orphaned_stays(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME]))
    space.until_ready("demo")
    space.kubectl("delete", "compute", "demo", "--cascade=orphan")
    space.until("demo-cache", lambda o: "ownerReferences" not in o["metadata"], kind="persistentvolumeclaim")
    assert len(owned(space)) == 7
    assert not [o for o in owned(space) if "deletionTimestamp" in o["metadata"]]


def test_the_same_name_again_at_once(space: Namespace) -> None:
    space.apply(compute("demo", volumes=[VOLUME]))
    first = space.until_ready("demo")["metadata"]["uid"]
    space.kubectl("delete", "compute", "demo")
    space.apply(compute("demo", volumes=[VOLUME]))
    again = space.until_ready("demo", 30)
    assert again["metadata"]["uid"] != first
    assert all(o["metadata"]["ownerReferences"][0]["uid"] == again["metadata"]["uid"] for o in owned(space))


REFUSED = [
    ({"image": ""}, "spec.image"),
    ({"idleTimeout": "0s"}, "idleTimeout must be a duration of at least 1s"),
    ({"idleTimeout": "soon"}, "idleTimeout must be a duration of at least 1s"),
    ({"idleAction": "Explode"}, 'supported values: "Delete", "Suspend"'),
    ({"volumes": [{**VOLUME, "path": "cache"}]}, "a volume's path must be absolute"),
    ({"volumes": [{**VOLUME, "path": "/etc/skytorch"}]}, "a volume's path must be absolute"),
    ({"volumes": [{**VOLUME, "name": "tmp"}]}, "neither skytorch nor tmp"),
    ({"volumes": [VOLUME, {**VOLUME, "name": "b"}]}, "two volumes have the same path"),
    ({"volumes": [VOLUME, {**VOLUME, "path": "/b"}]}, "uplicate"),
    ({"imagePullPolicy": "Often"}, "imagePullPolicy"),
    ({"colour": "blue"}, "colour"),
    ({"env": [{"name": "A", "valueFrom": {"secretKey": {}}}]}, "secretKey"),
]


@pytest.mark.parametrize(("spec", "words"), REFUSED, ids=[json.dumps(s)[:40] for s, _ in REFUSED])
def test_the_api_server_refuses_what_makes_no_sense(
    cluster: Any, space: Namespace, spec: dict[str, Any], words: str
) -> None:
    resource = compute("demo")
    resource["spec"].update(spec)
    done = cluster.run("create", "--validate=strict", "-n", space.name, "-f", "-", input=json.dumps(resource))
    assert done.returncode != 0
    assert words in done.stderr, done.stderr


@pytest.mark.parametrize("name", ["1st", "a" * 53, "a.b", "a-"])
def test_the_api_server_refuses_a_name_that_fits_no_pod(cluster: Any, space: Namespace, name: str) -> None:
    done = cluster.run("create", "-n", space.name, "-f", "-", input=json.dumps(compute(name)))
    assert done.returncode != 0
    assert "name" in done.stderr, done.stderr


def test_a_volumes_class_stays(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo", suspend=True, volumes=[VOLUME]))
    changed = compute("demo", suspend=True, volumes=[{**VOLUME, "storageClassName": "other"}])
    done = cluster.run("apply", "--server-side", "-n", space.name, "-f", "-", input=json.dumps(changed))
    assert "storageClassName cannot be changed" in done.stderr, done.stderr


def test_health_and_metrics_are_served(space: Namespace, running: Operator) -> None:
    assert running.get("/healthz") == running.get("/readyz") == "ok\n"
    space.apply(compute("demo"))
    space.until_ready("demo")
    eventually(lambda: running.metric("computes", reason="Ready") >= 1, "the Compute is counted")
    assert running.metric("leader") == 1
    assert running.metric("reconcile_seconds_count") > 0
    with pytest.raises(urllib.error.HTTPError, match="404"):
        running.get("/other")


def test_a_server_that_has_no_handlers_yet_ends_at_once(cluster: Any, space: Namespace) -> None:
    # As a server in its first moments: PID 1 would not notice SIGTERM, and have 30 s.
    program = ["python", "-c", "import signal; signal.pause()"]
    space.apply(compute("early", image="skytorch-test/python:v1", command=program))
    cluster.wait(space.name, "pod/early-0", "create")
    cluster.wait(space.name, "pod/early-0", "jsonpath={.status.containerStatuses[0].state.running.startedAt}")
    cluster.kubectl("delete", "-n", space.name, "compute/early", "--wait=false")
    cluster.wait(space.name, "pod/early-0", "delete", 10)
