"""The provider `local`: the server is a child process of this one, on a Unix socket in a private folder.

The child ends with its parent in whatever way the parent ends (server/_parent.py is the other half of that). It uses
this machine's devices and inherits this process's environment; image, resources and volumes mean nothing here.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from skytorch import errors
from skytorch.providers._child import Child
from skytorch.providers._protocol import Cancel, Condition, Endpoint, Event, OnCondition, OnEvent, Placement
from skytorch.providers.rundir import RunDir

logger = logging.getLogger("skytorch")


class LocalProvider:
    """Runs one Compute as a child process."""

    def __init__(self, placement: Placement, *, on_event: OnEvent, on_condition: OnCondition) -> None:
        self._placement = placement
        self._on_event = on_event
        self._on_condition = on_condition
        self._rundir: RunDir | None = None
        self._child: Child | None = None
        self._why_lost: str | None = None

    def start(self, *, timeout_s: float, cancel: Cancel) -> Endpoint:
        """Spawn the server and wait for its word that it listens."""
        name = self._placement.name
        if self._rundir is None:
            self._rundir = RunDir.claim(name, adopt=self._placement.adopt)
        token = self._rundir.write_token()
        socket = self._rundir.socket_path()
        started = time.monotonic()
        self._why_lost = None
        self._rundir.write_info(server_pid=None, address=None)
        self._say("Starting", f"starting a server process for compute {name!r}")
        self._on_condition(Condition(type="Ready", status="False", reason="Starting"))
        child = Child(
            arguments=["--uds", str(socket), "--token-file", str(self._rundir.token_file), *self._placement.args],
            env=self._placement.env,
            on_exit=self._lost,
        )
        self._child = child
        child.start()
        cancel.when_requested(child.ready.cancel)
        try:
            told = child.ready.result(timeout_s)
        except TimeoutError:
            self._give_up(child)
            raise errors.ComputeNotReady(
                f"compute {name!r}: its server process was not ready within {timeout_s:g} s:\n{child.log.tail()}"
            ) from None
        except errors.SkyTorchError as error:
            self._give_up(child)
            self._say("Failed", str(error), warning=True)
            self._on_condition(Condition(type="Ready", status="False", reason="Failed", message=str(error)))
            raise errors.ComputeFailed(f"compute {name!r}: {error}") from None
        except BaseException:  # cancelled, or Ctrl-C
            self._give_up(child)
            raise
        self._rundir.write_info(server_pid=child.pid, address=told["address"])
        self._say("Started", f"server process {child.pid} listens after {time.monotonic() - started:.1f} s")
        return Endpoint(address=told["address"], token=token, info={**told, "pid": child.pid})

    def apply_suspended(self, *, cancel: Cancel) -> None:
        """There is nothing to apply before there is a server."""

    def stop(self, *, grace_period_s: float) -> None:
        """End the child; the name stays claimed."""
        child, self._child = self._child, None
        if child is not None:
            was_running = not child.exited.is_set()
            child.stop(grace_period_s=grace_period_s)
            if was_running:
                self._say("Stopped", f"server process {child.pid} was stopped")
        if self._rundir is not None:
            self._rundir.forget_server()

    def delete(self, *, grace_period_s: float) -> None:
        """End the child, free the name and remove the folder."""
        self.stop(grace_period_s=grace_period_s)
        rundir, self._rundir = self._rundir, None
        if rundir is not None:
            rundir.release()

    def logs(self, *, follow: bool) -> Iterator[str]:
        """What the child wrote to its stdout and stderr."""
        child = self._child
        return iter(()) if child is None else child.log.read(follow=follow)

    def why_lost(self) -> str | None:
        """How the child ended."""
        return self._why_lost

    def _give_up(self, child: Child) -> None:
        child.stop(grace_period_s=0)
        self.delete(grace_period_s=0)

    def _lost(self, how: str) -> None:
        """The child ended without being asked to. Called on its keeper thread."""
        child = self._child
        if child is None or not child.ready.done() or child.ready.cancelled() or child.ready.exception() is not None:
            return  # it never was ready: `start` tells
        message = f"server process {child.pid} {how}"
        self._why_lost = message
        if self._rundir is not None:
            self._rundir.forget_server()
        self._on_condition(Condition(type="Ready", status="False", reason="Exited", message=message))
        self._say("Exited", message, warning=True)

    def _say(self, reason: str, message: str, *, warning: bool = False) -> None:
        kind = "Warning" if warning else "Normal"
        event = Event(reason=reason, message=message, type=kind, name=self._placement.name)  # type: ignore[arg-type]
        if self._rundir is not None:
            self._rundir.append_event(event)
        self._on_event(event)
