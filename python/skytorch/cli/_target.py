"""Which server a command is about: a local Compute of this user by name, or the address in the environment."""

from __future__ import annotations

from skytorch import errors
from skytorch.providers import Endpoint, kubernetes, settings
from skytorch.providers.rundir import find, live


def resolve(name: str | None) -> tuple[str, Endpoint]:
    """The server's name and endpoint; without a name the only one there is."""
    provider = settings.choose(None)
    if provider == "address":
        endpoint = settings.endpoint()
        return name or endpoint.address, endpoint
    if name is not None:
        if provider == "kubernetes" and name not in [found.name for found in live()]:
            raise kubernetes.missing()
        return name, find(name).endpoint()
    names = [found.name for found in live() if found.address is not None]
    if len(names) == 1:
        return names[0], find(names[0]).endpoint()
    if not names and provider == "kubernetes":
        raise kubernetes.missing()
    raise errors.InvalidArgument(f"name: say which Compute ({', '.join(names) or 'no local one is running'})")
