"""The pods of one Compute, as a watch tells them, and why the one that holds the session is gone.

A session dies with its container. The subtle thing: the pod's name says nothing, since the next pod has it too. What
counts is the pod's uid and the container's id that were there when the session began.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from skytorch.providers.kubernetes._api import Object
from skytorch.providers.kubernetes._watch import LISTED

CONTAINER = "server"


class Pods:
    """What is known of a Compute's pods. Fed on the control loop, asked on any thread."""

    def __init__(self, on_lost: Callable[[str], None]) -> None:
        self._on_lost = on_lost
        self._pods: dict[str, Object] = {}  # by uid; those that are gone too, as they were last
        self._there: set[str] = set()
        self._held: tuple[str, str] | None = None  # uid and container of the session
        self._why: str | None = None
        self._known = threading.Event()

    def note(self, what: str, found: Object) -> None:
        """Take in one change of the watch."""
        if what == LISTED:
            self._there.clear()
            for pod in found.get("items", []):
                self._add(pod)
        elif what == "DELETED":
            self._pods[found["metadata"]["uid"]] = found
            self._there.discard(found["metadata"]["uid"])
        else:
            self._add(found)
        self._judge()

    @property
    def any_left(self) -> bool:
        """Whether there is still one."""
        return bool(self._there)

    def ready(self, name: str) -> bool:
        """Whether the pod of that name is there with a container that is ready."""
        return self._find(name) is not None

    def hold(self, name: str) -> None:
        """Remember the pod and the container that a session is about to begin with."""
        pod = self._find(name)
        self._why = None
        self._known.clear()
        self._held = None if pod is None else (pod["metadata"]["uid"], _container(pod).get("containerID", ""))
        self._judge()

    def let_go(self) -> None:
        """The session has ended as it should."""
        self._held = None

    def say(self, why: str) -> None:
        """Something else is known to have ended the session."""
        if self._why is None:
            self._why = why
            self._known.set()
            self._on_lost(why)

    def why_lost(self, wait_s: float) -> str | None:
        """What became of the pod that holds the session; waits a moment for the news to arrive."""
        self._known.wait(wait_s)
        self._known.set()  # nobody waits twice
        return self._why

    def _add(self, pod: Object) -> None:
        self._pods[pod["metadata"]["uid"]] = pod
        self._there.add(pod["metadata"]["uid"])

    def _find(self, name: str) -> Object | None:
        for uid in self._there:
            pod = self._pods[uid]
            if pod["metadata"]["name"] == name and _container(pod).get("ready"):
                return pod
        return None

    def _judge(self) -> None:
        if self._held is None or self._why is not None:
            return
        uid, container = self._held
        why = what_became(self._pods[uid], container, is_there=uid in self._there)
        if why is not None:
            self.say(why)


def what_became(pod: Object, container_id: str, *, is_there: bool) -> str | None:
    """How a pod, or its container of that id, ended; None while both live."""
    name, status, container = pod["metadata"]["name"], pod.get("status", {}), _container(pod)
    ended = _ending(container, container_id)
    for known in status.get("conditions", []):
        if known.get("type") == "DisruptionTarget" and known.get("status") == "True":
            return f"pod {name} was taken away ({known.get('reason', '')}: {known.get('message', '')})"
    if status.get("reason"):  # Evicted, NodeLost, Terminated by a limit of the pod
        return f"pod {name} ended: {status['reason']}" + (f": {status['message']}" if status.get("message") else "")
    if pod["metadata"].get("deletionTimestamp"):
        return f"pod {name} was deleted" + (f" ({ended})" if ended else "")
    if ended:
        return f"the server in pod {name} ended: {ended}"
    return None if is_there else f"pod {name} was deleted"


def _ending(container: Object, container_id: str) -> str | None:
    for state in (container.get("state", {}), container.get("lastState", {})):
        ended = state.get("terminated")
        if ended is not None and ended.get("containerID", container_id) == container_id:
            text = f"{ended.get('reason') or 'Error'} (exit code {ended.get('exitCode')})"
            last = (ended.get("message") or "").strip().splitlines()
            return f"{text}: {last[-1]}" if last else text
    if container.get("containerID", container_id) != container_id:
        return "it was restarted"
    return None


def _container(pod: Object) -> dict[str, Any]:
    found = pod.get("status", {}).get("containerStatuses", [])
    return next((status for status in found if status.get("name") == CONTAINER), {})
