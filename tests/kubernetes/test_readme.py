"""The README's way: from an empty control plane, its one command, its example, and nothing left 10 s after the end.

A control plane of its own, inside the one that the tests run in, because an installation is of the whole cluster.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KINDS = "computes,statefulsets,services,secrets,serviceaccounts,pvc,networkpolicies,pods"
SCRIPT = """
set -eu
( INSTALL ) >&2
kubectl rollout status -n skytorch-system deployment/skytorch-operator --timeout=60s >&2
"$PYTHON" "$EXAMPLE"
ended=$(date +%s%N)
kubectl wait --for=delete KINDS -l compute.skytorch.dev/name=my-compute --timeout=10s >&2
echo "gone $((($(date +%s%N) - ended) / 1000000)) ms after the end"
left=$(kubectl get KINDS -l compute.skytorch.dev/name=my-compute -o name; kubectl get computes -o name)
test -z "$left" || { echo "left: $left"; exit 1; }
"""


def section() -> str:
    readme = (ROOT / "README.md").read_text()
    return readme.partition("\n## On Kubernetes\n")[2].partition("\n## ")[0]


def test_installed_by_one_command_it_runs_the_example_and_leaves_nothing(tmp_path: Path) -> None:
    (install,) = re.findall(r"```sh\n(.*?)\n```", section())
    (example,) = re.findall(r"```python\n(.*?)```", section(), re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    (tmp_path / "script").write_text(SCRIPT.replace("INSTALL", install).replace("KINDS", KINDS))
    environment = {**os.environ, "EXAMPLE": str(tmp_path / "example.py"), "PYTHON": sys.executable}
    environment.pop("SKYTORCH_PROVIDER", None)  # a kubeconfig is found
    done = subprocess.run(
        [sys.executable, "tests/devcluster", "run", "--no-operator", "--", "bash", str(tmp_path / "script")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)  # fmt: skip
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[0] == "True"
