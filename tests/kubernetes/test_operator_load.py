"""Two hundred Computes at once, one operator. Prints what they cost it and the API server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from operator_process import USER, Namespace, alone, compute, condition, eventually, operator

COUNT = 200
OURS = "-lapp.kubernetes.io/managed-by=skytorch-operator"


@pytest.mark.alone
def test_two_hundred_at_once(cluster: Any, namespace: str, figure: Callable[[str], None]) -> None:
    space = Namespace(cluster, namespace)
    names = {f"c{number:03}" for number in range(COUNT)}
    # One in twenty is bad, and delays nobody.
    bad = {name for name in names if int(name[1:]) % 20 == 7}
    resources = [
        compute(name, image="registry.example/no-such:v1") if name in bad else compute(name) for name in sorted(names)
    ]
    with alone(cluster), operator(cluster) as process:
        empty, _ = process.memory_mib()
        asked = len(list(cluster.audit(USER)))
        begun = time.monotonic()
        space.create_at_once(resources)
        applied = time.monotonic() - begun
        final: dict[str, float] = {}
        for change, found in space.changes("computes.compute.skytorch.dev", 280):
            name = found["metadata"]["name"]
            ready, progressing = condition(found, "Ready"), condition(found, "Progressing")
            done = ready.get("status") == "True" or progressing.get("status") == "False"
            if change != "DELETED" and done and name not in final:
                final[name] = time.monotonic() - begun
                assert (ready["reason"] == "ErrImagePull") == (name in bad), ready
            if len(final) == COUNT:
                break
        took = time.monotonic() - begun
        now, peak = process.memory_mib()
        calls = Counter(
            f"{event['verb']} {event['objectRef']['resource']}" for event in list(cluster.audit(USER))[asked:]
        )
        figure(f"{COUNT} Computes: made in {applied:.1f} s, all in their final state after {took:.1f} s")
        figure(f"memory: {empty:.0f} MiB before, {now:.0f} MiB after, {peak:.0f} MiB at most")
        figure(f"computed: {process.cpu_s():.1f} s of one core")
        figure(f"requests for each Compute: {sum(calls.values()) / COUNT:.1f} in all")
        figure(", ".join(f"{what} {count / COUNT:.2f}" for what, count in calls.most_common()))
        assert sum(calls.values()) / COUNT < 20
        assert peak < 200
        begun = time.monotonic()
        space.kubectl("delete", "computes", "--all", "--wait=false")
        eventually(lambda: not space.kubectl("get", "pod,secret,service", "-o", "name", OURS), "nothing is left", 120)
        figure(f"all deleted after {time.monotonic() - begun:.1f} s")
