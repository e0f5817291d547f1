"""What breaks in the middle of a run: the pod, the operator, the watches, the Compute itself.

Tensors that are gone are a ConnectionLost that says why; everything else comes back.
"""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
import torch
from clients import gone_within, until, wait_for_values
from skytorch import errors
from skytorch.client import Compute


def train(node: Compute, steps: int) -> float:
    """A model and its loss after some steps; the same everywhere."""
    torch.manual_seed(0)
    device = node.device()
    x, w = torch.randn(64, 16).to(device), torch.zeros(16, 1, device=device, requires_grad=True)
    y = x.sum(dim=1, keepdim=True)
    for _ in range(steps):
        loss = ((x @ w - y) ** 2).mean()
        loss.backward()
        with torch.no_grad():
            w -= 0.05 * w.grad
            w.grad = None
    return loss.item()


def test_a_killed_pod_is_a_lost_connection_that_names_it_and_its_reason(cluster, here):
    async def main():
        async with Compute("dies", timeout=60) as node:
            loss = train(node, 20)
            os.kill(cluster.process_of(here, "dies-0"), signal.SIGKILL)
            with pytest.raises(
                errors.ConnectionLost, match=r"compute 'dies': the server in pod dies-0 ended: .*exit code 137"
            ):
                wait_for_values(node.device())
            assert not node.is_ready()
            await node.ready()  # the same Compute, a new server
            assert train(node, 20) == loss

    asyncio.run(main())
    gone_within(cluster, here, "dies", 10)


def test_a_deleted_pod_is_told_as_such(cluster, here):
    with Compute("evicted", timeout=60) as node:
        x = torch.ones(4, device=node.device())
        assert x.sum().item() == 4
        cluster.kubectl("delete", "pod", "evicted-0", "-n", here, "--wait=false")
        with pytest.raises(errors.ConnectionLost, match=r"pod evicted-0 was deleted"):
            wait_for_values(node.device())
    gone_within(cluster, here, "evicted", 10)


def test_a_compute_that_somebody_deletes_is_told_as_such(cluster, here):
    with Compute("deleted", timeout=60) as node:
        x = torch.ones(4, device=node.device())
        assert x.sum().item() == 4
        cluster.kubectl("delete", "compute", "deleted", "-n", here, "--wait=false")
        with pytest.raises(
            errors.ConnectionLost, match=r"compute 'deleted': (the Compute was|pod deleted-0 was) deleted"
        ):
            wait_for_values(node.device())
    gone_within(cluster, here, "deleted", 10)


def test_watches_go_on_after_the_api_server_was_away(cluster, here):
    events = []
    with Compute("watched", timeout=60, on_events=events.append) as node:
        expected = train(node, 20)
        cluster.restart("apiserver")
        assert train(node, 20) == expected  # the session has its own way
        assert node.is_ready()
        seen = node.resource.metadata.resource_version
        cluster.kubectl("annotate", "compute", "watched", "-n", here, "note=after")
        until(lambda: node.resource.metadata.resource_version != seen, "a change after the restart")
        assert node.resource.metadata.annotations["note"] == "after"
        before = len(events)
        cluster.kubectl("delete", "pod", "watched-0", "-n", here, "--wait=false")
        until(lambda: len(events) > before, "an event after the restart")
        counts = [(event.reason, event.message, event.count) for event in events]
        assert len(counts) == len(set(counts))
        with pytest.raises(errors.ConnectionLost, match="pod watched-0 was deleted"):
            wait_for_values(node.device())
    gone_within(cluster, here, "watched", 10)


def test_a_killed_operator_is_not_noticed_by_a_session(cluster, here):
    with Compute("alone", timeout=60) as node:
        expected = train(node, 20)
        (pod,) = cluster.get("pods", "-n", "skytorch-system", "-l", "app.kubernetes.io/name=skytorch-operator")[
            "items"
        ]
        os.kill(cluster.process_of("skytorch-system", pod["metadata"]["name"]), signal.SIGKILL)
        assert train(node, 20) == expected
        assert node.is_ready()
    with Compute("after", timeout=60) as node:  # the operator is back, once the dead one's lease has run out
        assert train(node, 20) == expected
    gone_within(cluster, here, "alone", 10)
