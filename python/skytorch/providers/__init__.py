"""Where a Compute runs: a child process (`local`), a machine that the user names (`address`), a pod (`kubernetes`).

A provider knows processes, sockets and credentials. It knows nothing of sessions, tensors or torch: it hands back an
Endpoint, and client/ connects to it.
"""

from skytorch.providers._protocol import (
    Cancel,
    Condition,
    Endpoint,
    Event,
    OnCondition,
    OnEvent,
    OnResource,
    Placement,
    Provider,
    TlsFiles,
)
from skytorch.providers._settings import ProviderName, Settings, check_file, check_provider, settings

__all__ = [
    "Cancel",
    "Condition",
    "Endpoint",
    "Event",
    "OnCondition",
    "OnEvent",
    "OnResource",
    "Placement",
    "Provider",
    "ProviderName",
    "Settings",
    "TlsFiles",
    "check_file",
    "check_provider",
    "settings",
]
