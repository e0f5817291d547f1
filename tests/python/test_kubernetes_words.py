"""What the kubernetes provider makes of words, without a cluster: manifests, conditions, refusals, configurations.

Everything that needs an API server is in tests/kubernetes, against a real one. Skipped where the package
`kubernetes` is not installed; `make` installs it.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import stat
import sys
import threading
import time

import pytest
from skytorch import errors
from skytorch.client._resource import Resource
from skytorch.providers import Cancel, Placement, Settings
from skytorch.providers.kubernetes import _plugin
from skytorch.providers.kubernetes._config import Wish, load
from skytorch.providers.kubernetes._loop import ControlLoop
from skytorch.providers.kubernetes._owner import Owner, is_dead
from skytorch.providers.kubernetes._state import verdict

OWNER = Owner.this_process()


# -- manifests -----------------------------------------------------------------------------------------------------


def manifest(**keywords):
    from skytorch.providers.kubernetes._manifest import compute

    more = {key: keywords.pop(key) for key in ("suspend", "taken_over") if key in keywords}
    return compute(Placement(**keywords), OWNER, **{"suspend": False, "taken_over": False, **more})


def test_the_least_manifest_has_only_what_the_operator_cannot_know():
    from skytorch import __version__

    found = manifest(name="a")
    assert found["spec"] == {"image": f"ghcr.io/skytorch/skytorch-server:{__version__}", "idleTimeout": "600s"}
    assert json.loads(found["metadata"]["annotations"]["compute.skytorch.dev/owner"]) == OWNER.told()
    assert (found["apiVersion"], found["kind"]) == ("compute.skytorch.dev/v1alpha1", "Compute")


def test_every_keyword_has_its_place():
    found = manifest(
        name="a", image="i:1", command=("c",), args=("--x",), env={"K": "v"}, labels={"l": "1"},
        resources={"cpu": "1", "nvidia.com/gpu": "2"}, annotations={"n": "t"}, image_pull_policy="Always",
        volumes=({"name": "cache", "storage": "20Gi", "path": "/cache", "storage_class": None, "access_modes": []},),
        override={"spec": {"nodeName": "n"}}, idle_timeout=1.5, suspend=True, taken_over=True,
    )  # fmt: skip
    assert found["spec"] == {
        "image": "i:1", "command": ["c"], "args": ["--x"], "env": [{"name": "K", "value": "v"}], "suspend": True,
        "resources": {"limits": {"cpu": "1", "nvidia.com/gpu": "2"}}, "labels": {"l": "1"},
        "annotations": {"n": "t", "compute.skytorch.dev/taken-over-by": OWNER.id}, "imagePullPolicy": "Always",
        "volumes": [{"name": "cache", "storage": "20Gi", "path": "/cache", "accessModes": ["ReadWriteOnce"]}],
        "override": {"spec": {"nodeName": "n"}}, "idleTimeout": "1500ms",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["x" * 53, "1a"])
def test_names_that_only_a_cluster_refuses(name):
    with pytest.raises(errors.InvalidArgument, match="name:"):
        manifest(name=name)


# -- conditions ----------------------------------------------------------------------------------------------------


def resource(*conditions, generation=2, spec=None):
    told = [
        {"type": type, "status": status, "reason": reason, "message": message, "observedGeneration": observed}
        for type, status, reason, message, observed in conditions
    ]
    metadata = {"name": "a", "generation": generation, "resourceVersion": "7", "uid": "u"}
    return {"metadata": metadata, "spec": spec or {}, "status": {"conditions": told}}


@pytest.mark.parametrize(
    ("found", "kind", "text"),
    [
        (resource(), "waiting", "the operator has not looked at it yet"),
        (resource(("Ready", "True", "Ready", "", 1)), "waiting", "the operator has not looked"),
        (resource(("Ready", "True", "Ready", "it is", 2)), "ready", "Ready: it is"),
        (
            resource(("Ready", "False", "ErrImagePull", "no such image", 2), ("Progressing", "False", "x", "", 2)),
            "failed",
            "ErrImagePull: no such image",
        ),
        (
            resource(("Ready", "False", "Starting", "", 2), ("Progressing", "True", "Starting", "", 2)),
            "waiting",
            "Starting",
        ),
        (
            resource(("Ready", "False", "ErrImagePull", "", 2), ("Progressing", "False", "x", "", 1)),
            "waiting",
            "ErrImagePull",
        ),
        (
            resource(("Ready", "False", "Suspended", "", 2), ("Suspended", "True", "Suspended", "", 2)),
            "suspended",
            "Suspended",
        ),
    ],
)
def test_verdicts(found, kind, text):
    assert verdict(found).kind == kind
    assert text in str(verdict(found))


def test_the_resource_reads_as_attributes():
    found = resource(("Ready", "True", "Ready", "it is", 2))
    found["status"] |= {"address": "10.0.0.1:7777", "podName": "a-0", "devices": ["cpu"], "sessions": 1,
                        "lastUsed": "2026-01-02T03:04:05Z"}  # fmt: skip
    read = Resource.of_kubernetes(found)
    (ready,) = read.status.conditions
    assert (ready.type, ready.status, ready.reason, ready.message) == ("Ready", "True", "Ready", "it is")
    assert (read.metadata.name, read.metadata.generation, read.status.pod_name) == ("a", 2, "a-0")
    assert read.status.last_used.year == 2026


# -- refusals ------------------------------------------------------------------------------------------------------


def refused(status, *, resource="computes.compute.skytorch.dev", name="a", **told):
    from skytorch.providers.kubernetes._errors import Refused

    body = json.dumps(told).encode() if told else b"404 page not found\n"
    return Refused.of(status, body, verb="patch", resource=resource, namespace="ns", name=name).explain(
        "the cluster c"
    )


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (refused(404), errors.NotSupported, r"no resource type computes.*kubectl apply -k deploy/kustomize/base"),
        (
            refused(404, message="x", reason="NotFound", details={"name": "ns", "kind": "namespaces"}),
            errors.InvalidArgument,
            r"namespace: the cluster c has no namespace 'ns'.*kubectl create namespace ns",
        ),
        (
            refused(404, message="x", reason="NotFound", details={"name": "a", "kind": "computes"}),
            errors.InvalidArgument,
            "compute 'a': there is none in namespace 'ns'",
        ),
        (
            refused(
                403,
                message='"a" is forbidden: User "u" cannot patch resource "computes" in API group',
            ),
            errors.Forbidden,
            "user 'u' of the cluster c may not patch computes in namespace 'ns'",
        ),
        (
            refused(403, message='"a" is forbidden: exceeded quota: q, requested: x=1, used: x=1, limited: x=1'),
            errors.LimitExceeded,
            "quota of namespace 'ns'.*requested: x=1",
        ),
        (
            refused(
                409,
                reason="Conflict",
                message="Apply failed",
                details={
                    "causes": [
                        {
                            "reason": "FieldManagerConflict",
                            "field": ".spec.image",
                            "message": 'conflict with "kubectl"',
                        }
                    ]
                },
            ),
            errors.InvalidArgument,
            ".spec.image is set by 'kubectl'",
        ),
        (
            refused(422, message='Compute "a" is invalid: spec.idleTimeout: too short'),
            errors.InvalidArgument,
            "compute 'a': the API server refuses it: .*too short",
        ),
        (refused(401, message="Unauthorized"), errors.Unauthenticated, "does not accept the credentials"),
        (refused(503, message="etcd is away"), errors.Unreachable, "503.*etcd is away"),
    ],
)
def test_refusals_in_words(error, kind, words):
    import re

    assert type(error) is kind
    assert re.search(words, str(error)), str(error)


# -- ways ----------------------------------------------------------------------------------------------------------


def test_ways_come_from_the_status_and_the_service():
    from skytorch.providers.kubernetes._address import cluster_address, load_balancers

    assert cluster_address({"status": {}}) is None
    assert str(cluster_address({"status": {"address": "[fd00::1]:7777"}})) == "[fd00::1]:7777"
    service = {"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}, {"hostname": "lb.example.com"}, {}]}}}
    assert [str(way) for way in load_balancers(service)] == ["1.2.3.4:7777", "lb.example.com:7777"]
    assert load_balancers(None) == []


def test_a_route_that_does_not_exist_is_named(monkeypatch):
    from skytorch.providers.kubernetes._route import find_way

    monkeypatch.setenv("SKYTORCH_ROUTE", "teleport")
    with pytest.raises(errors.InvalidArgument, match=r"SKYTORCH_ROUTE.*auto, direct, tunnel"):
        asyncio.run(find_way(None, "ns", "a", "a-0", None, None))


# -- owners --------------------------------------------------------------------------------------------------------


def test_only_a_process_of_this_machine_is_known_to_be_dead():
    told = OWNER.told()
    assert not is_dead(told)
    assert is_dead({**told, "ticks": "1"})
    assert not is_dead({**told, "machine": "another", "ticks": "1"})
    assert not is_dead(None)
    assert f"process {OWNER.process} of {OWNER.user} on {OWNER.host} since" in str(OWNER)


# -- pods and events -----------------------------------------------------------------------------------------------


def pod(uid="u1", container="c1", ready=True, *, status=None, **metadata):
    containers = [{"name": "server", "containerID": container, "ready": ready, "state": {"running": {}}}]
    return {
        "metadata": {"name": "a-0", "uid": uid, **metadata},
        "status": {"containerStatuses": containers, **(status or {})},
    }


ENDED = {"exitCode": 137, "reason": "OOMKilled", "containerID": "c1", "message": "one\nlast words"}


@pytest.mark.parametrize(
    ("what", "found", "words"),
    [
        ("DELETED", pod(), "pod a-0 was deleted"),
        ("MODIFIED", pod(deletionTimestamp="2026-01-01T00:00:00Z"), "pod a-0 was deleted"),
        (
            "MODIFIED",
            pod(
                status={
                    "containerStatuses": [{"name": "server", "containerID": "c1", "state": {"terminated": ENDED}}]
                }
            ),
            r"pod a-0 ended: OOMKilled \(exit code 137\): last words",
        ),
        (
            "MODIFIED",
            pod(
                status={
                    "containerStatuses": [
                        {"name": "server", "containerID": "c2", "ready": True, "lastState": {"terminated": ENDED}}
                    ]
                }
            ),
            "OOMKilled",
        ),
        ("MODIFIED", pod(status={"reason": "Evicted", "message": "disk"}), "pod a-0 ended: Evicted: disk"),
    ],
)
def test_why_a_session_is_lost(what, found, words):
    import re

    from skytorch.providers.kubernetes._pods import Pods

    told = []
    pods = Pods(told.append)
    pods.note("LISTED", {"items": [pod()]})
    pods.hold("a-0")
    pods.note("MODIFIED", pod())
    assert told == []
    pods.note(what, found)
    assert re.search(words, pods.why_lost(0))
    assert told == [pods.why_lost(0)]


def test_events_are_told_once_for_each_count_and_only_of_computes_and_pods():
    from skytorch.providers.kubernetes._events import Events

    def event(uid, version, kind="Pod", **more):
        return {
            "metadata": {"uid": uid, "resourceVersion": version}, "reason": "R", "message": "m", "type": "Warning",
            "involvedObject": {"kind": kind}, **more,
        }  # fmt: skip

    told = []
    events = Events("a", told.append)
    for found in (
        event("1", "1"), event("1", "2"), event("1", "3", count=2), event("1", "4", count=2),
        event("2", "5", kind="StatefulSet"), event("3", "6", kind="Compute", series={"count": 3}, count=1),
    ):  # fmt: skip
        events._note(found)
    assert [(event.count, event.type, event.name) for event in told] == [
        (1, "Warning", "a"), (2, "Warning", "a"), (3, "Warning", "a"),
    ]  # fmt: skip


def test_credentials_are_private_and_replaced_whole(tmp_path, monkeypatch):
    from base64 import b64encode

    from skytorch.providers.kubernetes._credentials import Credentials

    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    files = Credentials("a.ns.svc")
    assert not files.write({"data": {"token": b64encode(b"t").decode()}})
    for word in (b"one", b"two"):
        assert files.write({"data": {"token": b64encode(word).decode(), "ca.crt": b64encode(b"PEM").decode()}})
        assert files.token.read_bytes() == word
    assert stat.S_IMODE(files.token.stat().st_mode) == 0o600
    assert stat.S_IMODE(files.token.parent.stat().st_mode) == 0o700
    assert (files.tls.ca.read_text(), files.tls.server_name) == ("PEM", "a.ns.svc")
    files.remove()
    assert not files.token.parent.exists()


# -- configurations ------------------------------------------------------------------------------------------------


@pytest.fixture
def _no_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "SKYTORCH_PROVIDER"):
        monkeypatch.delenv(name, raising=False)


def kubeconfig(path, *, user, current=None, context="one", namespace=None, server="https://127.0.0.1:1"):
    import yaml

    where = {"cluster": context, "user": context} | ({"namespace": namespace} if namespace else {})
    told = {
        "apiVersion": "v1", "kind": "Config",
        "clusters": [{"name": context, "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": context, "user": user}],
        "contexts": [{"name": context, "context": where}],
    } | ({"current-context": current} if current else {})  # fmt: skip
    path.write_text(yaml.safe_dump(told))
    return path


@pytest.mark.usefixtures("_no_cluster")
def test_a_list_of_kubeconfigs_and_a_context(tmp_path, monkeypatch):
    one = kubeconfig(tmp_path / "one", user={"token": "t1"}, current="one", namespace="n1")
    two = kubeconfig(tmp_path / "two", user={"token": "t2"}, current="two", context="two", server="https://b:2")
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path}/none:{one}:{two}")
    first = asyncio.run(load(Wish()))  # the first file that names a context wins, as for kubectl
    assert (first.namespace, first.configuration.host) == ("n1", "https://127.0.0.1:1")
    assert first.configuration.api_key["BearerToken"] == "Bearer t1"
    second = asyncio.run(load(Wish(context="two", namespace="mine")))
    assert (second.namespace, second.configuration.host) == ("mine", "https://b:2")
    with pytest.raises(errors.InvalidArgument, match="three"):
        asyncio.run(load(Wish(context="three")))


@pytest.mark.usefixtures("_no_cluster")
@pytest.mark.parametrize("text", ["{}", "", "a: [", "current-context: x"])
def test_a_kubeconfig_that_says_nothing_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "config").write_text(text)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    with pytest.raises(errors.InvalidArgument, match=f"kubeconfig {tmp_path}/config"):
        asyncio.run(load(Wish()))


@pytest.mark.usefixtures("_no_cluster")
def test_no_configuration_says_what_to_do():
    with pytest.raises(errors.InvalidArgument, match="KUBECONFIG"):
        asyncio.run(load(Wish()))


def plugin(tmp_path, body):
    script = tmp_path / "plugin.py"
    script.write_text(f"import json, sys, datetime\nopen({str(tmp_path / 'runs')!r}, 'a').write('x')\n{body}")
    return {
        "exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": sys.executable, "args": [str(script)]}
    }


@pytest.mark.usefixtures("_no_cluster")
def test_a_credential_plugin_is_run_again_when_its_token_expires(tmp_path, monkeypatch):
    user = plugin(
        tmp_path,
        "runs = len(open(sys.argv[0].replace('plugin.py', 'runs')).read())\n"
        "until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=31)\n"
        "print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
        " 'status': {'token': f't{runs}', 'expirationTimestamp': until.isoformat()}}))",
    )
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", user=user, current="one")))

    async def main():
        access = await load(Wish())
        assert access.configuration.api_key["BearerToken"] == "Bearer t1"
        access.renew_at = time.monotonic()
        assert await access.refresh()
        assert access.configuration.api_key["BearerToken"] == "Bearer t2"
        assert not await access.refresh()
        await asyncio.gather(access.refresh(force=True), access.refresh(force=True))
        assert access.configuration.api_key["BearerToken"] == "Bearer t3"

    asyncio.run(main())


@pytest.mark.usefixtures("_no_cluster")
def test_a_credential_plugin_that_fails_is_named(tmp_path, monkeypatch):
    user = plugin(tmp_path, "sys.exit('log in first')")
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", user=user, current="one")))
    with pytest.raises(errors.Unauthenticated, match=r"plugin.*log in first"):
        asyncio.run(load(Wish()))


@pytest.mark.usefixtures("_no_cluster")
@pytest.mark.parametrize("writes", ["", "sys.stderr.write('x' * 1_000_000); sys.stderr.flush()"])
def test_a_credential_plugin_that_hangs_is_named_and_ended(tmp_path, monkeypatch, writes):
    """Also one that nobody listens to, and with a program of its own, which holds its output."""
    monkeypatch.setattr(_plugin, "LIMIT_S", 3.0)
    body = f"""
