"""The provider `kubernetes`: a Compute is a resource of a cluster, its server a pod that the operator makes.

A cluster is configured if there is a kubeconfig or an in-cluster account. This module only looks for one: the rest,
and with it the package `kubernetes`, is imported by the first Compute that needs it. The subtle thing: everything
that talks to the API server runs on one thread with a loop of its own (_loop.py), because a program that waits for a
value blocks its own loop.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skytorch import errors

if TYPE_CHECKING:
    from skytorch.providers._protocol import OnEvent, OnResource, Placement
    from skytorch.providers.kubernetes._config import Wish
    from skytorch.providers.kubernetes._provider import KubernetesProvider

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
INSTALL = "`kubectl apply -k deploy/kustomize/base` in a checkout of SkyTorch, or the one command of the README"


def kubeconfigs() -> list[Path]:
    """The kubeconfig files that exist, in the order in which they count."""
    named = os.environ.get("KUBECONFIG", "")
    paths = [Path(part).expanduser() for part in named.split(os.pathsep) if part]
    return [path for path in paths or [Path.home() / ".kube" / "config"] if path.is_file()]


def has_account() -> bool:
    """Whether this process runs in a pod with a service account."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST")) and _ACCOUNT.is_file()


def configuration() -> str | None:
    """Where a cluster's configuration was found, or None. Reads no file."""
    found = kubeconfigs()
    if found:
        return f"kubeconfig {os.pathsep.join(str(path) for path in found)}"
    return "in-cluster account" if has_account() else None


def check_package() -> None:
    """Refuse to go on without the package `kubernetes`, saying how to get it."""
    try:
        import kubernetes.aio.client  # noqa: F401
    except ImportError as error:
        raise errors.NotSupported(
            f"the provider kubernetes needs the package kubernetes, version 37 or newer ({error}): "
            "pip install 'skytorch[kubernetes]'"
        ) from None


def provider(placement: Placement, wish: Wish, *, on_event: OnEvent, on_resource: OnResource) -> KubernetesProvider:
    """The provider object for one Compute."""
    check_package()
    from skytorch.providers.kubernetes._provider import KubernetesProvider

    return KubernetesProvider(placement, wish, on_event=on_event, on_resource=on_resource)


def wish(*, client_config: Any, context: str | None, namespace: str | None) -> Wish:
    """Which cluster is wanted, from what `init()` and the command line said."""
    from skytorch.providers.kubernetes._config import Wish

    return Wish(client_config=client_config, context=context, namespace=namespace)
