"""Requests to the API server: JSON in and out, streams of lines, WebSockets. One connection pool for each cluster.

It knows HTTP and credentials, and of Kubernetes only paths: objects are plain dicts. What the server refuses is
`Refused`, a server that does not answer is `Unreachable`. The subtle thing is the time: `now` is the API server's
clock, told by its answers, because two clients that share a Lease may have clocks that differ.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from kubernetes.aio.client import ApiClient

from skytorch import errors
from skytorch.providers.kubernetes import configuration
from skytorch.providers.kubernetes._config import Access, Wish, load
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._loop import ControlLoop

CONNECT_S = 10.0
ANSWER_S = 30.0
SILENCE_S = 100.0  # a watch has a bookmark about every minute
HEARTBEAT_S = 15.0
SETTLE_S = 2.0
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
MANAGER = "skytorch-client"
TROUBLE = (aiohttp.ClientError, OSError, asyncio.TimeoutError, EOFError)
Object = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """A resource type."""

    group: str
    version: str
    plural: str

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str | None, name: str | None = None, sub: str | None = None) -> str:
        """The path of one object, or of all of a namespace or of the cluster."""
        if not self.version:
            return f"/{self.plural}"  # not a resource
        parts = ["/api", self.version] if not self.group else ["/apis", self.group, self.version]
        if namespace is not None:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *([name] if name else []), *([sub] if sub else [])])


COMPUTES = Kind("compute.skytorch.dev", "v1alpha1", "computes")
LEASES = Kind("coordination.k8s.io", "v1", "leases")
DEPLOYMENTS = Kind("apps", "v1", "deployments")
SECRETS, PODS, EVENTS = Kind("", "v1", "secrets"), Kind("", "v1", "pods"), Kind("", "v1", "events")
SERVICES, NODES = Kind("", "v1", "services"), Kind("", "v1", "nodes")
REVIEWS = Kind("authorization.k8s.io", "v1", "selfsubjectaccessreviews")


class Api:
    """The API server of one cluster. Made and used on the control loop."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self._client = ApiClient(access.configuration)
        self._client.user_agent = MANAGER
        self._tls = self._client.rest_client.ssl_context
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0, resolver=aiohttp.ThreadedResolver()),
            trust_env=True,
        )
        self._client.rest_client.pool_manager = self._session
        self._ahead_s = 0.0  # the server's clock minus ours

    @property
    def place(self) -> str:
        """The cluster, for messages."""
        return self.access.place

    def now(self) -> datetime:
        """The time of the API server's clock."""
        return datetime.fromtimestamp(time.time() + self._ahead_s, UTC)

    async def version(self) -> Object:
        """What the API server says of its version: the least that an answer takes."""
        return await self.request("get", Kind("", "", "version"), None)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    # -- objects ---------------------------------------------------------------------------------------------------

    async def get(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """One object."""
        return await self.request("get", kind, namespace, name)

    async def find(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """One object, or None."""
        try:
            return await self.get(kind, namespace, name)
        except Refused as refused:
            if refused.status == 404 and not refused.no_such_type and not refused.no_such_namespace:
                return None
            raise

    async def list(self, kind: Kind, namespace: str | None, **query: Any) -> Object:
        """All objects that the query selects."""
        return await self.request("list", kind, namespace, query=query)

    async def create(self, kind: Kind, namespace: str | None, body: Object) -> Object:
        """A new object."""
        query = {"fieldManager": MANAGER}
        return await self.request("create", kind, namespace, body=body, query=query)

    async def replace(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """An object as it shall be, if it still has the resourceVersion of `body`."""
        return await self.request("update", kind, namespace, name, body=body, query={"fieldManager": MANAGER})

    async def apply(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """Server-side apply, without taking fields from other managers."""
        query = {"fieldManager": MANAGER, "fieldValidation": "Strict"}
        return await self.request("patch", kind, namespace, name, body=body, query=query, content_type=APPLY)

    async def merge(self, kind: Kind, namespace: str, name: str, body: Object) -> Object:
        """A merge patch."""
        query = {"fieldManager": MANAGER}
        return await self.request("patch", kind, namespace, name, body=body, query=query, content_type=MERGE)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str, version: str | None = None) -> None:
        """Delete this very object; what it owns follows in the background. One that is gone is fine."""
        conditions = {"uid": uid} | ({"resourceVersion": version} if version else {})
        body = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": conditions,
                "propagationPolicy": "Background"}  # fmt: skip
        try:
            await self.request("delete", kind, namespace, name, body=body)
        except Refused as refused:
            if refused.status not in (404, 409):
                raise

    # -- HTTP ------------------------------------------------------------------------------------------------------

    async def request(
        self,
        verb: str,
        kind: Kind,
        namespace: str | None,
        name: str | None = None,
        *,
        body: Object | None = None,
        query: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """One request and its JSON answer.

        A write that is cancelled on its way has a moment to arrive: whoever undoes it then finds what it did.
        """
        method = {"get": "GET", "list": "GET", "create": "POST", "update": "PUT", "patch": "PATCH"}.get(
            verb, "DELETE"
        )

        async def exchange() -> Object:
            answer = await self._send(
                verb, method, kind, namespace, name, None, query or {}, body=body, content_type=content_type,
                total_s=ANSWER_S, silence_s=ANSWER_S,
            )  # fmt: skip
            try:
                text = await answer.read()
            except TROUBLE as error:
                raise self._unreachable(error) from None
            return self._parsed(text)

        if method == "GET":
            return await exchange()
        task = asyncio.ensure_future(exchange())
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task], timeout=SETTLE_S)
            raise
        finally:
            task.cancel()

    async def lines(
        self,
        verb: str,
        kind: Kind,
        namespace: str | None,
        name: str | None = None,
        sub: str | None = None,
        *,
        query: Mapping[str, Any],
        silence_s: float | None = SILENCE_S,
    ) -> AsyncGenerator[bytes, None]:
        """The lines of an answer that goes on; the end of the iterator is the end of the answer."""
        answer = await self._send(verb, "GET", kind, namespace, name, sub, query, total_s=None, silence_s=silence_s)
        rest = b""
        try:
            async for piece in answer.content.iter_any():
                *lines, rest = (rest + piece).split(b"\n")
                for line in lines:
                    yield line
            if rest:
                yield rest
        except TROUBLE as error:
            raise self._unreachable(error) from None
        finally:
            answer.close()

    async def watch(
        self, kind: Kind, namespace: str | None, **query: Any
    ) -> AsyncGenerator[tuple[str, Object], None]:
        """The raw changes of a watch, bookmarks among them; a change of type ERROR is raised as `Refused`."""
        query = {"watch": "true", "allowWatchBookmarks": "true", **query}
        async with aclosing(self.lines("watch", kind, namespace, query=query)) as lines:
            async for line in lines:
                told = self._parsed(line)
                if told["type"] == "ERROR":
                    status = told["object"]
                    raise Refused(
                        status=status.get("code", 500), verb="watch", resource=str(kind), namespace=namespace,
                        name=None, reason=status.get("reason", ""), message=status.get("message", ""),
                    )  # fmt: skip
                yield told["type"], told["object"]

    async def websocket(self, kind: Kind, namespace: str, name: str, sub: str, *, query: Mapping[str, Any]) -> Any:
        """An open WebSocket (aiohttp's) to a subresource, with the channel protocol of Kubernetes."""
        await self._renew()
        url, headers = await self._address("GET", kind, namespace, name, sub, query, None)
        configuration = self.access.configuration
        try:
            return await self._session.ws_connect(
                "ws" + url.removeprefix("http"), headers=headers, protocols=("v4.channel.k8s.io",), max_msg_size=0,
                heartbeat=HEARTBEAT_S, server_hostname=configuration.tls_server_name, proxy=configuration.proxy,
                proxy_headers=configuration.proxy_headers,
            )  # fmt: skip
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(
                status=error.status, verb="connect", resource=f"{kind}/{sub}", namespace=namespace, name=name,
                message=error.message,
            ) from None  # fmt: skip
        except TROUBLE as error:
            raise self._unreachable(error) from None

    async def _address(
        self, method: str, kind: Kind, namespace: str | None, name: str | None, sub: str | None,
        query: Mapping[str, Any], content_type: str | None,
    ) -> tuple[str, dict[str, str]]:  # fmt: skip
        headers = {"Accept": "application/json"} | ({"Content-Type": content_type} if content_type else {})
        _, url, headers, _, _ = await self._client.param_serialize(
            method, kind.path(namespace, name, sub), query_params=list(query.items()), header_params=headers,
            auth_settings=["BearerToken"],
        )  # fmt: skip
        return url, headers

    async def _send(
        self, verb: str, method: str, kind: Kind, namespace: str | None, name: str | None, sub: str | None,
        query: Mapping[str, Any], *, body: Object | None = None, content_type: str = "application/json",
        total_s: float | None, silence_s: float | None,
    ) -> Any:  # fmt: skip
        """The answer (aiohttp's), its body unread. Credentials that are refused are fetched anew once."""
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=CONNECT_S, sock_read=silence_s)
        renewed = await self._renew()
        while True:
            url, headers = await self._address(method, kind, namespace, name, sub, query, content_type)
            try:
                rest = self._client.rest_client
                answer = (
                    await rest.request(method, url, headers=headers, body=body, _request_timeout=timeout)
                ).response
                if (date := answer.headers.get("Date")) is not None:
                    self._ahead_s = parsedate_to_datetime(date).timestamp() + 0.5 - time.time()
                if answer.status < 300:
                    return answer
                text = await answer.read()
            except TROUBLE as error:
                raise self._unreachable(error) from None
            if answer.status == 401 and not renewed and await self._renew(force=True):
                renewed = True
                continue
            resource = f"{kind}/{sub}" if sub else str(kind)
            raise Refused.of(
                answer.status, text, verb=verb, resource=resource, namespace=namespace, name=name
            )  # fmt: skip

    async def _renew(self, *, force: bool = False) -> bool:
        try:
            renewed = await self.access.refresh(force=force)
        except errors.SkyTorchError:
            raise
        except Exception as error:  # of a file that is away for a moment, or of the program's own hook
            raise errors.Unauthenticated(f"{self.place}: its credentials could not be renewed: {error!r}") from error
        if renewed and self.access.configuration.cert_file:
            self._tls.load_cert_chain(self.access.configuration.cert_file, self.access.configuration.key_file)
        return renewed

    def _parsed(self, text: bytes) -> Object:
        try:
            told: Object = json.loads(text)
        except ValueError:  # cut in the middle, or not of the API server's making
            raise self._unreachable(ValueError(f"its answer is no JSON: {text[:80]!r}")) from None
        return told

    def _unreachable(self, error: BaseException) -> errors.Unreachable:
        why = str(error) or type(error).__name__
        return errors.Unreachable(
            f"{self.place} does not answer: {why}; does `kubectl cluster-info` work (VPN, proxy, the cluster)?"
        )


async def connect(control: ControlLoop, wish: Wish) -> Api:
    """The API server that is wished for: one pool of connections for all that wish for the same."""

    async def make() -> Api:
        return Api(await load(wish))

    return await control.share((wish, configuration()), make)
