"""What the API server refuses, in SkyTorch's words. No type of the `kubernetes` package reaches the user.

`Refused` is private to this package: it carries the answer for code that acts on it (404, 409, 410). What leaves the
package is what `explain` makes of it. The subtle thing: 404 has three meanings (no such resource type, no such
namespace, no such object), told apart by the details of the answer.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from skytorch import errors
from skytorch.providers.kubernetes import INSTALL

_FORBIDDEN = re.compile(r'User "(?P<user>[^"]*)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]*)"')
_CONFLICT = re.compile(r'conflict with "(?P<manager>[^"]*)"')


@dataclass
class Refused(Exception):
    """An answer of the API server that is not a success."""

    status: int
    verb: str
    resource: str
    namespace: str | None
    name: str | None
    reason: str = ""
    message: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}: {self.status} {self.reason}: {self.message}"

    @classmethod
    def of(
        cls, status: int, body: bytes, *, verb: str, resource: str, namespace: str | None, name: str | None
    ) -> Refused:
        """From an HTTP answer, whose body is a Status object or plain text."""
        try:
            told = json.loads(body)
        except ValueError:
            told = None
        if not isinstance(told, dict):
            told = {"message": body.decode(errors="replace").strip()[:500]}
        return cls(
            status=status, verb=verb, resource=resource, namespace=namespace, name=name,
            reason=told.get("reason") or "", message=told.get("message") or "", details=told.get("details") or {},
        )  # fmt: skip

    @property
    def no_such_type(self) -> bool:
        """404 because the cluster does not know the resource type."""
        return self.status == 404 and not self.details.get("name") and not self.details.get("kind")

    @property
    def no_such_namespace(self) -> bool:
        """404 because of the namespace."""
        return self.status == 404 and self.details.get("kind") == "namespaces"

    @property
    def is_busy(self) -> bool:
        """The API server, or what it needs, could not do it this time."""
        return self.status in (408, 429) or self.status >= 500

    @property
    def fields(self) -> list[str]:
        """The fields that it is about, if it says so."""
        return [cause.get("field", "") for cause in self.details.get("causes", [])]

    def explain(self, place: str) -> errors.SkyTorchError:
        """The error for the user; `place` names the cluster and where its configuration came from."""
        what = f"compute {self.name!r}" if self.resource.startswith("computes.") and self.name else self.resource
        if self.status == 401:
            return errors.Unauthenticated(
                f"{place} does not accept the credentials ({self.message or 'Unauthorized'}): log in again, or name "
                "another context (`kubectl config use-context`)"
            )
        if self.no_such_namespace:
            return errors.InvalidArgument(
                f"namespace: {place} has no namespace {self.details.get('name')!r}: create it with `kubectl create "
                f"namespace {self.details.get('name')}`, or name another one with init(namespace=...)"
            )
        if self.no_such_type:
            return errors.NotSupported(
                f"{place} has no resource type {self.resource}: the operator is not installed; install it with "
                f"{INSTALL}"
            )
        if self.status == 403:
            return self._forbidden(place, what)
        if self.status == 409 and self.reason == "Conflict" and "causes" in self.details:
            return self._conflict(what)
        if self.status in (400, 409, 413, 422):
            return errors.InvalidArgument(f"{what}: the API server refuses it: {self.message}")
        if self.status == 404:
            return errors.InvalidArgument(f"{what}: there is none in namespace {self.namespace!r} of {place}")
        return errors.Unreachable(f"{place} answers {self.status} to {self.verb} {what}: {self.message}; try again")

    def _forbidden(self, place: str, what: str) -> errors.SkyTorchError:
        if "exceeded quota" in self.message:
            return errors.LimitExceeded(
                f"{what}: a quota of namespace {self.namespace!r} refuses it: {self.message}; ask for less in "
                "resources=, or for more quota"
            )
        if "because it is being terminated" in self.message:
            return errors.InvalidArgument(f"namespace: {self.namespace!r} is being deleted; name another one")
        found = _FORBIDDEN.search(self.message)
        if found is None:
            return errors.Forbidden(f"{what}: {place} forbids it: {self.message}")
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return errors.Forbidden(
            f"{what}: user {found['user']!r} of {place} may not {found['verb']} {found['resource']}{where}: "
            "ask for the role skytorch-user (deploy/rbac), or see `skytorch doctor`"
        )

    def _conflict(self, what: str) -> errors.SkyTorchError:
        fields = self.fields
        managers = {
            found[1] for cause in self.details["causes"] if (found := _CONFLICT.search(cause.get("message", "")))
        }
        return errors.InvalidArgument(
            f"{what}: {', '.join(fields)} {'is' if len(fields) == 1 else 'are'} set by "
            f"{', '.join(repr(manager) for manager in sorted(managers)) or 'another field manager'}: leave the field "
            "out here, change it there, or take another name"
        )


def may_pass(error: Exception) -> bool:
    """Whether trying again may help: the API server is busy or away, or there are no good credentials just now."""
    if isinstance(error, Refused):
        return error.is_busy or error.status == 401
    return isinstance(error, (errors.Unreachable, errors.Unauthenticated))
