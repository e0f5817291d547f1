"""A user with only the user role: all that the client does in their namespace, and nothing else.

test_roles.py compares the role with what was asked for; here a whole program runs under it, and what it may not do is
refused in words.
"""

from __future__ import annotations

import asyncio
import logging

import pytest
import torch
from clients import STUB, gone_within
from skytorch import errors
from skytorch.client import Compute, init
from skytorch.providers import Cancel, Placement, settings

REFUSED = (
    ("get", "secrets"),
    ("get", "nodes"),
    ("get", "deployments", "-n", "skytorch-system"),
    ("create", "serviceaccount", "x"),
    ("run", "x", "--image=x"),
    ("delete", "pods", "--all"),
    ("get", "computes", "-A"),
)


@pytest.fixture
def as_alice(cluster, here, monkeypatch):
    """This process as alice, who has the user role in her namespace."""
    cluster.kubectl("create", "rolebinding", "alice", "--clusterrole=skytorch-user", "--user=alice", "-n", here)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("alice")))
    return here


def test_the_user_role_is_enough_for_everything_and_for_nothing_else(cluster, as_alice, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, logger="skytorch")
    before = sum(1 for _ in cluster.audit("alice"))
    events = []

    async def main():
        async with Compute("hers", timeout=60, on_events=events.append) as node:
            assert torch.ones(3, device=node.device()).sum().item() == 3
            assert [line async for line in node.logs()]
            async for snapshot in node.metrics():
                assert snapshot.get("cpu.utilization") is not None
                break
            await node.suspend()
            monkeypatch.setenv("SKYTORCH_ROUTE", "tunnel")
            await node.resume()
            assert torch.ones(3, device=node.device()).sum().item() == 3

    asyncio.run(main())
    gone_within(cluster, as_alice, "hers", 10)
    assert "Ready" in [event.reason for event in events]
    assert [record.getMessage() for record in caplog.records] == []
    refused = [event for event in list(cluster.audit("alice"))[before:] if event["responseStatus"]["code"] == 403]
    assert refused == []
    for words in REFUSED:
        where = [] if "-n" in words or "-A" in words else ["-n", as_alice]
        done = cluster.run(*words, *where, user="alice")
        assert done.returncode != 0, words
        assert "forbidden" in (done.stderr + done.stdout).lower(), words


def test_what_is_forbidden_is_named(cluster, here, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("bob")))
    init(provider="kubernetes", namespace=here)
    words = f"user 'bob' of the cluster .* may not get leases in namespace '{here}'"
    with pytest.raises(errors.Forbidden, match=words):
        Compute("his").__enter__()


def test_a_token_opens_only_its_own_compute(cluster, as_alice):
    from skytorch import _wire
    from skytorch.providers.address import wire_tls

    other = settings.make(
        None, Placement(name="other", image=STUB), on_event=lambda e: None, on_condition=lambda c: None,
        on_resource=lambda r: None,
    )  # fmt: skip
    wrong = other.start(timeout_s=60, cancel=Cancel()).token.read_text()
    try:
        with Compute("own", timeout=60) as node:
            endpoint = node._link.endpoint
            with pytest.raises(errors.Unauthenticated):
                _wire.connect(endpoint.address, token=wrong, tls=wire_tls(endpoint.tls))
            assert torch.ones(3, device=node.device()).sum().item() == 3
    finally:
        other.delete(grace_period_s=5)