import os, subprocess
{writes}
subprocess.Popen(["sleep", "20"])
open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
import time; time.sleep(1000)
"""
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", user=plugin(tmp_path, body), current="one")))
    started = time.monotonic()
    control = ControlLoop.hold()
    try:
        words = rf"plugin '{sys.executable}' of context 'one' .* did not end within 3 s: run `.*plugin.py` by hand"
        with pytest.raises(errors.Unauthenticated, match=words):
            control.run(load(Wish()))
    finally:
        control.let_go()
    assert time.monotonic() - started < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


@pytest.mark.usefixtures("_no_cluster")
def test_a_configuration_of_the_program_is_taken_as_it_is():
    import kubernetes.client

    given = kubernetes.client.Configuration(host="https://c:3")
    given.api_key["authorization"] = "Bearer x"
    given.verify_ssl = False
    given.refresh_api_key_hook = lambda config: config.api_key.update(authorization="Bearer y")
    access = asyncio.run(load(Wish(client_config=given)))
    assert (access.configuration.host, access.configuration.verify_ssl) == ("https://c:3", False)
    assert access.configuration.api_key == {"authorization": "Bearer y"}
    with pytest.raises(errors.InvalidArgument, match="client_config"):
        asyncio.run(load(Wish(client_config=object())))


@pytest.mark.usefixtures("_no_cluster")
def test_an_api_server_that_is_not_there_is_unreachable(tmp_path, monkeypatch):
    from skytorch.client import Compute

    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", user={"token": "t"}, current="one")))
    with pytest.raises(errors.Unreachable, match=r"https://127.0.0.1:1 .*context 'one'.*does not answer"):
        Compute("a", provider="kubernetes").__enter__()
    assert ControlLoop._current is None
    assert Settings().choose(None) == "kubernetes"


# -- the loop ------------------------------------------------------------------------------------------------------


def test_a_cancelled_call_returns_when_the_coroutine_has_cleaned_up():
    control, cancel, seen = ControlLoop.hold(), Cancel(), []
    waiting = threading.Event()

    async def work():
        try:
            waiting.set()
            await asyncio.Event().wait()
        finally:
            seen.append("cleaned up")

    try:
        threading.Thread(target=lambda: (waiting.wait(), cancel.request())).start()
        with pytest.raises(asyncio.CancelledError):
            control.run(work(), cancel=cancel)
        assert seen == ["cleaned up"]
    finally:
        control.let_go()
    assert ControlLoop._current is None


def test_the_loop_lives_as_long_as_somebody_holds_it_and_closes_what_is_shared():
    closed = []

    class Thing:
        async def close(self):
            closed.append(self)

    async def make():
        return Thing()

    one, two = ControlLoop.hold(), ControlLoop.hold()
    assert one is two
    assert one.run(one.share("key", make)) is two.run(two.share("key", make))
    one.let_go()
    assert closed == []
    two.let_go()
    assert len(closed) == 1


def test_what_comes_after_the_loops_end_is_refused_or_does_nothing():
    ran = []

    async def work():
        ran.append(True)

    control, cancel = ControlLoop.hold(), Cancel()
    control.run(work(), cancel=cancel)
    control.let_go()
    cancel.request()  # of what has long been done
    assert not control.call(ran.append, True)
    for ask in (control.run, control.start):
        with pytest.raises(errors.SessionClosed, match="open another"):
            ask(work())
    control.let_go()
    assert ran == [True]


def test_what_is_handed_over_before_the_loops_end_ends_with_it():
    """A hundred callers against one end: each gets its outcome, none waits for ever."""
    outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()

    async def work():
        await asyncio.Event().wait()

    control = ControlLoop.hold()

    def ask():
        try:
            control.run(work())
        except asyncio.CancelledError:
            outcomes.put("ended")
        except errors.SessionClosed:
            outcomes.put("refused")

    callers = [threading.Thread(target=ask, daemon=True) for _ in range(100)]
    for number, caller in enumerate(callers):
        caller.start()
        if number == 50:
            ender = threading.Thread(target=control.let_go)
            ender.start()
    ender.join()
    told = [outcomes.get(timeout=10) for _ in callers]
    assert set(told) <= {"ended", "refused"}


def test_a_forked_child_is_refused_the_parents_loop():
    control = ControlLoop.hold()
    try:
        child = os.fork()
        if child == 0:
            try:
                control.run(asyncio.sleep(0))
            except errors.ForkedSession:
                os._exit(0)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        control.let_go()
