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
    with Compute("mine", timeout=60) as node:
        print("total", torch.ones(4, device=node.device()).sum().item())
        sys.stdin.readline()
    print("left")
finally:
    print("ended", *handlers())
"""
ASYNC = """
async def main():
    async with Compute("mine", timeout=60) as node:
        print("total", torch.ones(4, device=node.device()).sum().item())
        await asyncio.to_thread(sys.stdin.readline)
    print("left")
try:
    asyncio.run(main())
finally:
    print("ended", *handlers())
"""
CLUSTER = SYNC.replace('Compute("mine", timeout=60) as node', 'Cluster(Compute("mine", timeout=60)) as (node,)')
FORMS = {"with": SYNC, "async with": ASYNC, "cluster": CLUSTER}


def deletion_begun(cluster, namespace: str) -> None:
    cluster.wait(namespace, "compute/mine", "jsonpath={.metadata.deletionTimestamp}", 30)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("first", ["signal", "end of the block"])
def test_signals_do_not_interrupt_a_deletion(cluster, here, run, form, first):
    with run(FORMS[form]) as client:
        client.expect("total 4.0")
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
