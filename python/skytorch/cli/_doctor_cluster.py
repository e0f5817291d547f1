"""What `skytorch doctor` checks of a cluster, in the order in which one thing needs the other.

Each check asks the API server itself: rights by SelfSubjectAccessReview, the namespace by a create that is only
pretended. The subtle thing: a user may not see the operator or the nodes, which is no fault. Then the line says so
and nothing fails. An operator may be in any namespace, and look after all of them or only one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Any

from skytorch import errors
from skytorch._version import __version__
from skytorch.cli._finding import Finding
from skytorch.providers import settings
from skytorch.providers.kubernetes import INSTALL, check_package, configuration

if TYPE_CHECKING:
    from skytorch.providers.kubernetes._api import Api
    from skytorch.providers.kubernetes._visit import Visit

SYSTEM, OPERATOR = "skytorch-system", "skytorch-operator"
LABEL = f"app.kubernetes.io/name={OPERATOR}"
RIGHTS = (
    ("compute.skytorch.dev", "computes", "get list watch create patch delete"),
    ("coordination.k8s.io", "leases", "get create update delete"),
    ("", "secrets", "get"),
    ("", "services", "get"),
    ("", "pods", "get list watch"),
    ("", "pods/log", "get"),
    ("", "pods/portforward", "get create"),
    ("", "events", "list watch"),
)


def findings() -> Iterator[Finding]:
    """The checks; those that need what has failed are left out."""
    found = configuration()
    if found is None and settings.client_config is None:
        yield Finding(
            ok=False,
            what="Kubernetes configuration: none",
            mend="put a kubeconfig into ~/.kube/config or name it in KUBECONFIG, or set SKYTORCH_PROVIDER=local",
        )
        return
    yield Finding(ok=True, what=f"Kubernetes configuration: {found or 'client_config'}")
    try:
        check_package()
        from skytorch.providers.kubernetes._visit import Visit

        with Visit(settings.cluster()) as visit:
            yield from _of_cluster(visit)
    except errors.SkyTorchError as error:
        yield Finding(ok=False, what=f"Kubernetes: {error}", mend="see the message")


def _of_cluster(visit: Visit) -> Iterator[Finding]:
    from skytorch.providers.kubernetes._errors import Refused

    api = visit.api
    version = visit.run(api.version())
    yield Finding(ok=True, what=f"{api.place} answers, version {version.get('gitVersion', 'unknown')}")
    for check in (_crd, _namespace, _rights, _operator, _nodes):
        try:
            yield from visit.run(check(api, visit.namespace))
        except Refused as refused:
            yield Finding(ok=False, what=str(refused.explain(api.place)), mend="see the message")


async def _crd(api: Api, namespace: str) -> list[Finding]:
    from skytorch.providers.kubernetes._api import COMPUTES
    from skytorch.providers.kubernetes._errors import Refused

    try:
        await api.list(COMPUTES, namespace, limit=1)
    except Refused as refused:
        if refused.no_such_type:
            return [Finding(ok=False, what=f"resource type {COMPUTES}: missing", mend=f"install it with {INSTALL}")]
        if refused.status != 403:
            raise
    return [Finding(ok=True, what=f"resource type {COMPUTES}")]


async def _namespace(api: Api, namespace: str) -> list[Finding]:
    from skytorch.providers.kubernetes._api import LEASES
    from skytorch.providers.kubernetes._errors import Refused

    body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "skytorch-doctor"}}
    try:
        await api.request("create", LEASES, namespace, body=body, query={"dryRun": "All"})
    except Refused as refused:
        if refused.no_such_namespace:
            what, mend = f"namespace {namespace!r}: missing", f"kubectl create namespace {namespace}, or name another"
            return [Finding(ok=False, what=what, mend=mend)]
        if refused.status not in (403, 409):
            raise
    return [Finding(ok=True, what=f"namespace {namespace!r}")]


async def _rights(api: Api, namespace: str) -> list[Finding]:
    asked = [(group, resource, verb) for group, resource, verbs in RIGHTS for verb in verbs.split()]
    answers = await asyncio.gather(*(_may(api, namespace, *one) for one in asked))
    lacking: dict[str, list[str]] = {}
    for (_, resource, verb), may in zip(asked, answers, strict=True):
        if not may:
            lacking.setdefault(resource, []).append(verb)
    if not lacking:
        return [Finding(ok=True, what=f"rights in namespace {namespace!r}: all {len(asked)} that a client needs")]
    told = "; ".join(f"{', '.join(verbs)} {resource}" for resource, verbs in lacking.items())
    mend = f"have an administrator bind the role skytorch-user in namespace {namespace!r} (deploy/rbac)"
    return [Finding(ok=False, what=f"rights in namespace {namespace!r}: may not {told}", mend=mend)]


async def _may(api: Api, namespace: str, group: str, resource: str, verb: str) -> bool:
    from skytorch.providers.kubernetes._api import REVIEWS

    resource, _, sub = resource.partition("/")
    wish = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, "subresource": sub}
    body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": wish}}  # fmt: skip
    answer = await api.create(REVIEWS, None, body)
    return bool(answer["status"]["allowed"])


async def _operator(api: Api, namespace: str) -> list[Finding]:
    """The operators that look after this namespace, as far as this account may see them."""
    from skytorch.providers.kubernetes._api import DEPLOYMENTS

    found, unseen = [], []
    for place in (None, *dict.fromkeys((SYSTEM, namespace))):  # None: in all namespaces
        seen = await _look(api.list(DEPLOYMENTS, place, labelSelector=LABEL))
        if seen is False:
            unseen.append(place)
            continue
        found += seen["items"]
        if place is None:
            break
    lines = []
    for deployment in found:
        if _scope(deployment) in (None, namespace):
            lines += await _deployment(api, deployment)
    for place in unseen:
        if place is not None and not lines:
            lines += await _leader(api, place, alone=True)
    if lines:
        return lines
    if unseen:
        where = [repr(place) for place in unseen if place is not None]
        what = f"operator: not seen; this account may not look into {', '.join(['all namespaces', *where])}"
        return [Finding(ok=None, what=what)]
    what = f"operator: no Deployment with the label {LABEL} looks after namespace {namespace!r}"
    for deployment in found:
        what += f"; the one in {deployment['metadata']['namespace']!r} is for {_scope(deployment)!r} only"
    return [Finding(ok=False, what=what, mend=f"install it with {INSTALL}")]


def _scope(deployment: dict[str, Any]) -> str | None:
    """The only namespace that an operator looks after, if it is told one."""
    own: str = deployment["metadata"]["namespace"]
    for word in deployment["spec"]["template"]["spec"]["containers"][0].get("args", []):
        if word.startswith("--namespace="):
            return str(word.partition("=")[2]).replace("$(NAMESPACE)", own)
    return None


async def _deployment(api: Api, found: dict[str, Any]) -> list[Finding]:
    place = found["metadata"]["namespace"]
    ready, wanted = found.get("status", {}).get("readyReplicas", 0), found["spec"].get("replicas", 1)
    image = found["spec"]["template"]["spec"]["containers"][0]["image"]
    tag = image.rpartition(":")[2] if ":" in image.rpartition("/")[2] else "latest"
    same = tag.removeprefix("v").split(".")[:2] == __version__.split(".")[:2]
    return [
        Finding(
            ok=ready > 0,
            what=f"operator in namespace {place!r}: {ready} of {wanted} replicas are ready",
            mend=f"`kubectl -n {place} describe deploy {OPERATOR}`, `kubectl -n {place} logs deploy/{OPERATOR}`",
        ),
        *await _leader(api, place, alone=False),
        Finding(
            ok=None if not tag[-1:].isdigit() else same,
            what=f"operator's version: {tag}, this client's: {__version__}",
            mend="install the operator of this client's version, or the client of the operator's: "
            f"pip install skytorch=={tag.removeprefix('v')}",
        ),
    ]


async def _leader(api: Api, place: str, *, alone: bool) -> list[Finding]:
    """What the Lease of the operators of a namespace says; that all is well only if nothing else says it."""
    from skytorch.providers.kubernetes._api import LEASES

    lease = await _look(api.find(LEASES, place, OPERATOR))
    if not lease or not (renewed := lease["spec"].get("renewTime")):
        return []
    leader, good_s = lease["spec"].get("holderIdentity"), lease["spec"].get("leaseDurationSeconds", 15)
    age_s = (api.now() - datetime.fromisoformat(renewed)).total_seconds()
    is_down = age_s > good_s
    what = f"operator in namespace {place!r}: {'down: ' if is_down else ''}its leader {leader!r} was last heard of "
    what += f"{age_s:.0f} s ago, and its Lease is good for {good_s} s"
    mend = f"`kubectl -n {place} logs deploy/{OPERATOR}`, `kubectl -n {place} rollout restart deploy/{OPERATOR}`"
    return [Finding(ok=not is_down, what=what, mend=mend)] if is_down or alone else []


async def _nodes(api: Api, namespace: str) -> list[Finding]:
    from skytorch.providers.kubernetes._api import NODES

    found = await _look(api.list(NODES, None))
    if not found:
        return [Finding(ok=None, what="GPUs: this account may not look at the nodes")]
    gpus: dict[str, int] = {}
    for node in found["items"]:
        for resource, amount in node.get("status", {}).get("allocatable", {}).items():
            if resource.endswith("/gpu") and int(amount) > 0:
                gpus[resource] = gpus.get(resource, 0) + int(amount)
    told = ", ".join(f"{count} {resource}" for resource, count in gpus.items())
    return [
        Finding(
            ok=True if gpus else None,
            what=f"GPUs: {told or 'no node offers any'}",
            mend="CPU Computes work; for GPUs add a node with a device plugin (nvidia.com/gpu in its allocatable)",
        )
    ]


async def _look(asking: Any) -> Any:
    """What was asked for, None if there is none, False if this account may not ask."""
    from skytorch.providers.kubernetes._errors import Refused

    try:
        return await asking
    except Refused as refused:
        if refused.status == 403:
            return False
        raise
