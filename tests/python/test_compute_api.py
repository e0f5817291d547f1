"""The calls of `skytorch.client` that need no server: what is exported, what is refused and in which words."""

from __future__ import annotations

import asyncio
import inspect
import logging
import threading
from datetime import UTC, datetime

import pytest
import skytorch.client
from skytorch import errors
from skytorch.client import Cluster, Compute, Metric, MetricsSnapshot, _threads, compute, log_event
from skytorch.client._events import SafeCallback
from skytorch.client._link import _choose
from skytorch.client._quantity import check_quantity
from skytorch.client._resource import Metadata, Resource
from skytorch.providers import Cancel, Condition, Event


def test_exports_are_exact():
    own = {"Cluster", "Compute", "Metric", "MetricsSnapshot", "compute", "init", "log_event"}
    assert sorted(skytorch.client.__all__) == sorted(own | set(errors.__all__))
    assert sorted(skytorch.__all__) == sorted({"__version__", *errors.__all__})
    for module in (skytorch, skytorch.client):
        for name in errors.__all__:
            assert getattr(module, name) is getattr(errors, name)
        assert not [name for name in module.__all__ if not hasattr(module, name)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"image": ""}, "image:"),
        ({"image": "a b"}, "image:"),
        ({"command": "ls"}, "command:"),
        ({"args": [1]}, "args:"),
        ({"env": {"A": 1}}, r"env\['A'\]"),
        ({"env": {"A=B": "1"}}, "env:"),
        ({"env": ["A"]}, "env:"),
        ({"resources": {"cpu": "many"}}, r"resources\['cpu'\]"),
        ({"resources": {"memory": "8GiB"}}, r"resources\['memory'\]"),
        ({"resources": {"memory": "-1"}}, r"resources\['memory'\]"),
        ({"resources": {"a b": "1"}}, "resources:"),
        ({"labels": {"a": "x y"}}, r"labels\['a'\]"),
        ({"labels": {"/a": "x"}}, "labels:"),
        ({"annotations": {"a": 1}}, r"annotations\['a'\]"),
        ({"suspend": 1}, "suspend:"),
        ({"adopt": "yes"}, "adopt:"),
        ({"volumes": {"name": "a"}}, "volumes:"),
        ({"volumes": [{"name": "a", "storage": "1Gi"}]}, r"volumes\[0\].path"),
        ({"volumes": [{"name": "a", "storage": "1Gi", "path": "/a", "size": 1}]}, r"volumes\[0\].size"),
        ({"volumes": [{"name": "A", "storage": "1Gi", "path": "/a"}]}, r"volumes\[0\].name"),
        ({"volumes": [{"name": "a", "storage": "big", "path": "/a"}]}, r"volumes\[0\].storage"),
        ({"volumes": [{"name": "a", "storage": "1Gi", "path": "a"}]}, r"volumes\[0\].path"),
        ({"volumes": [{"name": "a", "storage": "1Gi", "path": "/a", "access_modes": ["All"]}]}, "access_modes"),
        ({"override": []}, "override:"),
        ({"idle_timeout": 0}, "idle_timeout:"),
        ({"idle_timeout": float("inf")}, "idle_timeout:"),
        ({"timeout": "5"}, "timeout:"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy:"),
        ({"provider": "docker"}, "provider:"),
        ({"on_events": 3}, "on_events:"),
        ({"on_metrics": "x"}, "on_metrics:"),
        ({"resource": {}}, "resource: unknown keyword, did you mean 'resources'"),
        ({"gpus": 1}, "gpus: unknown keyword"),
    ],
)
def test_wrong_options_raise_at_the_call_and_name_the_field(options, words):
    with pytest.raises(errors.InvalidArgument, match=words):
        Compute("good", **options)
    with pytest.raises(errors.InvalidArgument, match=words):
        compute("good", **options)


