"""One Compute, its pods and its events, as watches tell them; on the control loop.

Waits are for a state that some watch brings, and a watch that failed for good ends them. The subtle thing is what is
believed: only what is said of the uid that was applied, and nothing older than what is known.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from skytorch import errors
from skytorch.providers._protocol import Event
from skytorch.providers.kubernetes._api import COMPUTES, PODS, Api, Object
from skytorch.providers.kubernetes._errors import Refused
from skytorch.providers.kubernetes._events import Events, newest_version, subjects
from skytorch.providers.kubernetes._pods import Pods
from skytorch.providers.kubernetes._state import verdict
from skytorch.providers.kubernetes._watch import LISTED, watch

logger = logging.getLogger("skytorch")


class View:
    """What is known of a Compute that was applied."""

    def __init__(
        self,
        api: Api,
        name: str,
        *,
        on_event: Callable[[Event], None],
        on_resource: Callable[[Object], None],
        on_lost: Callable[[str], None],
        on_gone: Callable[[], None],
    ) -> None:
        self.pods = Pods(on_lost)
        self.resource: Object | None = None
        self.uid: str | None = None  # of what was applied
        self.is_gone = False
        self.is_deleted_here = False  # what then goes is no news, and no watch is needed to the end
        self._api = api
        self._namespace = api.access.namespace
        self._name = name
        self._on_resource = on_resource
        self._on_gone = on_gone
        self._events = Events(name, on_event)
        self._changed = asyncio.Event()
        self._failure: errors.SkyTorchError | None = None

    async def follow(self, version: str) -> None:
        """The Compute, from that version on, for ever."""
        field = f"metadata.name={self._name}"
        async for what, found in watch(self._api, COMPUTES, self._namespace, field=field, version=version):
            if what == LISTED:
                if not found["items"]:
                    self._note_gone(self.uid)
                for item in found["items"]:
                    if item["metadata"]["uid"] != self.uid:
                        self._note_gone(self.uid)
                    self.take_in(item)
            elif what == "DELETED":
                self._note_gone(found["metadata"]["uid"])
            else:
                self.take_in(found)

    async def follow_pods(self) -> None:
        """Its pods, for ever."""
        label = f"compute.skytorch.dev/name={self._name}"
        async for what, found in watch(self._api, PODS, self._namespace, label=label):
            self.pods.note(what, found)
            self._changed.set()

    def follow_events(self, version: str) -> list[Coroutine[Any, Any, None]]:
        """Its events and its pod's, after that version, for ever: one to run for each."""
        return [self._events.follow(self._api, self._namespace, subject, version) for subject in subjects(self._name)]

    async def newest_event(self) -> str | None:
        """Where the events of the future begin; None if they may not be read."""
        try:
            return await newest_version(self._api, self._namespace)
        except Refused as refused:
            if refused.status != 403:
                raise
            logger.warning("compute %r: no events: %s", self._name, refused.explain(self._api.place))
            return None

    def take_in(self, found: Object) -> None:
        """What the API server says of the Compute now, unless something newer is known."""
        if found["metadata"]["uid"] != self.uid:
            return
        known = self.resource
        if known is not None and known["metadata"]["uid"] == self.uid and _version(known) > _version(found):
            return
        self.resource = found
        self._on_resource(found)
        self._changed.set()

    def _note_gone(self, uid: str | None) -> None:
        if uid != self.uid or self.is_gone:
            return
        self.is_gone = True
        self._changed.set()
        if not self.is_deleted_here:
            self.pods.say("the Compute was deleted (by its idle timeout, `skytorch delete` or somebody else)")
            self._on_gone()

    def stands(self, kind: str) -> bool:
        """Whether the verdict is of this kind."""
        return self.resource is not None and verdict(self.resource).kind == kind

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for a state that some watch tells of."""
        while not holds():
            if self._failure is not None and self.is_deleted_here:
                return  # nobody tells
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()

    def look_again(self) -> None:
        """Something that waits depend on has changed."""
        self._changed.set()

    def fail(self, failure: errors.SkyTorchError) -> None:
        """Nothing will be told any more: every wait ends with this."""
        self._failure = failure
        self._changed.set()


def _version(found: Object) -> int:
    return int(found["metadata"]["resourceVersion"])
