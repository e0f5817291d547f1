"""`init()`: what the program says about where Computes run. Optional; without it the environment decides."""

from __future__ import annotations

from typing import Any

from skytorch import errors
from skytorch.providers import ProviderName, check_provider, settings
from skytorch.providers.address import check_address


def init(
    *,
    provider: ProviderName | None = None,
    client_config: Any = None,
    namespace: str | None = None,
    address: str | None = None,
    token: str | None = None,
) -> None:
    """Say where Computes run from now on; a second call replaces the first.

    `provider` is "kubernetes", "local" or "address". `client_config` is a `kubernetes.client.Configuration`, without
    it the default kubeconfig and then the in-cluster account count. `address` and `token` are those of a server that
    runs already; the certificate authority of a tls:// address is read from the file that SKYTORCH_CA_FILE names.
    """
    if provider is not None:
        check_provider(provider)
    if address is not None:
        check_address(address)
        if provider not in (None, "address"):
            raise errors.InvalidArgument(f"address: provider {provider!r} takes none; leave one of the two out")
    settings.provider = provider
    settings.client_config = client_config
    settings.namespace = namespace
    settings.address = address
    settings.token = token
