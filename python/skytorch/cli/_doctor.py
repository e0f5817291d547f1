"""`skytorch doctor`: checks what a program needs, one line each, and says how to mend what fails."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from skytorch import errors
from skytorch._version import __version__
from skytorch.backend.library import Kind, carried, find
from skytorch.cli._command import cluster_flags, command, use_cluster_flags
from skytorch.cli._finding import Finding
from skytorch.providers import kubernetes, settings
from skytorch.providers.rundir import root


def add(commands: Any) -> None:
    """Declare the command."""
    parser = command(
        commands,
        "doctor",
        help="check the installation and say how to mend what fails",
        examples="""skytorch doctor
            skytorch doctor --start
            skytorch doctor --context lab --namespace research""",
        run=_run,
    )
    cluster_flags(parser)
    parser.add_argument("--start", action="store_true", help="also start a local server and compute something on it")


def _run(given: argparse.Namespace) -> int:
    use_cluster_flags(given)
    failed = 0
    for finding in _findings(given.start):
        failed += finding.ok is False
        mark = {True: "ok  ", False: "FAIL", None: "--  "}[finding.ok]
        print(f"{mark}  {finding.what}")
        if finding.mend and not finding.ok:
            print(f"      {finding.mend}")
    print("all is well" if not failed else f"{failed} of the checks failed")
    return 1 if failed else 0


def _findings(start: bool) -> Iterator[Finding]:
    yield Finding(
        ok=sys.version_info >= (3, 11), what=f"Python {sys.version.split()[0]}", mend="Python 3.11 or newer is needed"
    )
    yield Finding(ok=True, what=f"skytorch {__version__}")
    torch_version = _version("torch")
    yield Finding(
        ok=torch_version is not None, what=f"torch {torch_version or 'is not installed'}", mend="pip install torch"
    )
    if torch_version is not None:
        kinds: tuple[Kind, ...] = ("backend", "server")
        for kind in kinds:
            yield _try(
                partial(_library, kind, torch_version),
                what=f"C++ part ({kind}) for torch {torch_version}; there is {', '.join(carried()) or 'none'}",
                mend="run `skytorch build-backend`",
            )
    yield _try(
        _wire_version,
        what="the Rust module skytorch._wire",
        mend="reinstall skytorch, or run `make wire` in a checkout",
    )
    for package in ("psutil", "rich"):
        found = _version(package)
        yield Finding(ok=found is not None, what=f"{package} {found or 'is missing'}", mend=f"pip install {package}")
    yield _try(
        lambda: f"folder for local Computes: {root()}", what="folder for local Computes", mend="see the message above"
    )
    yield from _provider_findings()
    if start:
        yield _try(_compute_something, what="a local server", mend="its messages above say why")


def _provider_findings() -> Iterator[Finding]:
    try:
        provider = settings.choose(None)
    except errors.SkyTorchError as error:
        yield Finding(ok=False, what=f"provider: {error}", mend="mend SKYTORCH_PROVIDER")
        return
    source = "SKYTORCH_PROVIDER" if os.environ.get("SKYTORCH_PROVIDER") else "what was found here"
    yield Finding(ok=True, what=f"provider: {provider} ({source})")
    if provider != "kubernetes":
        yield Finding(
            ok=None,
            what=f"Kubernetes configuration: {kubernetes.configuration() or 'none'}",
            mend=f"not needed for the provider {provider}",
        )
    if provider == "kubernetes":
        from skytorch.cli._doctor_cluster import findings

        yield from findings()
    if provider == "address":
        yield _try(
            _reach,
            what="the server at SKYTORCH_ADDRESS",
            mend="check the address, SKYTORCH_TOKEN_FILE and SKYTORCH_CA_FILE",
        )


def _try(check: Callable[[], str], *, what: str, mend: str) -> Finding:
    try:
        return Finding(ok=True, what=check())
    except (errors.SkyTorchError, ImportError, OSError, RuntimeError) as error:
        return Finding(ok=False, what=f"{what}: {error}", mend=mend)


def _library(kind: Kind, torch_version: str) -> str:
    return f"C++ part ({kind}): {find(kind, torch_version)}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _wire_version() -> str:
    from skytorch import _wire

    return f"the Rust module {_wire.__file__}"


def _reach() -> str:
    from skytorch import _wire
    from skytorch.providers.address import wire_tls

    endpoint = settings.endpoint()
    free = _wire.check_health(endpoint.address, token=endpoint.token, tls=wire_tls(endpoint.tls))
    return f"the server at {endpoint.address} answers and {'is free' if free else 'has a session'}"


def _compute_something() -> str:
    from skytorch import backend
    from skytorch.client import Compute

    backend.register()
    import torch

    with Compute(f"doctor-{os.getpid()}", provider="local") as compute:
        value = torch.arange(10, device=compute.device()).sum().item()
        devices = ", ".join(compute.devices())
    if value != 45:
        raise errors.InternalError(f"0 + 1 + ... + 9 came out as {value}")
    return f"a local server computed a sum on {devices}"
