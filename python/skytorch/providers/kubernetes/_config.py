"""Which cluster, which namespace, and with which credentials: kubeconfig, then the in-cluster account, or `init()`.

`KUBECONFIG` may list files, contexts name clusters and users, credential plugins are run. The subtle thing:
credentials expire while a program runs, so an Access knows how to renew them, on the control loop.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from skytorch import errors
from skytorch.providers.kubernetes import _ACCOUNT, _plugin, has_account, kubeconfigs

RENEW_S = 60.0  # files with tokens, and plugins that do not say how long theirs lasts
SKEW_S = 30.0  # before a credential expires
COPIED = (
    "api_key_prefix", "username", "password", "ssl_ca_cert", "ca_cert_data", "cert_file", "key_file", "verify_ssl",
    "tls_server_name", "proxy", "proxy_headers", "disable_strict_ssl_verification",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What the program said of the cluster; None leaves it to the kubeconfig."""

    client_config: Any = None
    context: str | None = None
    namespace: str | None = None


@dataclass
class Access:
    """A way to an API server."""

    configuration: Any  # kubernetes.aio.client.Configuration
    namespace: str
    place: str  # for messages
    renew: Callable[[], Awaitable[float]] | None = None  # fetches new credentials; how long they last
    renew_at: float = math.inf  # by time.monotonic()
    _renewed_at: float = -math.inf
    _renewing: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self, *, force: bool = False) -> bool:
        """New credentials if the present ones are about to expire, or were refused. Whether there are new ones."""
        if self.renew is None or not (force or time.monotonic() >= self.renew_at):
            return False
        asked = time.monotonic()
        async with self._renewing:
            if self._renewed_at < asked:  # nobody did while we waited
                self.renew_at = time.monotonic() + max(1.0, await self.renew())
                self._renewed_at = time.monotonic()
        return True


async def load(wish: Wish) -> Access:
    """The access that the wish, the environment and this machine's files give."""
    if wish.client_config is not None:
        access = await _given(wish.client_config)
    elif files := kubeconfigs():
        access = await _from_files(files, wish.context)
    elif has_account():
        access = _in_cluster()
    else:
        named = os.environ.get("KUBECONFIG")
        raise errors.InvalidArgument(
            f"kubernetes: there is no {'file ' + named if named else 'kubeconfig in ~/.kube/config'} and no "
            "in-cluster account: set KUBECONFIG, or use provider='local'"
        )
    if wish.namespace is not None:
        access.namespace = wish.namespace
    return access


async def _from_files(files: list[Path], context: str | None) -> Access:
    import yaml
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, kube_config

    named = os.pathsep.join(str(path) for path in files)
    try:
        context = context or _current_context(files)
        merged = kube_config.KubeConfigMerger(named)
        loader = kube_config.KubeConfigLoader(
            config_dict=merged.config, config_base_path=None, active_context=context
        )
        place = f"context {loader.current_context['name']!r} of kubeconfig {named}"
        lasts_s = math.inf
        renew = _renewal(loader, place)
        if renew is not None:
            loader.load_from_exec_plugin = _nothing  # the loader's own only logs what fails
            lasts_s = await renew()
        configuration = Configuration()
        await loader.load_and_set(configuration)
    except (ConfigException, yaml.YAMLError, OSError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise errors.InvalidArgument(f"kubeconfig {named}: {error}") from None
    access = Access(
        configuration=configuration,
        namespace=loader.current_context["context"].get("namespace") or "default",
        place=f"the cluster {configuration.host} ({place})",
    )
    if renew is not None:

        async def again() -> float:
            lasts_s = await renew()
            loader._set_config(configuration)
            return lasts_s

        access.renew, access.renew_at = again, time.monotonic() + lasts_s
    return access


def _current_context(files: list[Path]) -> str | None:
    """The first file that names one wins, as for kubectl."""
    import yaml

    for path in files:
        told = yaml.safe_load(path.read_text())
        if isinstance(told, dict) and told.get("current-context"):
            return str(told["current-context"])
    raise ValueError("no current-context is set: `kubectl config use-context NAME`")


async def _nothing() -> bool:
    return True


def _renewal(loader: Any, place: str) -> Callable[[], Awaitable[float]] | None:
    """How this user's credentials are fetched, if they can change: it returns for how long they are good."""
    user = loader._user
    if user is None:
        return None
    if loader.provider in ("gcp", "oidc"):

        async def from_provider() -> float:
            await (loader.load_gcp_token() if loader.provider == "gcp" else loader._load_oid_token())
            return RENEW_S

        return from_provider
    if "exec" in user:
        return lambda: _run_plugin(loader, place)
    if "tokenFile" in user and "token" not in user:

        async def from_file() -> float:
            loader._load_user_token()
            return RENEW_S

        return from_file
    return None


async def _run_plugin(loader: Any, place: str) -> float:
    """Run the user's credential plugin and hand the loader what it says."""
    from kubernetes.aio.config import kube_config

    told = await _plugin.run(loader._user["exec"].value, place)
    if token := told.get("token"):
        loader.token = f"Bearer {token}"
    if told.get("clientCertificateData"):
        for kind, key in (("cert_file", "clientCertificateData"), ("key_file", "clientKeyData")):
            text = kube_config.FileOrData(told, None, data_key_name=key, base64_file_content=False)
            setattr(loader, kind, text.as_file())
    expires = told.get("expirationTimestamp")
    return RENEW_S if not expires else datetime.fromisoformat(expires).timestamp() - time.time() - SKEW_S


def _in_cluster() -> Access:
    """The account's token changes while a pod runs: its file is read anew, at once if the token was refused."""
    from kubernetes.aio.client import Configuration
    from kubernetes.aio.config import ConfigException, load_incluster_config

    configuration = Configuration()

    def read() -> None:
        try:
            load_incluster_config(client_configuration=configuration, try_refresh_token=False)
        except (ConfigException, OSError) as error:
            raise errors.InvalidArgument(f"in-cluster account: {error}") from None

    async def again() -> float:
        read()
        return RENEW_S

    read()
    file = _ACCOUNT.with_name("namespace")
    return Access(
        configuration=configuration,
        namespace=file.read_text().strip() if file.is_file() else "default",
        place=f"the cluster {configuration.host} (in-cluster account)",
        renew=again,
        renew_at=time.monotonic() + RENEW_S,
    )


async def _given(given: Any) -> Access:
    """From `init(client_config=...)`, a `kubernetes.client.Configuration` or its sibling of `kubernetes.aio`."""
    from kubernetes.aio.client import Configuration

    if not hasattr(given, "api_key") or not hasattr(given, "host"):
        raise errors.InvalidArgument(f"client_config: {given!r} must be a kubernetes.client.Configuration")
    configuration = Configuration()
    configuration.host = given.host
    configuration.api_key = dict(given.api_key)
    for name in COPIED:
        if hasattr(given, name):
            setattr(configuration, name, getattr(given, name))
    access = Access(
        configuration=configuration, namespace="default", place=f"the cluster {given.host} (init(client_config=...))"
    )
    hook = getattr(given, "refresh_api_key_hook", None)
    if hook is not None:

        async def again() -> float:
            outcome = await asyncio.to_thread(hook, given)  # the program's own function may block
            if asyncio.iscoroutine(outcome):
                await outcome
            configuration.api_key = dict(given.api_key)
            return RENEW_S

        access.renew = again
        await access.refresh(force=True)
    return access
