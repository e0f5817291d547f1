"""Which server a command is about: a local Compute of this user, one of the cluster, or the environment's address.

A local Compute of the name comes first. The subtle thing: reaching a pod may take a tunnel that ends with the `with`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from skytorch import errors
from skytorch.providers import Endpoint, settings
from skytorch.providers.kubernetes._visit import Visit
from skytorch.providers.rundir import find, live


def is_in_cluster(name: str) -> bool:
    """Whether a name means a Compute of the cluster: no local one has it, and there is a cluster to ask."""
    return settings.choose(None) == "kubernetes" and name not in [found.name for found in live()]


@contextmanager
def resolve(name: str | None) -> Iterator[tuple[str, Endpoint]]:
    """The server's name and endpoint; without a name the only one there is."""
    if settings.choose(None) == "address":
        endpoint = settings.endpoint()
        yield name or endpoint.address, endpoint
        return
    if name is None:
        name = _only_one()
    if is_in_cluster(name):
        with Visit(settings.cluster()) as visit, visit.attach(name) as endpoint:
            yield name, endpoint
        return
    yield name, find(name).endpoint()


def _only_one() -> str:
    names = [found.name for found in live() if found.address is not None]
    where = "local one"
    if settings.choose(None) == "kubernetes":
        with Visit(settings.cluster()) as visit:
            names += [found["metadata"]["name"] for found in visit.computes()]
            where = f"local one, and none in namespace {visit.namespace!r},"
    if len(names) == 1:
        return names[0]
    raise errors.InvalidArgument(f"name: say which Compute ({', '.join(names) or f'no {where} is running'})")
