"""A Compute that nobody is connected to for `idleTimeout` is deleted or suspended; one that cannot be asked is not.
The stub says about its sessions what a test tells it to."""

from __future__ import annotations

import json
import time
import urllib.request
from datetime import datetime
from typing import Any

import pytest
from operator_process import Namespace, Operator, compute, condition, eventually, operator, writes

COMPUTES = "computes.compute.skytorch.dev"

pytestmark = pytest.mark.usefixtures("running")


def say(space: Namespace, **state: object) -> None:
    """Has the stub say this from now on; `then`: what it says after its next answer."""
    ip = space.get("pod", "demo-0")["status"]["podIP"]
    request = urllib.request.Request(f"http://{ip}:7779/status", json.dumps(state).encode(), method="POST")
    urllib.request.urlopen(request, timeout=5).close()


def test_an_idle_compute_is_deleted(space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="2s"))
    space.until_ready("demo")
    begun = time.monotonic()
    space.until_gone("demo", 12)
    print(f"idleTimeout 2s: gone {time.monotonic() - begun:.1f} s after it was ready")
    told = "--field-selector=reportingController=skytorch-operator,reason=Idle"
    eventually(lambda: bool(space.list("events.events.k8s.io", told)), "an event Idle")
    events = space.list("events.events.k8s.io", told)
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


def due(space: Namespace, **spec: Any) -> dict[str, Any]:
    """A Compute that has been ready for longer than its timeout, with somebody connected until a test says else."""
    space.apply(compute("demo", idleTimeout="1s", env={"STUB_SESSIONS": 1}, **spec))
    used = space.until("demo", lambda c: c.get("status", {}).get("sessions") == 1)
    since = datetime.fromisoformat(condition(used, "Ready")["lastTransitionTime"]).timestamp()
    eventually(lambda: time.time() - since > 2, "it has been ready for long enough")
    return used


@pytest.mark.parametrize("action", ["Delete", "Suspend"])
def test_whoever_connects_at_the_last_moment_keeps_it(space: Namespace, action: str) -> None:
    """The answer that it is idle is followed by one that it is not: the client has come in between."""
    due(space, idleAction=action)
    told: list[int] = []
    for change, found in space.changes(COMPUTES, 20):
        assert change != "DELETED"
        assert not found["spec"].get("suspend")
        if not told:
            say(space, sessions=0, last_used_unix=time.time() - 60, then={"sessions": 1})
        told.append(found["status"]["sessions"])
        if told[-2:] == [0, 1]:
            break
    kept = space.get("compute", "demo")
    assert "deletionTimestamp" not in kept["metadata"]
    assert condition(kept, "Ready")["status"] == "True"


@pytest.mark.parametrize("action", ["Delete", "Suspend"])
def test_a_compute_that_is_changed_at_the_last_moment_is_judged_anew(
    space: Namespace, running: Operator, action: str
) -> None:
    due(space, idleAction=action)
    for change, found in space.changes(COMPUTES, 20):
        assert change != "DELETED"
        if found["status"]["sessions"] == 1:
            say(space, sessions=0, last_used_unix=time.time() - 60, then={"hold": True})
        else:
            break
    # It is asked for the last time now, and waits for the answer.
    space.patch("compute", "demo", {"spec": {"idleTimeout": "1h"}})
    say(space, sessions=0)
    kept = space.until("demo", lambda c: condition(c, "Ready").get("status") == "True")
    done = running.metric("reconciles_total")
    space.kubectl("annotate", "compute", "demo", "look=again")
    eventually(lambda: running.metric("reconciles_total") > done, "another look at it")
    again = space.get("compute", "demo")
    assert again["metadata"]["generation"] == kept["metadata"]["generation"]
    assert "deletionTimestamp" not in again["metadata"]


def test_the_same_use_is_written_once(space: Namespace) -> None:
    """A server reckons the time of its last use back from now, so each answer has another fraction of a second."""
    space.apply(compute("demo", idleTimeout="4s"))
    first = space.until("demo", lambda c: c.get("status", {}).get("devices"))["status"]["lastUsed"]
    used = int(time.time()) + 30  # ahead, so that it is not idle meanwhile
    sooner, later = {"last_used_unix": used + 0.9995}, {"last_used_unix": used + 1.0005}
    say(space, **sooner, then={**later, "then": {**sooner, "then": {**later, "then": {"sessions": 1}}}})
    written = []
    for _, found in space.changes(COMPUTES, 20):
        if found["status"]["sessions"] == 1:
            break
        written.append(found["status"]["lastUsed"])
    assert {datetime.fromisoformat(at).timestamp() for at in written if at != first} == {used}


def test_an_operator_that_starts_anew_writes_nothing_about_a_use_that_goes_on(cluster: Any, space: Namespace) -> None:
    space.apply(compute("demo", idleTimeout="4s", env={"STUB_SESSIONS": 1}))
    used = space.until("demo", lambda c: c.get("status", {}).get("sessions") == 1)
    told = "--field-selector=reportingController=skytorch-operator,reason=Ready"
    eventually(lambda: bool(space.list("events.events.k8s.io", told)), "the last write, an event")
    before = writes(cluster, space.name)
    with operator(cluster, f"--namespace={space.name}") as second:
        eventually(lambda: second.metric("polls_total", result="ok") >= 3, "the pod was asked")
        assert second.metric("writes_total") == 0
    assert writes(cluster, space.name) == before
    assert space.get("compute", "demo")["status"] == used["status"]


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
