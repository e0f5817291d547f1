"""A server behind a load balancer, for clients that its cluster address does not answer; and credentials that change.

The cluster address is taken away by a route of the kernel. The balancer is the test's own: it counts, and it can cut.
"""

from __future__ import annotations

import asyncio
import functools
import json
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from between import Balancer, serving
from clients import gone_within, until
from skytorch.client import Compute
from skytorch.providers.kubernetes import _credentials
from skytorch.providers.kubernetes._address import PORT

BALANCED = "127.0.7.7"
INGRESSES = {
    "an ip": ([{"ip": BALANCED}], BALANCED),
    "a hostname": ([{"hostname": "localhost"}], "localhost"),
    "the second of two": ([{"ip": "127.0.7.8"}, {"hostname": "localhost"}], "localhost"),
}


@pytest.fixture
def behind(cluster, here):
    """Puts a suspended Compute behind a balancer at an address, which its Service then names as it is told."""
    with ExitStack() as stack:

        def put(name: str, address: str, ingress: list[dict[str, str]]) -> Balancer:
            patch = json.dumps({"spec": {"type": "LoadBalancer"}})
            status = json.dumps({"status": {"loadBalancer": {"ingress": ingress}}})
            service = ("patch", "service", name, "-n", here, "--type=merge", "-p")
            until(lambda: cluster.run(*service, patch).returncode == 0, "its Service is there")
            cluster.kubectl(*service, status, "--subresource=status")
            route = ["unreachable", cluster.get("service", name, "-n", here)["spec"]["clusterIP"], "table", "local"]
            subprocess.run(["ip", "route", "add", *route], check=True)
            stack.callback(subprocess.run, ["ip", "route", "del", *route], check=True)

            @functools.cache
            def pod() -> tuple[str, int]:
                return cluster.get("pod", f"{name}-0", "-n", here)["status"]["podIP"], PORT

            return stack.enter_context(serving(Balancer((address, PORT), pod)))

        yield put


@pytest.mark.parametrize("ingress", INGRESSES)
def test_a_load_balancer_is_the_way_where_the_cluster_address_is_not(cluster, here, behind, ingress):
    told, host = INGRESSES[ingress]

    async def main():
        async with Compute("far", suspend=True, timeout=60) as node:
            balancer = behind("far", "127.0.0.1" if host == "localhost" else host, told)
            await node.resume()
            assert torch.ones(3, device=node.device()).sum().item() == 3
            endpoint = node._link.endpoint
            assert endpoint.address == f"tls://{host}:{PORT}"
            assert endpoint.peer_address == f"tls://{node.resource.status.address}"
            assert balancer.passed > 1  # the try, and the session

    asyncio.run(main())
    gone_within(cluster, here, "far", 10)


def in_the_pod(cluster, namespace: str, pod: str, file: str) -> str:
    """What the server reads of its credentials now."""
    folder = Path("/proc") / str(cluster.process_of(namespace, pod)) / "root" / "etc/skytorch"
    return (folder / file).read_text()


def change_token(cluster, namespace: str, name: str) -> str:
    """Give a Compute another token, and wait until its server has it."""
    token = "another-token-of-the-test"
    patch = json.dumps({"stringData": {"token": token}})
    cluster.kubectl("patch", "secret", name, "-n", namespace, "-p", patch)
    until(lambda: in_the_pod(cluster, namespace, f"{name}-0", "token") == token, "the token in the pod")
    return token


def test_changed_credentials_are_followed_and_the_next_connection_shows_them(cluster, here, behind, monkeypatch):
    monkeypatch.setattr(_credentials, "FOLLOW_S", 1.5)

    async def main():
        async with Compute("turns", suspend=True, timeout=60) as node:
            balancer = behind("turns", BALANCED, [{"ip": BALANCED}])
            await node.resume()
            x = torch.ones(3, device=node.device())
            endpoint = node._link.endpoint
            token = change_token(cluster, here, "turns")
            until(lambda: endpoint.token.read_text() == token, "the token here")
            before = balancer.passed
            balancer.cut()
            assert x.sum().item() == 3
            assert balancer.passed > before
            authority = endpoint.tls.ca.read_text()
            cluster.kubectl("delete", "secret", "turns-ca", "-n", here)
            until(lambda: endpoint.tls.ca.read_text() != authority, "the new authority here")
            until(
                lambda: in_the_pod(cluster, here, "turns-0", "ca.crt") == endpoint.tls.ca.read_text(),
                "the new authority in the pod",
            )
            before = balancer.passed
            balancer.cut()
            assert x.sum().item() == 3
            assert balancer.passed > before

    asyncio.run(main())


def test_a_connection_through_a_tunnel_has_the_credentials_of_that_moment(cluster, here, monkeypatch):
    monkeypatch.setattr(_credentials, "FOLLOW_S", 3600.0)
    monkeypatch.setenv("SKYTORCH_ROUTE", "tunnel")
    with Compute("renews", timeout=60) as node:
        x = torch.ones(3, device=node.device())
        assert x.sum().item() == 3
        token = change_token(cluster, here, "renews")
        cluster.restart("apiserver")
        assert x.sum().item() == 3
        assert node._link.endpoint.token.read_text() == token
    gone_within(cluster, here, "renews", 10)
