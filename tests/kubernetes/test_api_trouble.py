"""Trouble on the way to the API server: answers that are lost, refusals that pass, credentials that fail once.

All of it through a proxy that loses or refuses what a test says; behind it is the real API server.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading

import pytest
from between import ApiProxy, Rule, serving
from clients import STUB, gone_within, owned, stub, until
from skytorch import errors
from skytorch.providers import Cancel
from skytorch.providers.kubernetes import _lease

ABANDONED = {
    "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "skytorch-lost"},
    "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"},
}  # fmt: skip
LOST = {
    "the apply": ("PATCH", "/computes/lost"),
    "the claim": ("POST", "/leases"),
    "the claim of a name that was held": ("PUT", "/leases/skytorch-lost", 2),  # aiohttp sends a PUT again
}
PASSING = {
    "the claim": (429, "GET", "/leases/"),
    "the apply": (503, "PATCH", "/computes/busy"),
    "the watch of the Compute": (429, "GET", r"/computes\?.*watch=true"),
    "the list of its pods": (500, "GET", r"/pods\?"),
    "its Secret": (503, "GET", "/secrets/busy"),
    "the look at the Lease before the end": (500, "GET", "/leases/"),
    "the end": (401, "DELETE", "/computes/busy"),
}
AT_THE_END = ("the look at the Lease before the end", "the end")


@pytest.fixture
def proxy(cluster, here, tmp_path, monkeypatch):
    """The API server as this process sees it."""
    with serving(ApiProxy(cluster.kubeconfig, tmp_path)) as proxy:
        monkeypatch.setenv("KUBECONFIG", str(proxy.kubeconfig))
        yield proxy


def come_and_go(name: str) -> None:
    provider, _ = stub(name)
    provider.start(timeout_s=60, cancel=Cancel())
    provider.delete(grace_period_s=5)


@pytest.mark.parametrize("what", LOST)
def test_what_was_done_without_an_answer_is_undone(cluster, here, proxy, what):
    if what == "the claim of a name that was held":
        cluster.apply(json.dumps(ABANDONED), here)
    proxy.lose_answer(*LOST[what])
    provider, _ = stub("lost")
    with pytest.raises(errors.Unreachable):
        provider.start(timeout_s=60, cancel=Cancel())
    provider.delete(grace_period_s=5)
    gone_within(cluster, here, "lost", 10)
    come_and_go("lost")
    gone_within(cluster, here, "lost", 10)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_start_that_is_cancelled_in_its_apply_leaves_nothing_behind(cluster, here, proxy, moment):
    """Cancelled while the API server has the apply already, and while it is still on its way there."""
    rule = proxy.add(Rule("PATCH", "/computes/cut", waits=moment))
    provider, _ = stub("cut")
    cancel, raised = Cancel(), []

    def start() -> None:
        try:
            provider.start(timeout_s=60, cancel=cancel)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    assert rule.reached.wait(30)
    cancel.request()
    threading.Timer(0.5, rule.go.set).start()
    thread.join()
    provider.delete(grace_period_s=5)
    assert rule.go.wait(30)
    assert isinstance(raised[0], asyncio.CancelledError)
    gone_within(cluster, here, "cut", 10)
    assert cluster.run("wait", "--for=create", "compute/cut", "-n", here, "--timeout=1s").returncode != 0


def test_a_compute_of_somebody_else_is_not_taken_for_a_lost_apply(cluster, here, proxy):
    manifest = {
        "apiVersion": "compute.skytorch.dev/v1alpha1", "kind": "Compute", "metadata": {"name": "theirs"},
        "spec": {"image": STUB, "suspend": True},
    }  # fmt: skip
    cluster.apply(json.dumps(manifest), here)
    proxy.refuse(503, "PATCH", "/computes/theirs", times=1000)
    provider, _ = stub("theirs")
    with pytest.raises(errors.ComputeNotReady, match="answers 503 to patch compute 'theirs'"):
        provider.start(timeout_s=2, cancel=Cancel())
    provider.delete(grace_period_s=5)
    assert owned(cluster, here, "theirs")[-1] == "compute.compute.skytorch.dev/theirs"


@pytest.mark.parametrize("what", PASSING)
def test_a_refusal_that_passes_is_waited_out(cluster, here, proxy, what):
    provider, _ = stub("busy")
    rule = None if what in AT_THE_END else proxy.refuse(*PASSING[what], times=2)
    provider.start(timeout_s=60, cancel=Cancel())
    rule = rule or proxy.refuse(*PASSING[what], times=2)
    provider.delete(grace_period_s=5)
    assert rule.times == 0
    gone_within(cluster, here, "busy", 10)


def test_what_does_not_pass_is_told_at_the_end_of_the_time(cluster, here, proxy):
    provider, _ = stub("stuck")
    provider.start(timeout_s=60, cancel=Cancel())
    proxy.refuse(401, "DELETE", "/computes/stuck", times=1000)
    with pytest.raises(errors.Timeout, match=r"'stuck' .* is not gone yet \(.*does not accept the credentials"):
        provider.delete(grace_period_s=5)
    cluster.kubectl("delete", "compute", "stuck", "-n", here)


def test_a_watch_that_tells_nonsense_ends_the_wait(cluster, here, proxy):
    line = json.dumps({"type": "MODIFIED", "object": {"metadata": {"resourceVersion": "1"}}}).encode()
    proxy.add(Rule("GET", r"/computes\?.*watch=true", answer=(200, line + b"\n")))
    provider, _ = stub("nonsense")
    with pytest.raises(errors.InternalError, match=r"compute 'nonsense': KeyError\('uid'\)"):
        provider.start(timeout_s=60, cancel=Cancel())
    provider.delete(grace_period_s=5)
    gone_within(cluster, here, "nonsense", 10)


def test_a_log_that_ends_with_nonsense_says_so(cluster, here, proxy, caplog):
    told = {"kind": "Status", "code": 409, "reason": "Conflict", "details": {"causes": 5}}
    provider, _ = stub("talks")
    provider.start(timeout_s=60, cancel=Cancel())
    proxy.add(Rule("GET", "/pods/talks-0/log", answer=(409, json.dumps(told).encode())))
    with pytest.raises(errors.InternalError, match=r"compute 'talks': TypeError\("):
        list(provider.logs(follow=False))
    (record,) = [record for record in caplog.records if "its log is no longer read" in record.getMessage()]
    assert record.exc_info[0] is TypeError
    assert list(provider.logs(follow=False))
    provider.delete(grace_period_s=5)


PLUGIN = """
import datetime, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
with (folder / "runs").open("a") as runs:
    runs.write("x")
