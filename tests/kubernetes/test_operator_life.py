"""The operator's own life: killed in the middle, stopped, two of them, an API server that goes away; and certificates
that are renewed while it lives."""

from __future__ import annotations

import base64
import json
import signal
import time
import urllib.error
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from between import ApiProxy, Rule, serving
from cryptography import x509
from operator_process import (
    BINDING,
    USER,
    Namespace,
    Operator,
    alone,
    compute,
    eventually,
    operator,
    owned,
    writes,
)


@pytest.fixture(scope="module", autouse=True)
def no_other(cluster: Any) -> Iterator[None]:
    with alone(cluster):
        yield


def until_all_ready(space: Namespace, names: set[str], timeout_s: float = 60) -> None:
    left = set(names)
    for _, found in space.changes("computes.compute.skytorch.dev", timeout_s):
        ready = [
            c for c in found.get("status", {}).get("conditions", []) if c["type"] == "Ready" and c["status"] == "True"
        ]
        if ready:
            left.discard(found["metadata"]["name"])
        if not left:
            return


def test_killed_in_the_middle_it_comes_back(cluster: Any, space: Namespace) -> None:
    names = {f"c{number}" for number in range(20)}
    with operator(cluster) as first:
        space.apply(*[compute(name) for name in sorted(names)])
        space.until("c0", lambda o: True, kind="statefulset")
        first.stop(signal.SIGKILL)
    with operator(cluster):
        until_all_ready(space, names)
    for name in ("c0", "c19"):
        secrets = space.list("secret", "-l", f"compute.skytorch.dev/name={name}")
        assert len(secrets) == 2


def test_told_to_stop_it_ends_well(cluster: Any, space: Namespace) -> None:
    with operator(cluster) as process:
        space.apply(*[compute(f"c{number}") for number in range(5)])
        space.until("c0", lambda o: True, kind="secret")
        begun = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        print(f"stopped {time.monotonic() - begun:.2f} s after SIGTERM, in the middle of five Computes")
        process.wait_for("the operator has stopped")


def test_without_its_rights_it_says_what_it_waits_for_and_can_be_stopped(cluster: Any) -> None:
    cluster.kubectl("delete", "clusterrolebinding", "operator-of-the-tests")
    try:
        process = Operator(cluster, until="a watch was interrupted")
        with pytest.raises(urllib.error.HTTPError, match="503") as refused:
            process.get("/readyz")
        assert refused.value.read() == b"waiting for the list of computes\n"
        assert process.stop(signal.SIGTERM) == 0
    finally:
        cluster.apply(json.dumps(BINDING))