@pytest.mark.parametrize("name", ["", "A", "-a", "a-", "a_b", "a.b", "x" * 64, None, 3])
def test_wrong_names_raise(name):
    with pytest.raises(errors.InvalidArgument, match="name:"):
        Compute(name)


def test_unknown_keyword_is_a_type_error_too():
    with pytest.raises(TypeError):
        Compute("good", gpus=1)


def test_options_that_are_right():
    node = Compute(
        "good",
        image="ghcr.io/skytorch/skytorch-server:latest",
        command=["a"],
        args=["b"],
        env={"K": "v"},
        resources={"cpu": "1", "memory": "8Gi", "nvidia.com/gpu": "1"},
        labels={"team": "a"},
        annotations={"example.com/note": "any text at all"},
        volumes=[
            {
                "name": "cache",
                "storage": "20Gi",
                "path": "/cache",
                "storage_class": None,
                "access_modes": ["ReadWriteOnce"],
            }
        ],
        override={"spec": {}},
        idle_timeout=60,
        image_pull_policy="Always",
        timeout=10.5,
        on_events=log_event,
        on_metrics=print,
    )
    assert node.resource is None
    assert not node.is_ready()
    assert repr(node) == "<Compute 'good': not applied>"


def test_unused_compute_says_how_to_use_it():
    node = Compute("good")
    for call in (node.device, node.devices, node.stats, node.metrics, node.logs):
        with pytest.raises(errors.SessionClosed, match="async with"):
            call()


def test_compute_without_parentheses_says_what_to_write():
    with pytest.raises(TypeError, match=r'@compute\("train-model"\)'):

        @compute
        def train_model(node):
            """Never runs."""


def test_decorated_functions_keep_their_kind_and_name():
    @compute("good")
    async def one(node):
        """Doc."""

    @compute("good")
    def two(node):
        """Doc."""

    assert inspect.iscoroutinefunction(one)
    assert not inspect.iscoroutinefunction(two)
    assert (one.__name__, one.__doc__) == ("one", "Doc.")


def test_with_inside_a_running_loop_says_to_use_async_with():
    async def main():
        with pytest.raises(RuntimeError, match="async with Compute"), Compute("good"):
            pass
        with pytest.raises(RuntimeError, match="async with Cluster"), Cluster(Compute("good")):
            pass

    asyncio.run(main())


def test_cluster_is_a_sequence_and_refuses_one_name_twice():
    a, b = Compute("a"), Compute("b")
    cluster = Cluster(a, b)
    assert len(cluster) == 2
    assert list(cluster) == [a, b]
    assert cluster[1] is b
    assert not cluster.is_ready()
    with pytest.raises(errors.InvalidArgument, match="'a'"):
        Cluster(a, Compute("a"))


@pytest.mark.parametrize(
    ("asked", "number"),
    [
        ((None, None), 1),
        (("cpu", None), 0),
        (("cuda", None), 1),
        (("cuda:1", None), 2),
        (("cuda", 1), 2),
        ((("cuda", 1), None), 2),
        ((None, 1), 2),
    ],
)
def test_devices_are_found_by_every_spelling(asked, number):
    assert _choose(["cpu", "cuda:0", "cuda:1"], *asked, "node") == number


def test_a_device_that_is_not_there_names_those_that_are():
    for asked in (("cuda:2", None), ("cuda", 2), ("mps", None)):
        with pytest.raises(errors.DeviceNotFound, match="cpu, cuda:0, cuda:1"):
            _choose(["cpu", "cuda:0", "cuda:1"], *asked, "node")
    assert _choose(["cpu"], None, None, "node") == 0


@pytest.mark.parametrize("value", ["1", "500m", "8Gi", "1.5k", "2e3", "1E", ".5", 2, 0.5])
def test_quantities(value):
    assert check_quantity(value, "resources['cpu']") == str(value)


