"""Several Computes at once: ready together, failing together, and gone together."""

from __future__ import annotations

import asyncio
import re
import threading
import time

import pytest
import torch
from clients import STUB, gone_within, owned
from skytorch import errors
from skytorch.client import Cluster, Compute, init
from skytorch.providers import Cancel, Placement, settings

DELAYS_S = (2, 4, 6, 8)


@pytest.mark.alone
def test_four_are_ready_when_the_slowest_is(cluster, here, monkeypatch, figure):
    """A stub speaks only health, so this is the providers' part of a Cluster: all that comes before the sessions."""
    monkeypatch.setenv("SKYTORCH_ROUTE", "tunnel")  # a stub has no server to be found at its address
    providers = [
        settings.make(
            None, Placement(name=f"late-{delay}", image=STUB, env={"STUB_START_DELAY_S": str(delay)}),
            on_event=lambda e: None, on_condition=lambda c: None, on_resource=lambda r: None,
        )
        for delay in DELAYS_S
    ]  # fmt: skip
    started, took = time.monotonic(), {}

    def start(provider, delay):
        provider.start(timeout_s=60, cancel=Cancel())
        took[delay] = time.monotonic() - started

    threads = [
        threading.Thread(target=start, args=pair, daemon=True) for pair in zip(providers, DELAYS_S, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for provider in providers:
        provider.delete(grace_period_s=5)
    figure("ready after " + ", ".join(f"{s:.2f} s (delay {delay})" for delay, s in sorted(took.items())))
    assert set(took) == set(DELAYS_S)
    assert max(took.values()) <= 1.2 * max(DELAYS_S)


def test_one_that_cannot_start_is_named_and_the_others_are_deleted(cluster, here):
    async def main():
        async with Cluster(
            Compute("a", timeout=90), Compute("b", timeout=90), Compute("c", timeout=90),
            Compute("bad", image="no.such/image:v1", timeout=90),
        ):  # fmt: skip
            pytest.fail("it cannot be entered")

    with pytest.raises(ExceptionGroup, match="1 of 4 computes could not be made ready: bad") as raised:
        asyncio.run(main())
    (error,) = raised.value.exceptions
    assert isinstance(error, errors.ComputeFailed)
    assert "ErrImagePull" in str(error)
    for name in ("a", "b", "c", "bad"):
        gone_within(cluster, here, name, 10)


def test_trouble_with_the_clean_up_is_told_beside_what_failed_first(cluster, here, monkeypatch):
    """Of a user who may make Computes and not delete them."""
    for kind, verbs in {
        "computes.compute.skytorch.dev": "get,list,watch,create,patch",
        "leases.coordination.k8s.io": "get,create,update",
        "pods": "get,list,watch", "events": "list,watch", "secrets": "get,watch", "services": "get",
    }.items():  # fmt: skip
        name = f"makes-{kind.partition('.')[0]}"
        cluster.kubectl("create", "role", name, f"--verb={verbs}", f"--resource={kind}", "-n", here)
        cluster.kubectl("create", "rolebinding", name, f"--role={name}", "--user=bob", "-n", here)
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig_for("bob")))
    init(provider="kubernetes", namespace=here)
    with (
        pytest.raises(ExceptionGroup, match="1 of 2 computes could not be made ready: bad") as raised,
        Cluster(Compute("good", timeout=60), Compute("bad", image="no.such/image:v1", timeout=60)),
    ):
        pytest.fail("it cannot be entered")
    assert "ErrImagePull" in str(raised.value.exceptions[0])
    (note,) = raised.value.__notes__
    assert re.search(r"cleaning up failed too: compute 'good': user 'bob' .* may not delete computes", note), note


def test_copies_go_from_pod_to_pod(cluster, here):
    async def main():
        async with Cluster(Compute("one", timeout=60), Compute("two", timeout=60)) as (one, two):
            x = torch.arange(1 << 18, dtype=torch.float32, device=one.device())
            before = one.stats()
            y = x.to(two.device())
            assert torch.equal(y.cpu(), torch.arange(1 << 18, dtype=torch.float32))
            after = one.stats()
        assert after["bytes_received"] - before["bytes_received"] < 1 << 18  # of the 1 MiB, nothing came here

    asyncio.run(main())
    assert owned(cluster, here, "one") == [] or gone_within(cluster, here, "one", 10) is not None
    gone_within(cluster, here, "two", 10)
