"""The token and the authority of one Compute, from its Secret into files of a private folder.

The wire reads them anew for each connection, so a Secret that changes is followed by replacing the files. It is read
by its name, every half minute and for each connection through a tunnel: whoever may watch one Secret may read all.
The subtle thing: a file is replaced by renaming, so nobody reads half of one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import math
import os
import shutil
import tempfile
import time
from pathlib import Path

from skytorch import errors
from skytorch.providers._protocol import TlsFiles
from skytorch.providers.kubernetes._api import SECRETS, Api, Object
from skytorch.providers.kubernetes._errors import Refused

logger = logging.getLogger("skytorch")
FILES = ("token", "ca.crt")
FOLLOW_S = 30.0
FRESH_S = 1.0  # the connections of a session are opened together


class Credentials:
    """A folder with the credentials of a Compute."""

    def __init__(self, server_name: str) -> None:
        # Not in XDG_RUNTIME_DIR, which goes with the user's last login while a program may go on.
        self._folder = Path(tempfile.mkdtemp(prefix="skytorch-credentials-"))
        self._server_name = server_name
        self._reading = asyncio.Lock()
        self._read_at = -math.inf  # by time.monotonic()

    @property
    def token(self) -> Path:
        """The token's file."""
        return self._folder / "token"

    @property
    def ca(self) -> Path:
        """The authority's file."""
        return self._folder / "ca.crt"

    @property
    def tls(self) -> TlsFiles:
        """What TLS needs."""
        return TlsFiles(ca=self.ca, server_name=self._server_name)

    async def fetch(self, api: Api, namespace: str, secret: str) -> bool:
        """Write what the Secret says now. Whether it was there and had both."""
        found = await api.find(SECRETS, namespace, secret)
        self._read_at = time.monotonic()
        return found is not None and self.write(found)

    async def renew(self, api: Api, namespace: str, secret: str) -> None:
        """Fetch, unless that was done a moment ago. Where it cannot be done, the files stay as they are."""
        async with self._reading:
            if time.monotonic() - self._read_at < FRESH_S:
                return
            try:
                await self.fetch(api, namespace, secret)
            except (Refused, errors.SkyTorchError, OSError) as error:
                logger.debug("secret %s: %s", secret, error)

    async def follow(self, api: Api, namespace: str, secret: str) -> None:
        """Renew for ever."""
        while True:
            await asyncio.sleep(FOLLOW_S)
            await self.renew(api, namespace, secret)

    def write(self, secret: Object) -> bool:
        """Write the files. Whether the Secret had both."""
        data = secret.get("data") or {}
        for name in FILES:
            try:
                content = base64.b64decode(data.get(name) or "", validate=True)
            except binascii.Error:
                content = b""
            if not content:
                return False
            fresh = self._folder / f".{name}"
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
            fresh.replace(self._folder / name)
        return True

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
