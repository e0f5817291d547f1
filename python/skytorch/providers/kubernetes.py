"""The provider `kubernetes`. It does not exist yet; what exists is how to see whether it would be chosen.

A cluster is configured if there is a kubeconfig or an in-cluster account. Until the Compute resource and its operator
are there, choosing it is an error that says so and what to use instead.
"""

from __future__ import annotations

import os
from pathlib import Path

from skytorch import errors

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


def configuration() -> str | None:
    """Where a cluster's configuration was found, or None. Reads no file."""
    named = os.environ.get("KUBECONFIG", "")
    paths = [Path(part) for part in named.split(os.pathsep) if part] or [Path.home() / ".kube" / "config"]
    for path in paths:
        if path.is_file():
            return f"kubeconfig {path}"
    if os.environ.get("KUBERNETES_SERVICE_HOST") and _ACCOUNT.is_file():
        return "in-cluster account"
    return None


def missing() -> errors.NotSupported:
    """The error for everything that would need a cluster."""
    return errors.NotSupported(
        "the kubernetes provider is not part of this version of SkyTorch (the Compute resource and its operator are "
        "missing): use provider='local' or provider='address' (or set SKYTORCH_PROVIDER)"
    )
