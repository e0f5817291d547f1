"""`init()`: what the program says about where Computes run. Optional; without it the environment decides."""

from __future__ import annotations

import os
from typing import Any

from skytorch import errors
from skytorch.providers import ProviderName, check_file, check_provider, settings
from skytorch.providers.address import check_address


def init(
    *,
    provider: ProviderName | None = None,
    client_config: Any = None,
    namespace: str | None = None,
    address: str | None = None,
    token: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    server_name: str | None = None,
) -> None:
    """Say where Computes run from now on; a second call replaces the first.

    `provider` is "kubernetes", "local" or "address". `client_config` is a `kubernetes.client.Configuration`, without
    it the default kubeconfig and then the in-cluster account count. `address` and `token` are those of a server that
    runs already; a token given as a path, not as a string, is read from that file for each connection. An address
    tls://... needs `ca`, the file of the authority to trust; `cert` and `key` are this client's own, for servers that
    ask for one; `server_name` is the name to expect in the server's certificate if it is not the address's host.
    """
    if provider is not None:
        check_provider(provider)
    if address is not None:
        check_address(address)
        if provider not in (None, "address"):
            raise errors.InvalidArgument(f"address: provider {provider!r} takes none; leave one of the two out")
    settings.provider = provider
    settings.client_config = client_config
    settings.namespace, settings.context = namespace, None
    settings.address = address
    settings.token = token if token is None or isinstance(token, str) else check_file(token, field="token")
    settings.ca = None if ca is None else check_file(ca, field="ca")
    settings.cert = None if cert is None else check_file(cert, field="cert")
    settings.key = None if key is None else check_file(key, field="key")
    settings.server_name = server_name
