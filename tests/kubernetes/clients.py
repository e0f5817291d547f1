"""Client programs for the tests: processes of their own that say what they do, and what a Compute leaves behind.

They speak through their standard output, one word a line, so a test waits for a line and not for a time.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from servers import environment
from skytorch.providers import Placement, settings

STUB = "skytorch-test/stub:v1"
OWNED = "statefulsets,pods,services,secrets,persistentvolumeclaims,serviceaccounts,networkpolicies"


class Program:
    """A running Python program."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def expect(self, word: str) -> str:
        """Read on until a line begins with the word; the rest of that line."""
        for line in self.process.stdout:
            self.said.append(line.rstrip())
            if line.startswith(word):
                return line[len(word) :].strip()
        raise AssertionError(
            f"the program ended with {self.process.wait()} before {word!r}:\n" + "\n".join(self.said)
        )

    def end(self, timeout_s: float = 60) -> int:
        """Wait for its end; the exit code."""
        self.said += self.process.communicate(timeout=timeout_s)[0].splitlines()
        return self.process.returncode


@contextmanager
def program(code: str, **env: str) -> Iterator[Program]:
    """Start a program; it is killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", code], env=environment(**env), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield Program(process)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def stub(name: str, **keywords):
    """A provider whose server speaks only health, and the resources that it has told."""
    told: queue.Queue = queue.Queue()
    placement = Placement(name=name, image=STUB, **keywords)
    made = settings.make(None, placement, on_event=lambda e: None, on_condition=lambda c: None, on_resource=told.put)
    return made, told


def owned(cluster, namespace: str, name: str) -> list[str]:
    """What there is of a Compute: itself, its Lease, and everything that carries its label."""
    found = cluster.kubectl(
        "get", OWNED, "-n", namespace, "-l", f"compute.skytorch.dev/name={name}", "-o", "name", "--ignore-not-found"
    ).split()
    for kind, one in (("compute", name), ("lease", f"skytorch-{name}")):
        found += cluster.kubectl("get", kind, one, "-n", namespace, "-o", "name", "--ignore-not-found").split()
    return found


def gone_within(cluster, namespace: str, name: str, timeout_s: float) -> float:
    """Wait until nothing of a Compute is left; how long that took."""
    started = time.monotonic()
    while found := owned(cluster, namespace, name):
        assert time.monotonic() - started < timeout_s, f"after {timeout_s:g} s there is still {', '.join(found)}"
        cluster.run("wait", "--for=delete", found[0], "-n", namespace, f"--timeout={timeout_s:g}s")
    return time.monotonic() - started


def wait_for_values(device) -> None:
    """Work on a device and wait for each value, for ever: until something raises."""
    import torch

    while True:
        torch.ones(2, device=device).sum().item()


def until(holds: Callable[[], object], what: str, timeout_s: float = 30) -> None:
    """For what has no watch of its own."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s: {what}"
        time.sleep(0.05)
