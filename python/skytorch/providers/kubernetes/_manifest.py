"""A Compute as the resource that is applied: the placement's words in those of `compute.skytorch.dev/v1alpha1`.

Pure translation: what is left out is left to the operator. The subtle thing: `suspend` is applied only where it is
wanted from the start. Later it belongs to whoever changed it last, so `suspend()` and `resume()` patch it.
"""

from __future__ import annotations

import json
from typing import Any

from skytorch import errors
from skytorch._version import __version__
from skytorch.providers._protocol import Placement
from skytorch.providers.kubernetes._api import COMPUTES
from skytorch.providers.kubernetes._owner import Owner

IMAGE = f"ghcr.io/skytorch/skytorch-server:{__version__}"
API_VERSION = f"{COMPUTES.group}/{COMPUTES.version}"
OWNER = "compute.skytorch.dev/owner"
TAKEN_OVER = "compute.skytorch.dev/taken-over-by"
MAX_NAME = 52  # the pod of a StatefulSet carries the name and a hash in a label


def check_name(name: str) -> str:
    """The rules of the cluster, which are narrower than those of a local Compute."""
    if len(name) > MAX_NAME or not name[0].isalpha():
        raise errors.InvalidArgument(
            f"name: {name!r} must begin with a letter and have at most {MAX_NAME} characters on Kubernetes"
        )
    return name


def compute(placement: Placement, owner: Owner, *, suspend: bool, taken_over: bool) -> dict[str, Any]:
    """What is applied. A Compute taken over gets a new pod: the old one may still hold a session."""
    annotations = dict(placement.annotations) | ({TAKEN_OVER: owner.id} if taken_over else {})
    spec = {
        "image": placement.image or IMAGE,
        "imagePullPolicy": placement.image_pull_policy,
        "command": list(placement.command),
        "args": list(placement.args),
        "env": [{"name": name, "value": value} for name, value in placement.env.items()],
        "resources": {"limits": dict(placement.resources)} if placement.resources else None,
        "labels": dict(placement.labels),
        "annotations": annotations,
        "volumes": [_volume(volume) for volume in placement.volumes],
        "override": dict(placement.override),
        "idleTimeout": duration(placement.idle_timeout),
        "suspend": True if suspend else None,
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "Compute",
        "metadata": {"name": check_name(placement.name), "annotations": {OWNER: json.dumps(owner.told())}},
        "spec": {key: value for key, value in spec.items() if value},
    }


def duration(seconds: float) -> str:
    """Seconds as Go writes a duration."""
    whole = round(seconds * 1000)
    return f"{whole // 1000}s" if whole % 1000 == 0 else f"{whole}ms"


def _volume(volume: Any) -> dict[str, Any]:
    told = {
        "name": volume["name"],
        "storage": volume["storage"],
        "path": volume["path"],
        "storageClassName": volume.get("storage_class"),
        "accessModes": list(volume.get("access_modes") or ["ReadWriteOnce"]),
    }
    return {key: value for key, value in told.items() if value is not None}