def leases(space: Namespace) -> None:
    """The right to the Lease in this namespace, as the manifests give it in the operator's."""
    group = "rbac.authorization.k8s.io"
    kind = {"apiVersion": f"{group}/v1", "metadata": {"name": "lease"}}
    verbs = ["get", "create", "update", "patch"]
    rules = [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": verbs}]
    reference = {"apiGroup": group, "kind": "Role", "name": "lease"}
    subjects = [{"apiGroup": group, "kind": "User", "name": USER}]
    space.apply(
        {**kind, "kind": "Role", "rules": rules},
        {**kind, "kind": "RoleBinding", "roleRef": reference, "subjects": subjects},
    )


@pytest.mark.alone
def test_of_two_operators_one_leads(cluster: Any, space: Namespace) -> None:
    leases(space)
    flags = ("--leader-elect", f"--operator-namespace={space.name}")
    with operator(cluster, *flags) as first, operator(cluster, *flags, until=None) as second:
        assert (first.metric("leader"), second.metric("leader")) == (1, 0)
        assert second.get("/readyz") == "ok\n"
        space.apply(compute("a"))
        space.until_ready("a")
        assert second.metric("writes_total") == 0
        begun = time.monotonic()
        assert first.stop(signal.SIGTERM) == 0
        second.wait_for("this operator leads")
        print(f"a leader that stops is followed after {time.monotonic() - begun:.1f} s")
        assert time.monotonic() - begun < 5
        with operator(cluster, *flags, until=None) as third:
            begun = time.monotonic()
            second.stop(signal.SIGKILL)
            third.wait_for("all is seen", 30)
            print(f"a leader that was killed is followed after {time.monotonic() - begun:.1f} s")
            space.apply(compute("b"))
            space.until_ready("b")


def test_an_operator_that_loses_the_lead_ends(cluster: Any, space: Namespace) -> None:
    leases(space)
    flags = ("--leader-elect", f"--operator-namespace={space.name}")
    with operator(cluster, *flags) as process:
        space.patch("lease", "skytorch-operator", {"spec": {"holderIdentity": "somebody"}})
        assert process.process.wait(20) == 1
        process.wait_for("another operator leads")


def test_it_outlives_the_api_server(cluster: Any, space: Namespace) -> None:
    with operator(cluster) as process:
        space.apply(compute("a"))
        space.until_ready("a")
        cluster.kill("apiserver")
        process.wait_for("a watch was interrupted", 60)
        cluster.start("apiserver")
        space.apply(compute("b"))
        begun = time.monotonic()
        space.until_ready("b", 60)
        print(f"ready {time.monotonic() - begun:.1f} s after the API server was back")
        # What was deleted while nobody watched comes back, too.
        space.kubectl("delete", "service", "a")
        space.until("a", lambda o: "deletionTimestamp" not in o["metadata"], kind="service", timeout_s=60)


def test_what_a_compute_left_while_no_operator_looked_is_cleared(cluster: Any, space: Namespace) -> None:
    with operator(cluster):
        space.apply(compute("demo"))
        space.until_ready("demo")
    with cluster.without("controller-manager"):
        space.kubectl("delete", "compute", "demo")
        with operator(cluster):
            eventually(lambda: not owned(space), "nothing is left")


def test_an_operator_that_missed_a_deletion_makes_nothing_again(
    cluster: Any, space: Namespace, tmp_path: Path
) -> None:
    """The garbage collector's deletions are seen, the Compute's is not: its watch alone does not come back."""
    with (
        serving(ApiProxy(cluster.kubeconfig_for(USER), tmp_path)) as proxy,
        operator(cluster, kubeconfig=proxy.kubeconfig) as process,
    ):
        space.apply(compute("demo"))
        space.until_ready("demo")
        blind = proxy.refuse(500, "GET", "/computes[?]", times=10**6)
        proxy.cut()
        process.wait_for("a watch was interrupted")
        space.kubectl("delete", "compute", "demo")
        before = writes(cluster, space.name)
        eventually(lambda: process.metric("reads_total", kind="Compute") > 0, "it asks whether the Compute is gone")
        eventually(lambda: not owned(space), "the collector has cleared")
        since = {write for write in writes(cluster, space.name)[len(before) :] if not write.startswith("delete ")}
        # A pod that goes first may still be told of.
        assert since <= {"patch computes/status", "create events/", "patch events/"}
        blind.times = 0
        eventually(lambda: process.metric("computes") == 0, "it has heard of it")


def test_a_request_that_nobody_answers_does_not_keep_it_from_stopping(
    cluster: Any, space: Namespace, tmp_path: Path
) -> None:
    with (
        serving(ApiProxy(cluster.kubeconfig_for(USER), tmp_path)) as proxy,
        operator(cluster, kubeconfig=proxy.kubeconfig) as process,
    ):
        held = proxy.add(Rule("PATCH", "/statefulsets/demo", waits="before"))
        space.apply(compute("demo"))
        assert held.reached.wait(30)
        assert process.stop(signal.SIGTERM) == 0
        process.wait_for("is cut short")
        process.wait_for("the operator has stopped")
        held.go.set()
    with operator(cluster):
        space.until_ready("demo")


def certificate(space: Namespace) -> tuple[dict[str, str], x509.Certificate]:
    data = space.get("secret", "demo")["data"]
    return data, x509.load_pem_x509_certificate(base64.b64decode(data["tls.crt"]))


@pytest.mark.alone
def test_a_certificate_is_renewed_before_it_ends(cluster: Any, space: Namespace) -> None:
    with operator(cluster, "--certificate-lifetime=6s"):
        space.apply(compute("demo"))
        space.until_ready("demo")
        pod = space.get("pod", "demo-0")["metadata"]["uid"]
        for _ in range(2):
            old, before = certificate(space)
            written = len(writes(cluster, space.name))
            space.until("demo", lambda o, old=old: o["data"]["tls.crt"] != old["tls.crt"], kind="secret")
            new, after = certificate(space)
            assert (new["token"], new["ca.crt"]) == (old["token"], old["ca.crt"])
            left = before.not_valid_after_utc.timestamp() - time.time()
            print(f"a certificate of 6 s is renewed {left:.1f} s before its end")
            assert 0 < left <= 2.5
            secrets = [write for write in writes(cluster, space.name)[written:] if "secrets" in write]
            assert secrets == ["patch secrets/"], "a rotation is one write"
            after.verify_directly_issued_by(x509.load_pem_x509_certificate(base64.b64decode(new["ca.crt"])))
        assert space.get("pod", "demo-0")["metadata"]["uid"] == pod


def test_an_authority_that_is_thrown_away_is_made_anew(cluster: Any, space: Namespace) -> None:
    with operator(cluster):
        space.apply(compute("demo"))
        space.until_ready("demo")
        old, _ = certificate(space)
        space.kubectl("delete", "secret", "demo-ca")
        space.until("demo", lambda o: o["data"]["ca.crt"] != old["ca.crt"], kind="secret")
        new, server = certificate(space)
        server.verify_directly_issued_by(x509.load_pem_x509_certificate(base64.b64decode(new["ca.crt"])))
        assert new["token"] == old["token"]
