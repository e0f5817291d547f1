"""The client process of the fault tests: reads one workload a line on standard input, answers with what came of it.

It is a process of its own so that it can be stopped and killed, and stays from point to point so that torch is
imported once. Times are of the monotonic clock, which all processes of the machine share.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import time
from typing import Any

import torch
from skytorch import SkyTorchError
from skytorch.client import Compute, init
from workloads import WORKLOADS

OPEN_TIMEOUT_S = 20


def run(command: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"opened": False}
    try:
        with contextlib.ExitStack() as stack:
            devices = []
            for number, address in enumerate(command["addresses"]):
                init(provider="address", address=address, token=command["token"])
                name = f"faults-{os.getpid()}-{number}"
                node = stack.enter_context(Compute(name, provider="address", timeout=OPEN_TIMEOUT_S))
                devices.append(node.device())
            answer["opened"] = True
            try:
                answer["digest"] = WORKLOADS[command["workload"]](devices)
            except Exception:
                answer["at"] = time.monotonic()
                raise
    except Exception as error:
        answer.setdefault("at", time.monotonic())
        answer |= {"error": type(error).__name__, "ours": isinstance(error, SkyTorchError), "message": str(error)}
    return answer


def main() -> None:
    torch.set_num_threads(1)
    logging.getLogger("skytorch").setLevel(logging.ERROR)  # lost sessions are what these tests are about
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not taken for an answer
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
