"""The folder of a local Compute: its socket, token, events, and the claim on its name.

`<runtime folder>/skytorch-<uid>/<name>/`, mode 0700, so that only this user can reach the socket. `skytorch ls`,
`logs` and `top` find live Computes of other processes through it. A name is held by a POSIX lock on the file
`lock`: the kernel gives it back however its holder ends, and a forked child does not inherit it. The subtle thing:
`adopt` moves the old folder aside, so a former holder checks the lock's inode before it removes anything.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import secrets
import select
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar

from skytorch import errors
from skytorch.providers._protocol import Endpoint, Event

logger = logging.getLogger("skytorch")

MAX_SOCKET_PATH_BYTES = 107


@dataclass(frozen=True, kw_only=True)
class Live:
    """A local Compute that some process of this user has running."""

    name: str
    holder_pid: int
    server_pid: int | None
    address: str | None
    started_unix: float
    path: Path

    def endpoint(self) -> Endpoint:
        """How to reach its server."""
        if self.address is None:
            raise errors.ComputeFailed(f"compute {self.name!r} has no running server (it is starting or suspended)")
        return Endpoint(address=self.address, token=self.path / "token")


def root() -> Path:
    """The user's folder for live Computes, made if need be and refused if it is not safely ours."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not (base and os.path.isdir(base) and os.access(base, os.W_OK)):
        base = tempfile.gettempdir()
    folder = Path(base) / f"skytorch-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077 or folder.is_symlink():
        raise errors.ComputeFailed(f"{folder} must be a folder of yours with mode 0700: remove it or mend its mode")
    return folder