def test_conditions_replace_their_like_and_keep_their_time():
    resource = Resource(metadata=Metadata(name="a"), spec={})
    first = resource.with_condition(Condition(type="Ready", status="False", reason="Starting"))
    second = first.with_condition(Condition(type="Ready", status="False", reason="Connecting"))
    third = second.with_condition(Condition(type="Ready", status="True", reason="Connected"))
    assert resource.status.conditions == ()
    assert [c.reason for c in third.status.conditions] == ["Connected"]
    assert second.condition("Ready").last_transition_time == first.condition("Ready").last_transition_time
    assert third.condition("Ready").last_transition_time >= first.condition("Ready").last_transition_time


def test_log_event_uses_the_level_of_the_event(caplog):
    caplog.set_level(logging.INFO, logger="skytorch")
    log_event(Event(reason="Started", message="listens", name="a"))
    log_event(Event(reason="BackOff", message="again", type="Warning", count=3, name="a"))
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        ("INFO", "a: Started: listens"),
        ("WARNING", "a: BackOff: again (x3)"),
    ]


def test_a_callback_that_raises_is_logged_once(caplog):
    calls = []

    def callback(value):
        calls.append(value)
        raise ValueError("no")

    safe = SafeCallback(callback, keyword="on_events", compute="a")
    safe(1)
    safe(2)
    assert calls == [1, 2]
    assert len(caplog.records) == 1


def test_a_snapshot_reads_as_one_line_a_device():
    rows = [
        ("cpu.utilization", 12.5, "percent", {}),
        ("memory.used", 2.0**30, "bytes", {}),
        ("ops.executed", 1234.0, "count", {}),
        ("bytes.received", 2048.0, "bytes", {}),
        ("gpu.utilization.compute", 90.0, "percent", {"device": "cuda:0"}),
        ("gpu.memory.used", 2.0**30, "bytes", {"device": "cuda:0"}),
        ("gpu.memory.total", 2.0**31, "bytes", {"device": "cuda:0"}),
        ("gpu.temperature", 50.0, "celsius", {"device": "cuda:0"}),
    ]
    snapshot = MetricsSnapshot.of("node", 0.0, rows)
    assert snapshot.timestamp == datetime(1970, 1, 1, tzinfo=UTC)
    assert snapshot.metrics[0] == Metric(name="cpu.utilization", value=12.5, unit="percent", labels={})
    assert str(snapshot).splitlines() == [
        "node cpu:  12.5 % cpu, 1.00 GiB memory, 1,234 ops, 2.0 KiB in",
        "node cuda:0: 90 % busy, 1.0/2.0 GiB, 50 C",
    ]


def test_run_leaves_the_loop_free_and_passes_errors_on():
    async def main():
        loop_thread = threading.get_ident()
        assert await _threads.run(lambda cancel: threading.get_ident(), name="t") != loop_thread
        with pytest.raises(errors.ComputeFailed, match="why"):
            await _threads.run(lambda cancel: raise_(errors.ComputeFailed("why")), name="t")

    asyncio.run(main())


def test_a_cancelled_run_waits_until_the_work_has_cleaned_up():
    cleaned = []

    def work(cancel: Cancel) -> None:
        stop = threading.Event()
        cancel.when_requested(stop.set)
        started.set()
        stop.wait()
        cleaned.append(True)

    started = threading.Event()

    async def main():
        task = asyncio.ensure_future(_threads.run(work, name="t"))
        await asyncio.get_running_loop().run_in_executor(None, started.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cleaned == [True]

    asyncio.run(main())


def test_iterate_yields_in_order_and_passes_errors_on():
    def numbers():
        yield from range(3)
        raise errors.ConnectionLost("gone")

    async def main():
        seen = []

        async def read():
            async for number in _threads.iterate(numbers, name="t"):
                seen.append(number)

        with pytest.raises(errors.ConnectionLost):
            await read()
        assert seen == [0, 1, 2]

    asyncio.run(main())


def raise_(error: Exception) -> None:
    raise error
