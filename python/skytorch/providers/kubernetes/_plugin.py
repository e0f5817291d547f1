"""A kubeconfig's credential plugin (`user.exec`): a program that prints a token, a certificate with its key, or both.

The package `kubernetes` has one too, which waits for ever. The subtle thing: a plugin may have programs of its own,
which hold its output open when it is killed, so nobody waits for the rest of that.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from skytorch import errors

LIMIT_S = 60.0  # a login in a browser included
TOLD_BYTES = 2000  # of what a plugin says as it fails


async def run(plugin: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The `status` that it prints; `plugin` is what the kubeconfig says of it, `place` is for messages."""
    command = [str(plugin.get("command")), *map(str, plugin.get("args") or ())]
    try:
        output = await _output(command, _environment(plugin))
        told = json.loads(output)
        status: dict[str, Any] = told["status"]
        if told["apiVersion"] != plugin["apiVersion"]:
            raise ValueError(f"it speaks {told['apiVersion']}, but the kubeconfig wants {plugin['apiVersion']}")
    except TimeoutError:
        why = f"did not end within {LIMIT_S:g} s"
    except KeyError as error:
        why = f"failed: there is no {error}"
    except (OSError, ValueError, TypeError) as error:
        why = f"failed: {error}"
    else:
        if status.get("token") or (status.get("clientCertificateData") and status.get("clientKeyData")):
            return status
        why = "gave neither a token nor a certificate with its key"
    raise errors.Unauthenticated(
        f"the credential plugin {command[0]!r} of {place} {why}: run `{' '.join(command)}` by hand, and log in if it "
        "asks you to"
    )


def _environment(plugin: Mapping[str, Any]) -> dict[str, str]:
    spec = {"interactive": sys.stdin is not None and sys.stdin.isatty()}
    asked = {"kind": "ExecCredential", "apiVersion": plugin["apiVersion"], "spec": spec}
    own = {entry["name"]: entry["value"] for entry in plugin.get("env") or ()}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": json.dumps(asked)}


async def _output(command: list[str], environment: dict[str, str]) -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(LIMIT_S):
            output, complaint = await process.communicate()
    finally:
        process._transport.close()  # type: ignore[attr-defined]  # kills it if it runs, and closes its pipes
        await process.wait()
    if process.returncode != 0:
        said = complaint.decode(errors="replace").strip()[-TOLD_BYTES:]
        raise ValueError(f"exit code {process.returncode}{': ' if said else ''}{said}")
    return output
