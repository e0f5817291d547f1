"""How programs that hold Computes in a cluster end: by several signals, in forked children, after all is closed.

What was begun to be deleted is deleted, whatever comes meanwhile; what the parent holds is the parent's.
"""

from __future__ import annotations

import json
import os
import select
import signal

import pytest
from clients import gone_within, owned, program

HEAD = """
import asyncio, os, signal, sys, threading
import torch
from skytorch.client import Cluster, Compute, init
init(provider="kubernetes", namespace=os.environ["NAMESPACE"])

def handlers():
    return [signal.getsignal(number) is signal.SIG_DFL for number in (signal.SIGTERM, signal.SIGHUP)]
"""


@pytest.fixture
def run(cluster, here):
    """A program of the test's text after HEAD."""
    return lambda body: program(HEAD + body, KUBECONFIG=str(cluster.kubeconfig), NAMESPACE=here)


def hold_deletion(cluster, namespace: str, name: str, held: bool) -> None:
    """A finalizer: the API server keeps the object, and its deleter waiting, until it is taken off."""
    patch = {"metadata": {"finalizers": ["tests.skytorch.dev/held"] if held else None}}
    cluster.kubectl("patch", "compute", name, "-n", namespace, "--type=merge", "-p", json.dumps(patch))


SYNC = """
try:
    with Compute("mine", timeout=60, suspend=True) as node:
        print("inside")
        sys.stdin.readline()
    print("left")
finally:
    print("ended", *handlers())
"""
ASYNC = """
async def main():
    async with Compute("mine", timeout=60, suspend=True) as node:
        print("inside")
        await asyncio.to_thread(sys.stdin.readline)
    print("left")
try:
    asyncio.run(main())
finally:
    print("ended", *handlers())
"""
CLUSTER = SYNC.replace(
    'Compute("mine", timeout=60, suspend=True) as node',
    'Cluster(Compute("mine", timeout=60, suspend=True)) as (node,)',
)
FORMS = {"with": SYNC, "async with": ASYNC, "cluster": CLUSTER}


def deletion_begun(cluster, namespace: str) -> None:
    cluster.wait(namespace, "compute/mine", "jsonpath={.metadata.deletionTimestamp}", 30)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ["signal", "end of the block"])
def test_signals_do_not_interrupt_a_deletion(cluster, here, run, form, first):
    with run(FORMS[form]) as client:
        client.expect("inside")
        hold_deletion(cluster, here, "mine", True)
        if first == "signal":
            client.process.send_signal(signal.SIGTERM)
        else:
            client.process.stdin.write("\n")
            client.process.stdin.flush()
        deletion_begun(cluster, here)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
            client.process.send_signal(number)
        descriptor = os.pidfd_open(client.process.pid)
        assert not select.select([descriptor], [], [], 1)[0], "it does not wait for what it deletes"
        os.close(descriptor)
        hold_deletion(cluster, here, "mine", False)
        code = client.end()
        assert code == 128 + signal.SIGTERM or (first != "signal" and code == 128 + signal.SIGHUP), client.said
        assert "ended True True" in client.said
        assert "left" not in client.said
        assert owned(cluster, here, "mine") == [] or gone_within(cluster, here, "mine", 10) is not None


@pytest.mark.parametrize("form", ["with", "cluster"])
def test_a_second_ctrl_c_leaves_at_once(cluster, here, run, form):
    with run(FORMS[form]) as client:
        client.expect("inside")
        hold_deletion(cluster, here, "mine", True)
        client.process.send_signal(signal.SIGINT)
        deletion_begun(cluster, here)
        client.process.send_signal(signal.SIGINT)
        assert client.end(10) == -signal.SIGINT, client.said
        assert "compute.compute.skytorch.dev/mine" in owned(cluster, here, "mine")
    hold_deletion(cluster, here, "mine", False)


FORKS = """
import subprocess
with Compute("mine", timeout=60) as node:
    print("total", torch.ones(4, device=node.device()).sum().item())
    told, tell = os.pipe()
    sleeper = os.fork()
    if sleeper == 0:
        print("child", *handlers())
        os.write(tell, b".")  # in its first moment Python forgets a signal
        signal.pause()
    os.read(told, 1)
    os.kill(sleeper, signal.SIGTERM)
    print("sleeper", os.waitstatus_to_exitcode(os.waitpid(sleeper, 0)[1]))
    leaver = os.fork()
    if leaver != 0:
        print("leaver", os.waitstatus_to_exitcode(os.waitpid(leaver, 0)[1]))
        print("parent", *handlers(), torch.ones(2, device=node.device()).sum().item())
print("left" if leaver else "child left")
"""


def test_forked_children_leave_the_parents_compute_alone(cluster, here, run):
    with run(FORKS) as client:
        assert client.expect("child ") == "True True"
        assert client.expect("sleeper") == str(-signal.SIGTERM)
        client.expect("child left")
        assert client.expect("leaver") == "0"
        assert client.expect("parent") == "False False 2.0"
        client.expect("left")
        assert client.end() == 0
        assert not any("Traceback" in line or "Unclosed" in line for line in client.said), client.said
    gone_within(cluster, here, "mine", 10)


TWICE = """
try:
    with Compute("first", timeout=60, suspend=True), Compute("second", timeout=60, suspend=True):
        print("inside", *handlers())
    print("between", *handlers())
    try:
        with Compute("third", image="no.such/image:v1", timeout=60):
            pass
    except Exception as error:
        print("failed", *handlers(), type(error).__name__)
    signal.signal(signal.SIGHUP, lambda *_: None)
    with Compute("fourth", timeout=60, suspend=True):
        print("own", *handlers())
finally:
    print("ended", *handlers())
"""


def test_handlers_go_with_the_last_compute(cluster, here, run):
    with run(TWICE) as client:
        assert client.expect("inside") == "False False"
        assert client.expect("between") == "True True"
        assert client.expect("failed") == "True True ComputeFailed"
        assert client.expect("own") == "False False"
        assert client.expect("ended") == "True False"  # the program's own stays
        assert client.end() == 0


AT_EXIT = """
import json, kubernetes.client
from skytorch.providers.kubernetes._config import Access
refresh = Access.refresh
Access.refresh = lambda self, force=False: refresh(self, force=True)  # new credentials for each request
told = json.load(open(os.environ["KUBECONFIG"]))
config = kubernetes.client.Configuration(host=told["clusters"][0]["cluster"]["server"])
config.ssl_ca_cert = told["clusters"][0]["cluster"]["certificate-authority"]
def renew(config):
    print("renewed")
    config.api_key["authorization"] = "Bearer " + told["users"][0]["user"]["token"]
config.refresh_api_key_hook = renew
init(provider="kubernetes", namespace=os.environ["NAMESPACE"], client_config=config)
node = asyncio.run(Compute("mine", timeout=60).ready())
print("total", torch.ones(4, device=node.device()).sum().item())
print("ends")
"""


def test_what_nobody_left_is_deleted_when_python_is_on_its_way_out(cluster, here, run):
    with run(AT_EXIT) as client:
        client.expect("total 4.0")
        client.expect("ends")
        assert client.end() == 0
        assert set(client.said[client.said.index("ends") + 1 :]) == {"renewed"}
        assert owned(cluster, here, "mine") == [] or gone_within(cluster, here, "mine", 10) is not None
