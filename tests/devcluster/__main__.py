"""`python tests/devcluster`: a real Kubernetes control plane on this machine, in a network namespace of its own.

    build                                     the binaries, into the cache
    up                                        until Ctrl-C, for hands-on work
    run [--no-operator] -- COMMAND...         for one command, whose exit code it returns

It is no cluster to rely on: pods are processes of this machine, all root, without cgroups. Several may run at once.
Where Linux allows no namespaces it says so and exits with 1: there is nothing to fall back to.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from binaries import BuildError, build
from namespaces import NotAllowed, enter

if TYPE_CHECKING:
    from cluster import Cluster

CHECKOUT = Path(__file__).resolve().parents[2]
COMMAND_STOP_S = 20.0


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests/devcluster", description="A real Kubernetes control plane.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("build", help="build the binaries into the cache")
    for name, text in (("up", "run until Ctrl-C"), ("run", "run for one command")):
        verb = verbs.add_parser(name, help=text)
        verb.add_argument("--no-operator", action="store_true", help="install neither the CRD nor the operator")
        verb.add_argument("--logs", type=Path, metavar="FOLDER", help="where the logs of the control plane go")
        verb.add_argument(
            "--backoff", type=float, default=1.0, metavar="S", help="of a crash loop (default: %(default)s)"
        )
        verb.add_argument(
            "--backoff-max", type=float, default=4.0, metavar="S", help="at most (default: %(default)s)"
        )
        checkout = Path(os.environ.get("SKYTORCH_CHECKOUT", CHECKOUT))
        whose = "whose server, operator and manifests (default: this one)"
        verb.add_argument("--checkout", type=Path, default=checkout, metavar="FOLDER", help=whose)
    verb.add_argument("command", nargs="+", metavar="COMMAND")
    given = parser.parse_args()
    try:
        binaries = build()
        if given.verb == "build":
            return 0
        from cluster import Cluster  # wants the tests' environment, which need not be there for a build

        started = time.monotonic()
        logs = given.logs.absolute() if given.logs is not None else None
        outside = enter()
        cluster = Cluster(binaries, given.checkout.absolute(), logs, given.backoff, given.backoff_max)
        return _use(cluster, given, started, outside)
    except (BuildError, RuntimeError) as error:
        print(f"devcluster: {error}", file=sys.stderr)
    except NotAllowed as error:
        print(f"devcluster: this machine allows no namespaces, which it needs ({error})", file=sys.stderr)
        print("run it as root, or allow users theirs: sysctl kernel.unprivileged_userns_clone=1", file=sys.stderr)
    return 1


def _use(cluster: Cluster, given: argparse.Namespace, started: float, outside: int) -> int:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    deploy = given.checkout / "deploy"
    resources = deploy / "crd/compute.skytorch.dev_computes.yaml"
    operator = not given.no_operator and resources.is_file()
    try:
        cluster.start(resources if operator else None)
        print(f"devcluster: up in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        if operator:
            cluster.kubectl("apply", "--server-side", "-k", str(deploy / "kustomize/overlays/test"))
        elif not given.no_operator:
            print(f"devcluster: no operator: {resources} is not there", file=sys.stderr)
        return _run(cluster, given.command) if given.verb == "run" else _stay(cluster, outside)
    finally:
        cluster.stop()


def _end(number: int, _: object) -> None:
    """Once: a terminal's Ctrl-C arrives here twice, from it and from the process outside."""
    for other in (signal.SIGINT, signal.SIGTERM):
        signal.signal(other, signal.SIG_IGN)
    sys.exit(128 + number)


def _run(cluster: Cluster, command: list[str]) -> int:
    # From here Ctrl-C is for the command, which gets it from the terminal. Not SIG_IGN: that it would inherit.
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        process = subprocess.Popen(command, env={**os.environ, **cluster.environment()})
    except OSError as error:
        raise RuntimeError(f"{command[0]}: {error.strerror}") from None
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(COMMAND_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
    return code if code >= 0 else 128 - code


def _stay(cluster: Cluster, outside: int) -> int:
    # Not through _end: this is how it is meant to end.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    shell = shlex.join(["nsenter", "--target", str(outside), "--net", "--mount", "--pid"])
    variables = " ".join(f"{name}={shlex.quote(value)}" for name, value in cluster.environment().items())
    print(f"kubeconfig: {cluster.kubeconfig} (inside the namespaces)")
    print(f"enter with: {shell} env {variables} bash")
    print("Ctrl-C ends it", flush=True)
    signal.sigwait(ends)
    return 0


if __name__ == "__main__":
    sys.exit(main())
