"""The port-forward tunnel: the same numbers through the API server, what it costs, and what a cut of it means."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from clients import gone_within, stub, until, wait_for_values
from rich.console import Console
from skytorch import errors
from skytorch.client import Compute
from skytorch.providers import Cancel

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
TRIPS = 200


@pytest.fixture
def _through_the_api_server(monkeypatch):
    monkeypatch.setenv("SKYTORCH_ROUTE", "tunnel")


def round_trip_us(node: Compute) -> float:
    x = torch.ones((), device=node.device())
    x.item()
    started = time.perf_counter()
    for _ in range(TRIPS):
        x.item()
    return (time.perf_counter() - started) / TRIPS * 1e6


def bandwidth_mib_s(node: Compute) -> float:
    host = torch.ones(8 << 20)  # 32 MiB
    host.to(node.device())[0].item()
    started = time.perf_counter()
    host.to(node.device())[0].item()
    return 32 / (time.perf_counter() - started)


@pytest.mark.alone
def test_the_digits_come_out_the_same_and_the_overhead_is_known(cluster, here, monkeypatch, caplog, figure):
    from train_digits import train

    caplog.set_level(logging.INFO, logger="skytorch")
    figures = {}
    for route in ("direct", "tunnel"):
        monkeypatch.setenv("SKYTORCH_ROUTE", route)
        with Compute(f"digits-{route}", timeout=60) as node:
            result = train(node.device(), 2, 64, route, Console(quiet=True))
            figures[route] = (result, round_trip_us(node), bandwidth_mib_s(node))
    direct, tunnel = figures["direct"], figures["tunnel"]
    for route, (result, us, mib_s) in figures.items():
        figure(
            f"{route}: loss {result.loss!r}, accuracy {result.accuracy:.4f}, {result.steps_per_s:.1f} steps/s, "
            f"round trip {us:.0f} us, upload {mib_s:.0f} MiB/s"
        )
    assert (direct[0].loss, direct[0].accuracy) == (tunnel[0].loss, tunnel[0].accuracy)
    told = [record.getMessage() for record in caplog.records if "tunnel" in record.getMessage()]
    assert len([line for line in told if "through a port-forward tunnel" in line]) == 1, told


@pytest.mark.usefixtures("_through_the_api_server")
def test_a_cut_tunnel_is_opened_again_and_the_session_goes_on(cluster, here, caplog):
    caplog.set_level(logging.INFO, logger="skytorch")
    snapshots = []
    with Compute("cut", timeout=60, on_metrics=snapshots.append) as node:
        x = torch.zeros(4, device=node.device())
        y = torch.ones(4, device=node.device())
        for step in range(200):
            x += y
            if step == 100:
                assert x[0].item() == 101
                cluster.restart("apiserver")
        assert x.tolist() == [200.0] * 4
        assert node.is_ready()
        seen = len(snapshots)
        until(lambda: len(snapshots) > seen, "measurements again")
        assert "the tunnel is open again" in caplog.text
    gone_within(cluster, here, "cut", 10)


@pytest.mark.usefixtures("_through_the_api_server")
def test_a_killed_pod_behind_a_tunnel_is_a_lost_connection_soon(cluster, here):
    with Compute("killed", timeout=60) as node:
        x = torch.ones(4, device=node.device())
        assert x.sum().item() == 4
        os.kill(cluster.process_of(here, "killed-0"), signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(errors.ConnectionLost, match=r"compute 'killed': .*pod killed-0"):
            wait_for_values(node.device())
        assert time.monotonic() - started < 10
    gone_within(cluster, here, "killed", 10)


def test_the_tunnel_is_chosen_where_no_address_leads_to_the_server(cluster, here, caplog):
    """Nobody listens at a stub's session port, so its cluster address refuses as one out of reach does."""
    caplog.set_level(logging.INFO, logger="skytorch")
    provider, _ = stub("hidden")
    endpoint = provider.start(timeout_s=60, cancel=Cancel())
    provider.delete(grace_period_s=5)
    assert endpoint.address.startswith("tls://127.0.0.1:")
    assert endpoint.peer_address.startswith("tls://10.")
    told = [record.getMessage() for record in caplog.records if "tunnel" in record.getMessage()]
    assert len(told) == 1
    assert "its own address cannot be reached from here" in told[0]


def test_a_cut_does_not_hold_up_the_control_loop(cluster, here, monkeypatch, caplog):
    """Making a ConnectionLost waits for the news of why, which only this loop brings: it makes none."""
    caplog.set_level(logging.INFO, logger="skytorch")
    made_on = []
    monkeypatch.setattr(
        errors.ConnectionLost, "explain", staticmethod(lambda: made_on.append(threading.current_thread().name) or "")
    )
    provider, _ = stub("deaf")
    endpoint = provider.start(timeout_s=60, cancel=Cancel())
    host, _, port = endpoint.address.removeprefix("tls://").rpartition(":")
    with contextlib.suppress(ConnectionResetError), socket.create_connection((host, int(port)), 30) as connection:
        assert connection.recv(1) == b""
    until(lambda: "the tunnel was cut" in caplog.text, "the cut")
    provider.delete(grace_period_s=5)
    assert "refused" in caplog.text  # the pod's answer, on the channel of errors
    assert made_on == []
