"""The choice of the way to a server: directly, or through a tunnel where no address leads there.

`SKYTORCH_ROUTE=direct` or `tunnel` takes the choice away. The subtle thing: a tunnel is always possible for whoever
may use it, so it is never tried beforehand; it is the answer when everything more direct has failed.
"""

from __future__ import annotations

import functools
import logging
import os

from skytorch import errors
from skytorch.providers.kubernetes._address import PORT, Way, leads_there, load_balancers
from skytorch.providers.kubernetes._api import SERVICES, Api
from skytorch.providers.kubernetes._credentials import Credentials
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._tunnel import Tunnel

logger = logging.getLogger("skytorch")
ROUTES = ("auto", "direct", "tunnel")


async def find_way(
    api: Api, namespace: str, compute: str, pod: str, cluster: Way | None, credentials: Credentials
) -> tuple[str, Tunnel | None]:
    """Where to connect to, and the tunnel that listens there, if any. `cluster` is None if it is known to fail."""
    wanted = os.environ.get("SKYTORCH_ROUTE") or "auto"
    if wanted not in ROUTES:
        raise errors.InvalidArgument(f"SKYTORCH_ROUTE: {wanted!r} must be one of {', '.join(ROUTES)}")
    if wanted != "tunnel":
        ways = [cluster] if cluster is not None else []
        for way in [*ways, *await _balancers(api, namespace, compute)]:
            if await leads_there(way, credentials):
                logger.debug("%s: reached at its %s %s", compute, way.kind, way)
                return str(way), None
    if wanted == "direct":
        raise errors.Unreachable(
            f"compute {compute!r}: no server answers at its cluster address or its load balancer; leave "
            "SKYTORCH_ROUTE unset to go through the API server"
        )
    renew = functools.partial(credentials.renew, api, namespace, compute)
    tunnel = Tunnel(api, compute=compute, namespace=namespace, pod=pod, port=PORT, on_open=renew)
    address = await tunnel.open()
    why = "SKYTORCH_ROUTE says so" if wanted == "tunnel" else "its own address cannot be reached from here"
    logger.info("compute %r: through a port-forward tunnel of the API server (%s): %s", compute, address, why)
    return address, tunnel


async def _balancers(api: Api, namespace: str, compute: str) -> list[Way]:
    try:
        return load_balancers(await api.find(SERVICES, namespace, compute))
    except (Refused, errors.Unreachable) as error:
        logger.debug("%s: its Service cannot be read: %s", compute, error)
        return []
