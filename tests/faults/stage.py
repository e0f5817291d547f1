"""Servers, proxies and a client process: where one fault is put into one run, and what came of it is judged.

A stage is used for many points, because starting its processes costs seconds. After anything but a survived run it
starts servers anew, and after a bad one the client too, so that points do not depend on each other. What a run may
end as is said here, once: the undisturbed result bit by bit; or, of a session that could not be saved, an error of
ours in time.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from proxy import LINK_FAULTS, Fault, Link, Plan, Proxy, Send, Unit
from servers import ROOT, Served, environment, serve
from workloads import COMPUTES

SILENCE_S = 15  # after which a silent link counts as broken
RESUME_S = 20  # --resume-timeout: longer than a silent link takes to be noticed by the other side
STOP_S = 1.5  # between SIGSTOP and SIGCONT
DEATH_S = 2  # a process that died is an error within
LATE_S = SILENCE_S + RESUME_S + 5  # nothing takes longer than silence, resumption and the run itself
HANG_S = 2 * LATE_S
PROCESSES = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
PROCESS_FAULTS = ("kill server", "kill client", "stop server", "stop client")
FAULTS = (*LINK_FAULTS, "dark", *PROCESS_FAULTS)


@dataclass(frozen=True)
class Point:
    workload: str
    fault: str
    direction: str
    number: int

    def __str__(self) -> str:
        return f"{self.workload}: {self.fault}, message {self.number} {self.direction}"


@dataclass(frozen=True)
class Outcome:
    verdict: str  # survived, refused, wrong, hung, not reached
    seconds: float  # from the fault to the answer
    detail: str = ""

    @property
    def is_good(self) -> bool:
        return self.verdict in ("survived", "refused", "not reached")


class Client:
    """The process of runner.py."""

    def __init__(self, **env: str) -> None:
        path = f"{ROOT / 'tests'}{os.pathsep}{environment()['PYTHONPATH']}"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("runner.py"))],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**environment(**env), "PYTHONPATH": path},
        )  # fmt: skip
        if self._line(120) != "ready":
            raise RuntimeError("the client process did not start; its standard error says why")

    def ask(self, command: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """The answer; `{"lost": ...}` where none comes in time or the process ended."""
        print(json.dumps(command), file=self.process.stdin, flush=True)
        line = self._line(timeout_s)
        if line is None:
            return {"lost": "hung"}
        return json.loads(line) if line else {"lost": f"ended with {self.process.wait()}"}

    def _line(self, timeout_s: float) -> str | None:
        ready, _, _ = select.select([self.process.stdout], [], [], timeout_s)
        return self.process.stdout.readline().strip() if ready else None

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.communicate()


class Stage:
    """`computes` servers, each behind a proxy, and one client. Use as a context manager."""

    def __init__(self, folder: Path, *, computes: int = 1, tls: Path | None = None) -> None:
        self._folder, self._tls = folder, tls
        self._servers: list[tuple[contextlib.ExitStack, Served]] = []
        self._client: Client | None = None
        self._proxies = [Proxy(("127.0.0.1", 1), tls=tls is not None) for _ in range(computes)]
        self._references: dict[str, tuple[str, dict[str, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._take_client_down()
        self._take_servers_down()
        for proxy in self._proxies:
            proxy.close()

    # -- points ----------------------------------------------------------------------------------------------------

    def undisturbed(self, workload: str) -> tuple[str, dict[str, int]]:
        """The digest of an undisturbed run, and how many messages it took each way.

        It is also when the client imports what torch imports at first use: a program that imports notices no fault
        for seconds that are not ours. So a client is kept for as long as its points come to a good end.
        """
        if workload not in self._references:
            plan = Plan()
            answer = self._run(workload, plan)
            if "digest" not in answer:
                raise RuntimeError(f"{workload} fails undisturbed: {answer}")
            self._references[workload] = answer["digest"], dict(plan.seen)
        return self._references[workload]

    def try_point(self, point: Point) -> Outcome:
        expected, _ = self.undisturbed(point.workload)
        plan = Plan(self._fault(point.fault), point.direction, point.number)
        answer = self._run(point.workload, plan)
        outcome = self._judge(point, plan, answer, expected)
        if point.fault == "kill client" and plan.fired_at is not None:
            outcome = self._served_again(point, plan, expected)
        # Killed after the run's last word, a server is dead all the same; in the dark, it has not heard the goodbye.
        if outcome.verdict != "survived" or point.fault in ("kill server", "dark"):
            self._take_servers_down()
        if not outcome.is_good:
            self._take_client_down()
        return outcome

    def _judge(self, point: Point, plan: Plan, answer: dict[str, Any], expected: str) -> Outcome:
        at = answer.get("at", time.monotonic())
        seconds = at - plan.fired_at if plan.fired_at is not None else 0.0
        if "lost" in answer:
            return Outcome("hung" if answer["lost"] == "hung" else "wrong", seconds, f"the client {answer['lost']}")
        if "digest" in answer:
            if answer["digest"] != expected:
                return Outcome("wrong", seconds, "other values than undisturbed")
            if seconds > LATE_S:
                return Outcome("wrong", seconds, "right, but late")
            return Outcome("survived" if plan.fired_at is not None else "not reached", seconds)
        said = f"{answer['error']}: {answer['message']}"
        if not answer["ours"]:
            return Outcome("wrong", seconds, said)
        if point.fault == "kill server":
            in_time = seconds < DEATH_S
            lost = answer["error"] == "ConnectionLost" or not answer["opened"]
            return Outcome("refused" if lost and in_time else "wrong", seconds, said)
        if point.fault == "dark":
            in_time = seconds < SILENCE_S + RESUME_S + 1
            return Outcome("refused" if answer["error"] == "ConnectionLost" and in_time else "wrong", seconds, said)
        # Before there is a session nothing can be lost: an error is as good as a second try.
        return Outcome("wrong" if answer["opened"] else "refused", seconds, said)

    def _served_again(self, point: Point, plan: Plan, expected: str) -> Outcome:
        """A new client gets the server, once it has given the dead one's session up, and the right results."""
        self._take_client_down()
        deadline = time.monotonic() + RESUME_S + 5
        while time.monotonic() < deadline:
            answer = self._run(point.workload, Plan())
            if answer.get("error") != "ServerBusy":
                return self._judge(point, plan, answer, expected)
        return Outcome("wrong", time.monotonic() - plan.fired_at, f"the server is not free again: {answer}")

    # -- faults ----------------------------------------------------------------------------------------------------

    def _fault(self, name: str) -> Fault:
        if name in LINK_FAULTS:
            return LINK_FAULTS[name]
        if name == "dark":
            return self._go_dark
        verb, _, whom = name.partition(" ")

        def on_process(link: Link, unit: Unit, send: Send) -> None:
            number = next(n for n, (_, s) in enumerate(self._servers) if s.address.endswith(f":{link.server_port}"))
            pid = (self._client if whom == "client" else self._servers[number][1]).process.pid
            if name == "kill server":
                self._proxies[number].refuse()
            os.kill(pid, signal.SIGKILL if verb == "kill" else signal.SIGSTOP)
            if verb == "stop":
                threading.Timer(STOP_S, os.kill, (pid, signal.SIGCONT)).start()
            send(unit.data)

        return on_process

    def _go_dark(self, link: Link, unit: Unit, send: Send) -> None:
        """Every connection, those to come too, stays open and passes nothing on."""
        for proxy in self._proxies:
            proxy.dark.set()

    # -- processes -------------------------------------------------------------------------------------------------

    def _run(self, workload: str, plan: Plan) -> dict[str, Any]:
        proxies = self._proxies[: COMPUTES.get(workload, 1)]
        self._bring_up(len(proxies))
        for proxy in proxies:
            proxy.plan = plan
        command = {
            "workload": workload,
            "addresses": [proxy.address for proxy in proxies],
            "token": self._servers[0][1].token,
        }
        answer = self._client.ask(command, HANG_S)
        if answer.get("lost") == "hung":
            for process in (self._client.process, *(served.process for _, served in self._servers)):
                process.send_signal(signal.SIGABRT)  # it says on its standard error where its threads stand
        for proxy in self._proxies:  # darkness is over all of them, whoever took part
            proxy.dark.clear()
            proxy.cut_all()  # a stalled connection of this run is nobody's any more
        return answer

    def _bring_up(self, computes: int) -> None:
        if self._client is None:
            trust = {"SKYTORCH_CA_FILE": str(self._tls / "ca.pem")} if self._tls else {}
            self._client = Client(**PROCESSES, **trust)
        for proxy in self._proxies[len(self._servers) : computes]:
            flags = ["--port", "0"]
            if self._tls:
                flags += ["--tls-cert", str(self._tls / "cert.pem"), "--tls-key", str(self._tls / "key.pem")]
            owner = contextlib.ExitStack()
            served = owner.enter_context(
                serve(self._folder, *flags, "--resume-timeout", str(RESUME_S), env=PROCESSES)
            )
            self._servers.append((owner, served))
            proxy.listen(("127.0.0.1", int(served.address.rpartition(":")[2])))

    def _take_client_down(self) -> None:
        if self._client is not None:
            self._client.close()
        self._client = None

    def _take_servers_down(self) -> None:
        for owner, served in self._servers:
            served.process.kill()
            owner.close()
        self._servers = []
