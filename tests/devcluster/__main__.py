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

from binaries import BuildError, build
from cluster import Cluster
from namespaces import NotAllowed, enter

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
    # Until the cluster is up, both end it; then Ctrl-C is for the command alone.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    deploy = given.checkout / "deploy"
    resources = deploy / "crd/compute.skytorch.dev_computes.yaml"
    operator = not given.no_operator and resources.is_file()
    try:
        cluster.start(resources if operator else None)
        print(f"devcluster: up in {time.monotonic() - started:.1f} s", file=sys.stderr, flush=True)
        overlay = deploy / "kustomize/overlays/test"
        if operator and overlay.is_dir():
            cluster.kubectl("apply", "--server-side", "-k", str(overlay))
        elif not given.no_operator:
            print(f"devcluster: no operator: {overlay} is not there", file=sys.stderr)
        return _run(cluster, given.command) if given.verb == "run" else _stay(cluster, outside)
    except KeyboardInterrupt:
        return 130
    finally:
        cluster.stop()


def _run(cluster: Cluster, command: list[str]) -> int:
    signal.signal(signal.SIGINT, lambda *_: None)  # not SIG_IGN, which the command would inherit
    process = subprocess.Popen(command, env={**os.environ, **cluster.environment()})
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
    shell = shlex.join(["nsenter", "--target", str(outside), "--net", "--mount", "--pid"])
    variables = " ".join(
        f"{name}={shlex.quote(value)}" for name, value in cluster.environment().items() if name != "PATH"
    )
    print(f"kubeconfig: {cluster.kubeconfig} (inside the namespaces)")
    print(f"enter with: {shell} env {variables} bash")
    print("Ctrl-C ends it", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    sys.exit(main())