if (folder / "broken").exists():
    sys.exit("the plugin fails")
until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=31)
status = {"token": (folder / "token").read_text(), "expirationTimestamp": until.isoformat()}
print(json.dumps({"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": status}))
"""


def test_a_credential_plugin_that_fails_for_a_while_ends_no_watch(cluster, here, proxy, tmp_path):
    runs, broken = tmp_path / "runs", tmp_path / "broken"
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "token").write_text(proxy.told["users"][0]["user"]["token"])
    command = {"command": sys.executable, "args": [str(tmp_path / "plugin.py"), str(tmp_path)]}
    user = {"exec": {"apiVersion": "client.authentication.k8s.io/v1", **command}}
    proxy.kubeconfig.write_text(json.dumps(proxy.told | {"users": [{"name": "admin", "user": user}]}))
    provider, told = stub("plugged")
    provider.start(timeout_s=60, cancel=Cancel())
    broken.touch()
    seen = len(runs.read_text())
    until(lambda: len(runs.read_text()) > seen, "a run that fails")  # of a renewal of the Lease: the token is too old
    seen = len(runs.read_text())
    proxy.cut()
    until(lambda: len(runs.read_text()) > seen + 3, "runs that fail for the watches")
    broken.unlink()
    cluster.kubectl("annotate", "compute", "plugged", "-n", here, "note=after")
    until(
        lambda: told.get(timeout=30)["metadata"].get("annotations", {}).get("note") == "after",
        "a change after the plugin works again",
    )
    provider.delete(grace_period_s=5)
    gone_within(cluster, here, "plugged", 10)


def test_a_lease_goes_with_its_compute_and_does_not_come_back(cluster, here, monkeypatch):
    monkeypatch.setattr(_lease, "RENEW_S", 0.1)
    provider, _ = stub("ends")
    provider.start(timeout_s=60, cancel=Cancel())
    cluster.kubectl("delete", "compute", "ends", "-n", here)
    until(lambda: "was deleted" in (provider.why_lost() or ""), "the client knows")
    gone_within(cluster, here, "ends", 15)

    def writes() -> int:
        leases = {"resource": "leases", "namespace": here}
        asked = [event for event in cluster.audit("admin") if leases.items() <= event.get("objectRef", {}).items()]
        return sum(event["verb"] in ("create", "update") for event in asked)

    before = writes()
    assert cluster.run("wait", "--for=create", "lease/skytorch-ends", "-n", here, "--timeout=3s").returncode != 0
    assert writes() == before
    provider.start(timeout_s=60, cancel=Cancel())  # the same client again, and it claims the name again
    assert "lease.coordination.k8s.io/skytorch-ends" in owned(cluster, here, "ends")
    provider.delete(grace_period_s=5)
    gone_within(cluster, here, "ends", 10)
