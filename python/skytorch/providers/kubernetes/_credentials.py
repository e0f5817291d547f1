"""The token and the authority of one Compute, from its Secret into files of a private folder.

The wire reads them anew for each connection, so a Secret that changes (the operator rotates the certificate) is
followed by replacing the files. The subtle thing: a file is replaced by renaming, so nobody reads half of one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import shutil
import tempfile
from pathlib import Path

from skytorch.providers._protocol import TlsFiles
from skytorch.providers.kubernetes._api import SECRETS, Api, Object
from skytorch.providers.kubernetes._watch import watch

FILES = ("token", "ca.crt")


class Credentials:
    """A folder with the credentials of a Compute."""

    def __init__(self, server_name: str) -> None:
        # Not in XDG_RUNTIME_DIR, which goes with the user's last login while a program may go on.
        self._folder = Path(tempfile.mkdtemp(prefix="skytorch-credentials-"))
        self._server_name = server_name
        self._complete = asyncio.Event()

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

    async def there(self) -> None:
        """Wait until both files are."""
        await self._complete.wait()

    async def follow(self, api: Api, namespace: str, secret: str) -> None:
        """Write what the Secret says, now and at each change, for ever. Watched, not listed: one verb less."""
        async for what, found in watch(api, SECRETS, namespace, field=f"metadata.name={secret}", listing=False):
            if what != "DELETED":
                self.write(found)

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
        self._complete.set()
        return True

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self._folder, ignore_errors=True)
