"""List and watch: the objects of a selector now, and every change from then on, for as long as somebody reads.

Broken connections, a restarted API server, silence and expired versions are its own affair: it goes on from the
last version that it saw (bookmarks move it on while nothing happens), or lists anew where that is too old. What
cannot mend itself, a right or a type that is missing before it ever worked, is raised. The subtle thing: after
listing anew the reader gets LISTED again, with everything there is; what it knew and does not find there was deleted
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

from skytorch import errors
from skytorch.providers.kubernetes._api import Api, Kind, Object
from skytorch.providers.kubernetes._errors import Refused, may_pass

logger = logging.getLogger("skytorch")
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0
SERVER_ENDS_S = 300  # the server hangs up after so long, and we go on at once
LISTED = "LISTED"


class Pause:
    """How long to wait before trying again: doubled each time, with some chance in it, and small after a success."""

    def __init__(self) -> None:
        self._next_s = FIRST_PAUSE_S

    def reset(self) -> None:
        """It worked."""
        self._next_s = FIRST_PAUSE_S

    async def wait(self) -> None:
        """Wait, and longer the next time."""
        await asyncio.sleep(self._next_s * random.uniform(0.5, 1.0))
        self._next_s = min(2 * self._next_s, LAST_PAUSE_S)


async def watch(
    api: Api,
    kind: Kind,
    namespace: str,
    *,
    field: str | None = None,
    label: str | None = None,
    version: str | None = None,
) -> AsyncGenerator[tuple[str, Object], None]:
    """(LISTED, list), (ADDED | MODIFIED | DELETED, object). From `version` on, if it is given."""
    selectors = {"fieldSelector": field, "labelSelector": label}
    query = {key: value for key, value in selectors.items() if value is not None}
    pause, worked = Pause(), version is not None
    while True:
        started = time.monotonic()
        try:
            if version is None:
                found = await api.list(kind, namespace, **query)
                version, worked = found["metadata"]["resourceVersion"], True
                yield LISTED, found
            changes = api.watch(kind, namespace, timeoutSeconds=SERVER_ENDS_S, resourceVersion=version, **query)
            async with aclosing(changes) as stream:
                async for what, found in stream:
                    version, worked = found["metadata"]["resourceVersion"], True
                    pause.reset()
                    if what != "BOOKMARK":
                        yield what, found
            if time.monotonic() - started < 1:
                await pause.wait()
        except (Refused, errors.SkyTorchError) as error:
            if isinstance(error, Refused) and error.status == 410:
                version = None
            elif not (worked or may_pass(error)):
                raise
            logger.debug("watching %s: %s", kind, error)
            await pause.wait()
