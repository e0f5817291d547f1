"""The namespaces of Linux that the whole cluster lives in: network, mounts, processes, and users if we are not root.

`enter()` returns in a process inside. The subtle thing: inside, process 1 does nothing but wait; but when it ends,
the kernel kills everything else in the namespace, and mounts and networks go with their last process. It dies with
the process outside, so nothing is left even when that one is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x20000, 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


class NotAllowed(Exception):
    """This machine lets us make no namespace."""


def enter() -> int:
    """Returns in a process inside fresh namespaces; the one that called waits for it, and exits with its code.

    The result is the number that the machine outside knows the namespaces' first process by.
    """
    user, group = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | (CLONE_NEWUSER if user else 0)
    _call("unshare", ctypes.c_int(flags))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    first = os.fork()
    if first:
        sys.exit(_wait(first))
    die_with_parent()
    outside = int(os.readlink("/proc/self"))
    mount("none", "/", None, MS_REC | MS_PRIVATE)
    mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV)
    worker = os.fork()
    if worker:
        os._exit(_wait(worker))
    return outside


def die_with_parent() -> None:
    """The kernel kills this process when the thread that made it ends."""
    _call("prctl", ctypes.c_int(PR_SET_PDEATHSIG), ctypes.c_ulong(signal.SIGKILL))


def mount(source: str, target: str, kind: str | None, flags: int = 0) -> None:
    """mount(2)."""
    _call("mount", source.encode(), target.encode(), kind.encode() if kind else None, ctypes.c_ulong(flags), None)


def _wait(child: int) -> int:
    """Passes signals on to the child, reaps whatever else ends, and returns the child's exit code."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda caught, _: os.kill(child, caught))
    while True:
        ended, status = os.wait()
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        problem = ctypes.get_errno()
        raise NotAllowed(f"{name}: {os.strerror(problem)}")
