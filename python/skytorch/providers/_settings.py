"""Which provider runs a Compute, and what it needs to know: `init()`, then the environment, then what is found here.

The subtle thing: nothing is read or chosen before the first Compute applies, so importing costs nothing and `init`
may come at any time before. The choice is logged once per process.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from skytorch import errors
from skytorch.providers import kubernetes
from skytorch.providers._protocol import Endpoint, OnCondition, OnEvent, OnResource, Placement, Provider, TlsFiles
from skytorch.providers.address import AddressProvider, check_address
from skytorch.providers.local import LocalProvider

if TYPE_CHECKING:
    from skytorch.providers.kubernetes._config import Wish

logger = logging.getLogger("skytorch")
ProviderName = Literal["kubernetes", "local", "address"]
PROVIDERS: tuple[str, ...] = get_args(ProviderName)


def check_provider(provider: object, *, field: str = "provider") -> str:
    """The provider's name, or an error that names the field."""
    if provider not in PROVIDERS:
        raise errors.InvalidArgument(f"{field}: {provider!r} must be one of {', '.join(PROVIDERS)}")
    return str(provider)


@dataclass
class Settings:
    """What `init()` said. None leaves a question to the environment."""

    provider: str | None = None
    client_config: Any = None
    namespace: str | None = None
    context: str | None = None  # of the kubeconfig; only the command line names one
    address: str | None = None
    token: str | Path | None = field(default=None, repr=False)
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None
    server_name: str | None = None
    _logged: bool = False

    def choose(self, asked: str | None) -> str:
        """The provider for a Compute that asked for `asked`."""
        if asked is not None:
            return asked
        name, reason = self._choose()
        if not self._logged:
            self._logged = True
            logger.info("provider %s: %s", name, reason)
        return name

    def _choose(self) -> tuple[str, str]:
        if self.provider is not None:
            return self.provider, "init() names it"
        if self.address is not None:
            return "address", "init() names an address"
        if self.client_config is not None:
            return "kubernetes", "init() names a client_config"
        named = os.environ.get("SKYTORCH_PROVIDER")
        if named:
            return check_provider(named, field="SKYTORCH_PROVIDER"), "SKYTORCH_PROVIDER names it"
        found = kubernetes.configuration()
        if found is not None:
            return "kubernetes", f"there is a {found}"
        return "local", "there is no kubeconfig and no in-cluster account"

    def endpoint(self) -> Endpoint:
        """The server that the provider `address` goes to."""
        address = self.address or os.environ.get("SKYTORCH_ADDRESS")
        if not address:
            raise errors.InvalidArgument("address: provider 'address' needs init(address=...) or SKYTORCH_ADDRESS")
        token = self.token or os.environ.get("SKYTORCH_TOKEN") or _file("SKYTORCH_TOKEN_FILE")
        tls = None
        if check_address(address).startswith("tls://"):
            tls = TlsFiles(
                ca=self.ca or _file("SKYTORCH_CA_FILE"),
                cert=self.cert or _file("SKYTORCH_CERT_FILE"),
                key=self.key or _file("SKYTORCH_KEY_FILE"),
                server_name=self.server_name or os.environ.get("SKYTORCH_SERVER_NAME"),
            )
        return Endpoint(address=address, token=token, tls=tls)

    def make(
        self,
        asked: str | None,
        placement: Placement,
        *,
        on_event: OnEvent,
        on_condition: OnCondition,
        on_resource: OnResource,
    ) -> Provider:
        """The provider object for one Compute. It tells conditions, or a whole resource where there is a real one."""
        name = self.choose(asked)
        if name == "local":
            return LocalProvider(placement, on_event=on_event, on_condition=on_condition)
        if name == "address":
            return AddressProvider(placement, self.endpoint(), on_event=on_event, on_condition=on_condition)
        return kubernetes.provider(placement, self.cluster(), on_event=on_event, on_resource=on_resource)

    def cluster(self) -> Wish:
        """Which cluster the provider `kubernetes` goes to."""
        return kubernetes.wish(client_config=self.client_config, context=self.context, namespace=self.namespace)


def check_file(path: str | os.PathLike[str], *, field: str) -> Path:
    """The file's absolute path, or an error that names the field. It is read when it is needed, not here."""
    try:
        with open(path, "rb"):
            return Path(path).absolute()
    except OSError as error:
        raise errors.InvalidArgument(f"{field}: {path} cannot be read: {error.strerror}") from None


def _file(variable: str) -> Path | None:
    path = os.environ.get(variable)
    return check_file(path, field=variable) if path else None


settings = Settings()  # the process's one