class RunDir:
    """A claimed name and its folder."""

    # POSIX locks do not conflict inside one process, so what this one holds is written down: folder -> process.
    # Closing any descriptor of a lock file gives the lock up, so none is opened for a folder that stands here.
    _held: ClassVar[dict[Path, int]] = {}
    _held_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, name: str, path: Path, lock_fd: int) -> None:
        self.name = name
        self.path = path
        self._lock_fd = lock_fd
        self._pid = os.getpid()
        self._started_unix = time.time()
        self.token_file = path / "token"
        self._socket_dir: Path | None = None

    @classmethod
    def claim(cls, name: str, *, adopt: bool) -> RunDir:
        """Take the name, or raise naming who holds it; `adopt` ends the holder's server and takes it over."""
        path = root() / name
        with cls._held_lock:
            _sweep()
            for _ in range(2):
                path.mkdir(mode=0o700, exist_ok=True)
                if not cls.held_here(path):
                    lock_fd = os.open(path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                    if _try_lock(lock_fd):
                        for leftover in path.iterdir():
                            if leftover.name != "lock":
                                leftover.unlink(missing_ok=True)
                        cls._held[path] = os.getpid()
                        return cls(name, path, lock_fd)
                    os.close(lock_fd)
                holder = _read(path)
                if not adopt:
                    raise errors.InvalidArgument(
                        f"name: compute {name!r} is held by {_holder(holder)}; adopt=True takes it over"
                    )
                _end_server(holder)
                aside = path.rename(path.with_name(f".adopted-{name}-{secrets.token_hex(4)}"))
                shutil.rmtree(aside, ignore_errors=True)
                cls._held.pop(path, None)
        raise errors.ComputeFailed(f"compute {name!r} could not be taken over: another process took it first")

    @classmethod
    def held_here(cls, path: Path) -> bool:
        """Whether this process holds the folder's name."""
        return cls._held.get(path) == os.getpid()

    def socket_path(self) -> Path:
        """Where the server listens: in the folder, or in a shorter one of its own if the path were too long."""
        path = self.path / "server.sock"
        if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
            self._socket_dir = self._socket_dir or Path(tempfile.mkdtemp(prefix="skytorch-", dir="/tmp"))
            path = self._socket_dir / "server.sock"
        path.unlink(missing_ok=True)
        return path

    def write_token(self) -> str:
        """Make a new token, readable by this user only."""
        token = secrets.token_urlsafe(32)
        with self._writing(self.token_file):
            descriptor = os.open(self.token_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(token)
        return token

    def write_info(self, *, server_pid: int | None, address: str | None) -> None:
        """Record who holds the name and where the server is; nothing if another client has taken the name over."""
        if not self._ours():
            return
        info = {
            "holder_pid": self._pid,
            "server_pid": server_pid,
            "address": address,
            "started_unix": self._started_unix,
        }
        path = self.path / "info.json"
        with self._writing(path):
            temporary = self.path / ".info.json"
            temporary.write_text(json.dumps(info))
            temporary.replace(path)

    def forget_server(self) -> None:
        """Record that the server has ended; where that cannot be written, what stays names a dead process."""
        try:
            self.write_info(server_pid=None, address=None)
        except errors.ComputeFailed as trouble:
            logger.warning("%s", trouble)

    def append_event(self, event: Event) -> None:
        """Keep the event for `skytorch events`; the client's own callbacks have it also where this fails."""
        if not self._ours():
            return
        try:
            with self._writing(self.path / "events"), (self.path / "events").open("a") as file:
                file.write(json.dumps(asdict(event), default=str) + "\n")
        except errors.ComputeFailed as trouble:
            logger.warning("%s", trouble)

    def release(self) -> None:
        """Free the name and remove the folder, unless another client has adopted it or this is a forked child."""
        if os.getpid() != self._pid:
            return
        with self._held_lock:
            if self._ours():
                shutil.rmtree(self.path, ignore_errors=True)
                self._held.pop(self.path, None)
            if self._socket_dir is not None:
                shutil.rmtree(self._socket_dir, ignore_errors=True)
            if self._lock_fd >= 0:
                os.close(self._lock_fd)
                self._lock_fd = -1

    @contextlib.contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise errors.ComputeFailed(
                f"compute {self.name!r}: {path} cannot be written: {error.strerror} (is its disk full?)"
            ) from None

    def _ours(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._lock_fd), os.stat(self.path / "lock"))
        except OSError:
            return False


def live() -> Iterator[Live]:
    """The user's live local Computes, by name."""
    for path in sorted(root().iterdir()):
        if path.name.startswith(".") or not path.is_dir():
            continue
        found = _read(path)
        if found is not None and (RunDir.held_here(path) or _is_locked(path)):
            yield found


def find(name: str) -> Live:
    """The live local Compute of that name."""
    names = []
    for found in live():
        if found.name == name:
            return found
        names.append(found.name)
    raise errors.InvalidArgument(f"no local compute {name!r} is running ({', '.join(names) or 'there is none'})")


def _sweep() -> None:
    """Remove what clients left that could not clean up (SIGKILL): folders without a holder."""
    for path in root().iterdir():
        found = _read(path)
        if found is None or RunDir.held_here(path) or _is_alive(found.holder_pid) or _is_locked(path):
            continue
        shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _read(path: Path) -> Live | None:
    try:
        info = json.loads((path / "info.json").read_text())
        return Live(name=path.name, path=path, **info)
    except (OSError, ValueError, TypeError):
        return None


def _holder(holder: Live | None) -> str:
    if holder is None:
        return "another process that is just starting it"
    age = max(0, int(time.time() - holder.started_unix))
    where = "this process" if holder.holder_pid == os.getpid() else f"process {holder.holder_pid}"
    return f"{where} (for {age} s)"


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _end_server(holder: Live | None) -> None:
    """SIGTERM the holder's server and wait for its end; its own client sees it as a lost connection."""
    if holder is None or holder.server_pid is None:
        return
    end_process(holder.server_pid, grace_period_s=10)


def end_process(pid: int, *, grace_period_s: float) -> None:
    """SIGTERM, then SIGKILL after the grace period; waits for the end by pidfd. A dead process is fine."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        if not select.select([descriptor], [], [], grace_period_s)[0]:
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            select.select([descriptor], [], [], 10)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)
