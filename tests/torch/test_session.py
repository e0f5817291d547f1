"""Who may connect: one session per server, with the right token, and off this machine only over TLS."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest
import torch
from servers import ROOT, environment, serve

pytestmark = pytest.mark.remote


def connect(name: str, served, *, token: str | None = None):
    """A Compute on a served address; use it as a context manager."""
    from skytorch.client import Compute, init

    init(provider="address", address=served.address, token=served.token if token is None else token)
    return Compute(name, provider="address")


@pytest.fixture(autouse=True)
def default_provider():
    """`init` is process-wide: put the default back."""
    yield
    from skytorch.client import init

    init()


@pytest.fixture(params=["uds", "tcp"], scope="module")
def served(request, tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp(request.param)
    where = (
        ("--uds", str(tmp_path / "sky.sock")) if request.param == "uds" else ("--host", "127.0.0.1", "--port", "0")
    )
    with serve(tmp_path, *where) as server:
        yield server


def test_an_address_with_its_token(served):
    with connect("by-address", served) as node:
        x = torch.arange(6.0, device=node.device()).reshape(2, 3)
        assert (x @ x.T).tolist() == [[5, 14], [14, 50]]
    assert served.process.poll() is None, "leaving an address does not end the server"
    with connect("by-address-again", served) as node:
        assert torch.ones(2, device=node.device()).sum().item() == 2


@pytest.mark.parametrize("token", ["not-the-token", ""])
@pytest.mark.slow
def test_wrong_or_missing_token(served, token):
    import skytorch

    with pytest.raises(skytorch.Unauthenticated, match="token"), connect("intruder", served, token=token):
        pass
    with connect("friend", served) as node:
        assert torch.ones(2, device=node.device()).sum().item() == 2


@pytest.mark.slow
def test_second_session_is_refused(served):
    import skytorch

    with connect("first", served) as node:
        with pytest.raises(skytorch.ServerBusy, match="session"), connect("second", served):
            pass
        assert torch.ones(2, device=node.device()).sum().item() == 2


def test_nobody_listens(tmp_path):
    import skytorch
    from skytorch.client import Compute, init

    init(provider="address", address=f"unix://{tmp_path}/nobody.sock", token="t")
    with pytest.raises(skytorch.Unreachable, match=r"nobody\.sock"):
        Compute("nobody", provider="address").__enter__()


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (("--host", "0.0.0.0", "--port", "0"), "token"),
        (("--host", "0.0.0.0", "--port", "0", "--token-file", "TOKEN"), "TLS|tls"),
    ],
)
def test_serve_refuses_a_non_loopback_address(tmp_path, flags, named):
    token = tmp_path / "token"
    token.write_text("secret")
    flags = [str(token) if flag == "TOKEN" else flag for flag in flags]
    done = subprocess.run(
        [sys.executable, "-m", "skytorch.cli", "serve", *flags],
        env=environment(), capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode != 0
    assert any(word in done.stderr for word in named.split("|")), done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def certificates(tmp_path):
    trustme = pytest.importorskip("trustme", reason="trustme makes the certificates of this test")
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    server.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    with open(tmp_path / "cert.pem", "wb") as file:
        for part in server.cert_chain_pems:
            file.write(part.bytes())
    return tmp_path


@pytest.mark.slow
def test_tls(certificates, monkeypatch):
    import skytorch

    flags = ("--host", "127.0.0.1", "--port", "0")
    flags += ("--tls-cert", str(certificates / "cert.pem"), "--tls-key", str(certificates / "key.pem"))
    with serve(certificates, *flags) as server:
        assert server.address.startswith("tls://")
        monkeypatch.setenv("SKYTORCH_CA_FILE", str(certificates / "ca.pem"))
        with connect("secure", server) as node:
            big = torch.arange(3 * (1 << 20), dtype=torch.float32)
            assert torch.equal(big.to(node.device()).cpu(), big)
        monkeypatch.delenv("SKYTORCH_CA_FILE")
        with pytest.raises(skytorch.SkyTorchError), connect("unknown-authority", server):
            pass


def test_tensors_from_several_threads(device):
    """One session, one order, whichever thread issues: each thread sees its own values."""
    wrong: list[str] = []

    def work(number: int) -> None:
        x = torch.full((4,), float(number), device=device)
        for step in range(200):
            x = x + 1
            if step % 50 == 49 and (got := x.tolist()) != [number + step + 1] * 4:
                wrong.append(f"thread {number}: {got} at step {step}")

    threads = [threading.Thread(target=work, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_context_flags_travel(compute):
    device = compute.device()
    before = torch.are_deterministic_algorithms_enabled()
    try:
        torch.use_deterministic_algorithms(True)
        filled = torch.empty(1000, device=device)  # deterministic mode fills uninitialised memory with NaN
        assert filled.isnan().all().item()
    finally:
        torch.use_deterministic_algorithms(before)


def test_sessions_metrics_and_logs(compute):
    import asyncio

    x = torch.ones(1000, device=compute.device())
    x.sum().item()

    async def first_snapshot():
        async for snapshot in compute.metrics(interval=0.1):
            return snapshot

    snapshot = asyncio.run(asyncio.wait_for(first_snapshot(), 20))
    values = {metric.name: metric.value for metric in snapshot.metrics}
    for name in (
        "cpu.utilization",
        "memory.used",
        "ops.executed",
        "bytes.received",
        "bytes.sent",
        "tensors.resident_bytes",
    ):
        assert name in values, sorted(values)
    assert values["ops.executed"] > 0
    assert values["tensors.resident_bytes"] >= 4000
