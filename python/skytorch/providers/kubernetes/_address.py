"""Which way leads to a server: its cluster address, its load balancer, or neither, and then a tunnel is needed.

They are tried in that order. An address counts when a TLS handshake with the Compute's own authority succeeds there
in about a second: something else may answer at an address of a cluster's private range. The subtle thing: an address
that swallows packets costs that second, so the cluster address is felt for while the pod still starts.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from typing import Any

from skytorch.providers.kubernetes._credentials import Credentials

logger = logging.getLogger("skytorch")
PORT = 7777
TRY_S = 1.0
AGAIN_S = 0.05  # the cluster's routes may follow readiness by a moment


@dataclass(frozen=True)
class Way:
    """A host and port where the server may be reached."""

    host: str
    port: int
    kind: str  # for the log: "cluster address", "load balancer"

    def __str__(self) -> str:
        return f"{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def cluster_address(resource: dict[str, Any]) -> Way | None:
    """Where servers of the cluster reach it, from the status."""
    told = resource.get("status", {}).get("address")
    if not told:
        return None
    host, _, port = told.rpartition(":")
    return Way(host.strip("[]"), int(port), "cluster address")


def load_balancers(service: dict[str, Any] | None) -> list[Way]:
    """Where the world reaches its Service, if anywhere."""
    balancer = ((service or {}).get("status") or {}).get("loadBalancer") or {}
    hosts = [entry.get("ip") or entry.get("hostname") for entry in balancer.get("ingress") or []]
    return [Way(host, PORT, "load balancer") for host in hosts if host]


async def swallows(way: Way) -> bool:
    """Whether an address gives no answer at all. A refusal is one: the route is there."""
    try:
        async with asyncio.timeout(TRY_S):
            _, writer = await asyncio.open_connection(way.host, way.port)
            writer.close()
    except ConnectionRefusedError:
        return False
    except (OSError, TimeoutError):
        return True
    return False


async def leads_there(way: Way, credentials: Credentials) -> bool:
    """Whether the Compute's server answers at an address, within about a second."""
    context = ssl.create_default_context(cafile=str(credentials.ca))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # the wire checks the certificate, by its own rules
    context.set_alpn_protocols(["h2"])
    why: Exception | None = None
    try:
        async with asyncio.timeout(TRY_S):
            while True:
                try:
                    _, writer = await asyncio.open_connection(
                        way.host, way.port, ssl=context, server_hostname=credentials.tls.server_name
                    )
                    writer.transport.abort()
                    return True
                except ConnectionRefusedError as error:
                    why = error
                    await asyncio.sleep(AGAIN_S)
    except (OSError, TimeoutError) as error:
        logger.debug("%s %s does not lead to the server: %s", way.kind, way, why or error or "no answer")
    return False
