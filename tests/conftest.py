"""Options and fixtures that every kind of test shares: which device the torch programs run on, and servers to run on.

`--device cpu` runs the torch programs against themselves, without SkyTorch: it proves the tests, not the device. The
default is `sky`, on a server that the `local` provider starts once and that is replaced if a test has killed it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))  # servers.py, for every folder below


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", choices=("sky", "cpu"), default="sky", help="cpu: stand-in, without SkyTorch")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "remote: about the remote device itself; there is nothing to run on a cpu")
    if hasattr(config, "workerinput"):  # tests beside these take the same names for their Computes
        folder = tempfile.mkdtemp(prefix="skytorch-tests-")
        os.environ["XDG_RUNTIME_DIR"] = folder
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
    # A shell starts what it puts into the background with these ignored; then no test could press Ctrl-C.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
        (signal.SIGQUIT, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are about the remote device itself have nothing to run on with the stand-in."""
    if config.getoption("--device") == "cpu":
        for item in items:
            if item.get_closest_marker("remote"):
                item.add_marker(pytest.mark.skip(reason="about the remote device itself; --device cpu has none"))


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Says a measured figure at the end of the run, wherever the test ran."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures = [
        (report.nodeid, text)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, text in report.user_properties
        if name == "figure" and report.when == "call"
    ]
    if figures:
        terminalreporter.section("figures")
    for test, text in figures:
        terminalreporter.line(f"{test.rpartition('/')[2]}: {text}")


class SharedServer:
    """One local server for the whole run, opened at first use. A test that needs to harm a server opens its own."""

    def __init__(self) -> None:
        self._open = None

    def compute(self):
        if self._open is not None and not self._open.is_ready():
            self.close()
        if self._open is None:
            from skytorch.client import Compute

            self._open = Compute(f"tests-{os.getpid()}", provider="local").__enter__()
        return self._open

    def close(self) -> None:
        compute, self._open = self._open, None
        if compute is not None:
            compute.__exit__(None, None, None)


@pytest.fixture(scope="session")
def shared_server() -> Iterator[SharedServer]:
    server = SharedServer()
    yield server
    server.close()


@pytest.fixture
def compute(shared_server: SharedServer):
    """The shared Compute. Whatever poison a test leaves is raised in that test, not in the next one."""
    compute = shared_server.compute()
    yield compute
    if compute.is_ready():
        import torch

        torch.sky.synchronize(compute.device())


@pytest.fixture
def device(request: pytest.FixtureRequest):
    """The device under test: `sky` on the shared server, or `cpu` with `--device cpu`."""
    import torch

    if request.config.getoption("--device") == "cpu":
        return torch.device("cpu")
    return request.getfixturevalue("compute").device()
