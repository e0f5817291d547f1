"""A Compute that nobody is connected to for `idleTimeout` is deleted or suspended; one that cannot be asked is not.
The stub says about its sessions what a test tells it to."""

from __future__ import annotations

import json
import time
import urllib.request

import pytest
from operator_process import Namespace, Operator, compute, condition, eventually

pytestmark = pytest.mark.usefixtures("running")


def say(space: Namespace, **state: float) -> None:
    """Has the stub say this from now on."""
    ip = space.get("pod", "demo-0")["status"]["podIP"]
    request = urllib.request.Request(f"http://{ip}:7779/status", json.dumps(state).encode(), method="POST")
    urllib.request.urlopen(request, timeout=5).close()


def test_an_idle_compute_is_deleted(space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="2s"))
    space.until_ready("demo")
    begun = time.monotonic()
    space.until_gone("demo", 12)
    print(f"idleTimeout 2s: gone {time.monotonic() - begun:.1f} s after it was ready")
    events = space.list("events.events.k8s.io", "--field-selector=reportingController=skytorch-operator,reason=Idle")
    assert [(e["type"], e["note"]) for e in events] == [
        ("Normal", "nobody was connected for 2s: the compute is deleted")
    ]
    eventually(lambda: not space.list("pod,secret,service,statefulset"), "nothing is left", 10)


def test_an_idle_compute_is_suspended_and_can_be_resumed(space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="2s", idleAction="Suspend"))
    space.until_ready("demo")
    suspended = space.until("demo", lambda c: condition(c, "Suspended").get("status") == "True")
    assert suspended["spec"]["suspend"] is True
    assert condition(suspended, "Suspended")["reason"] == condition(suspended, "Ready")["reason"] == "Idle"
    assert "set spec.suspend to false to resume" in condition(suspended, "Ready")["message"]
    assert space.list("pod") == []
    space.patch("compute", "demo", {"spec": {"suspend": False, "idleTimeout": "1h"}})
    space.until_ready("demo")


def test_whoever_is_connected_keeps_it(space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="2s", env={"STUB_SESSIONS": 1}))
    used = space.until("demo", lambda c: c.get("status", {}).get("sessions") == 1)
    uid = used["metadata"]["uid"]
    # Longer than the timeout, by the operator's own questions.
    since = space.get("compute", "demo")["status"]["lastUsed"]
    time.sleep(4)
    kept = space.get("compute", "demo")
    assert kept["metadata"]["uid"] == uid
    assert kept["status"]["lastUsed"] == since
    left = time.time()
    say(space, sessions=0, last_used_unix=left)
    space.until_gone("demo", 12)
    print(f"idleTimeout 2s: gone {time.time() - left:.1f} s after the last client left")


def test_what_cannot_be_asked_is_not_idle(space: Namespace, running: Operator) -> None:
    elsewhere = ["--health", "0.0.0.0:7778", "--metrics-port", "7780"]
    space.apply(
        compute("demo", idleTimeout="1s", override={"spec": {"containers": [{"name": "server", "args": elsewhere}]}})
    )
    before = running.metric("polls_total", result="error")
    space.until_ready("demo")
    eventually(lambda: running.metric("polls_total", result="error") >= before + 3, "it was asked in vain")
    assert condition(space.get("compute", "demo"), "Ready")["status"] == "True"
    assert "cannot ask the pod who is connected" in running.log()


def test_a_changed_timeout_holds_from_then_on(space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="1h"))
    space.until_ready("demo")
    space.patch("compute", "demo", {"spec": {"idleTimeout": "1s"}})
    space.until_gone("demo", 12)
