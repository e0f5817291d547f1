"""Why a Compute does not become ready: each cause is arranged, told with Kubernetes' own reason, and, where it can
be, taken away again, after which the Compute becomes ready by itself."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from operator_process import Namespace, compute, condition, eventually

pytestmark = pytest.mark.usefixtures("running")
FLAGS = ("--scheduling-timeout=2s",)  # of the operator that these tests run


def why(resource: dict[str, Any]) -> str:
    ready, progressing = condition(resource, "Ready"), condition(resource, "Progressing")
    assert ready["message"] == progressing["message"]
    assert ready["reason"] == progressing["reason"]
    return str(ready["message"])


def test_an_image_that_is_not_there(space: Namespace) -> None:
    space.apply(compute("demo", image="registry.example/no-such:v1"))
    told = why(space.until_reason("demo", "ErrImagePull"))
    assert told.startswith("image registry.example/no-such:v1 of pod demo-0 cannot be pulled: "), told
    space.apply(compute("demo"))
    space.until_ready("demo")


def test_a_pull_that_fails_again_and_again_is_told_once(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo", image="registry.example/no-such:v1"))
    first = space.until_reason("demo", "ErrImagePull")
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    for reason in ("ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"):
        cluster.wait(space.name, "pod/demo-0", f"{waiting}={reason}", 30)
    assert space.get("compute", "demo")["status"] == first["status"]


def test_a_pod_that_no_node_has_room_for(space: Namespace) -> None:
    space.apply(compute("demo", resources={"limits": {"nvidia.com/gpu": 64}}))
    early = space.until("demo", lambda c: condition(c, "Ready").get("reason") == "FailedScheduling")
    begun = time.monotonic()
    assert condition(early, "Progressing")["status"] == "True"
    told = why(space.until_reason("demo", "FailedScheduling"))
    print(f"final {time.monotonic() - begun:.1f} s after it was told first")
    assert told.startswith("pod demo-0 cannot be scheduled: "), told
    assert "Insufficient nvidia.com/gpu" in told, told
    space.apply(compute("demo", resources={"limits": {"nvidia.com/gpu": 1}}))
    space.until_ready("demo")


def test_a_server_that_crashes(space: Namespace) -> None:
    space.apply(compute("demo", env={"STUB_EXIT_CODE": 3}))
    told = why(space.until_reason("demo", "CrashLoopBackOff", 40))
    assert told == "container server of pod demo-0 ended with exit code 3: stub exits, as its environment says"
    space.apply(compute("demo"))
    space.until_ready("demo")


def test_a_crash_is_told_once_while_it_goes_on(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo", env={"STUB_EXIT_CODE": 3}))
    first = space.until_reason("demo", "CrashLoopBackOff", 40)
    count = space.get("pod", "demo-0")["status"]["containerStatuses"][0]["restartCount"]
    more = "jsonpath={.status.containerStatuses[0].restartCount}"
    cluster.wait(space.name, "pod/demo-0", f"{more}={count + 2}", 40)
    assert space.get("compute", "demo")["status"] == first["status"]


def test_a_server_that_wants_more_memory_than_it_may_have(space: Namespace) -> None:
    space.apply(compute("demo", env={"STUB_ALLOC_MIB": 300}, resources={"limits": {"memory": "64Mi"}}))
    told = why(space.until_reason("demo", "OOMKilled", 40))
    assert "more memory than its limit (exit code 137)" in told, told


def test_a_reference_to_a_secret_that_is_not_there(space: Namespace) -> None:
    resource = compute("demo")
    resource["spec"]["env"] = [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "a"}}}]
    space.apply(resource)
    told = why(space.until_reason("demo", "CreateContainerConfigError"))
    assert "mine" in told, told
    space.kubectl("create", "secret", "generic", "mine", "--from-literal=a=b")
    space.until_ready("demo", 40)


QUOTA = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": {"hard": {"pods": "0"}}}


def test_a_quota_that_refuses_the_pod(cluster: Any, space: Namespace) -> None:
    space.apply(QUOTA)
    cluster.wait(space.name, "resourcequota/few", "jsonpath={.status.hard.pods}=0")
    space.apply(compute("demo"))
    told = why(space.until_reason("demo", "QuotaExceeded"))
    assert told.startswith("the pod was refused: "), told
    assert "exceeded quota: few" in told, told
    space.kubectl("delete", "resourcequota", "few")
    space.until_ready("demo", 60)


def test_a_quota_that_refuses_an_object(cluster: Any, space: Namespace) -> None:
    quota = {**QUOTA, "spec": {"hard": {"services": "0"}}}
    space.apply(quota)
    cluster.wait(space.name, "resourcequota/few", "jsonpath={.status.hard.services}=0")
    space.apply(compute("demo"))
    told = why(space.until_reason("demo", "QuotaExceeded"))
    assert "cannot apply Service demo" in told, told
    assert "exceeded quota: few" in told, told
    space.kubectl("delete", "resourcequota", "few")
    space.until_ready("demo", 60)


def test_a_pod_that_the_namespace_forbids(space: Namespace) -> None:
    space.kubectl("label", "namespace", space.name, "pod-security.kubernetes.io/enforce=baseline")
    space.apply(compute("demo", override={"spec": {"hostNetwork": True}}))
    told = why(space.until_reason("demo", "FailedCreate"))
    assert "violates PodSecurity" in told, told


def test_a_compute_fits_the_strictest_namespace(space: Namespace) -> None:
    space.kubectl("label", "namespace", space.name, "pod-security.kubernetes.io/enforce=restricted")
    space.apply(compute("demo", volumes=[{"name": "cache", "storage": "1Gi", "path": "/cache"}]))
    space.until_ready("demo")


OVERRIDES = [
    ({"spec": {"containers": "none"}}, "the override makes no valid pod template"),
    ({"spec": {"containerz": []}}, ".spec.template.spec.containerz: field not declared in schema"),
    ({"spec": {"containers": [{"name": "server", "image": None}]}}, "spec.template.spec.containers[0].image"),
    ({"spec": {"restartPolicy": "Sometimes"}}, "restartPolicy"),
]


@pytest.mark.parametrize(("override", "words"), OVERRIDES, ids=[json.dumps(o)[:40] for o, _ in OVERRIDES])
def test_an_override_that_makes_no_pod(space: Namespace, override: dict[str, Any], words: str) -> None:
    space.apply(compute("demo", override=override))
    told = why(space.until_reason("demo", "InvalidOverride"))
    assert words in told, told
    space.apply(compute("demo"))
    space.until_ready("demo", 40)


def test_labels_that_are_none(space: Namespace) -> None:
    space.apply(compute("demo", labels={"not a label": "x"}))
    told = why(space.until_reason("demo", "InvalidSpec"))
    assert "not a label" in told, told


@pytest.mark.parametrize("kind", ["secret", "service"])
def test_a_name_that_somebody_else_has(space: Namespace, kind: str) -> None:
    mine = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo"}, "stringData": {"password": "p"}}
    if kind == "service":
        mine = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "demo"},
            "spec": {"ports": [{"port": 80}]},
        }
    space.apply(mine)
    before = space.get(kind, "demo")
    space.apply(compute("demo"))
    told = why(space.until_reason("demo", "Conflict"))
    assert told.startswith(f"{kind.title()} demo is there already and belongs to somebody else: "), told
    space.kubectl("delete", "compute", "demo")
    assert space.get(kind, "demo") == before
    space.apply(compute("demo"))
    space.until_reason("demo", "Conflict")
    space.kubectl("delete", kind, "demo")
    space.until_ready("demo", 30)


def test_a_bad_compute_delays_no_other(space: Namespace) -> None:
    bad = [
        compute("image", image="registry.example/no-such:v1"),
        compute("override", override={"spec": {"containerz": []}}),
        compute("crash", env={"STUB_EXIT_CODE": 3}),
        compute("gpus", resources={"limits": {"nvidia.com/gpu": 64}}),
        compute("label", labels={"not a label": "x"}),
    ]
    space.apply(*bad)
    space.until_reason("label", "InvalidSpec")
    begun = time.monotonic()
    space.apply(compute("good"))
    space.until_ready("good", 10)
    print(f"ready beside five bad ones: {time.monotonic() - begun:.2f} s")


def test_a_reason_is_an_event(space: Namespace) -> None:
    space.apply(compute("demo", image="registry.example/no-such:v1"))
    space.until_reason("demo", "ErrImagePull")

    def told() -> list[dict[str, Any]]:
        events = space.list("events.events.k8s.io", "--field-selector=reportingController=skytorch-operator")
        return [e for e in events if e["reason"] == "ErrImagePull"]

    eventually(lambda: bool(told()), "an event")
    (event,) = told()
    assert event["type"] == "Warning"
    assert event["related"]["name"] == "demo-0"
    assert event["note"] == why(space.get("compute", "demo"))
