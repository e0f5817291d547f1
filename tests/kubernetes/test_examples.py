"""Each example as a user of a cluster runs it: `--provider kubernetes`, a process of its own, a fresh namespace.

The examples are those of tests/torch/test_examples.py, which runs them on `local`; their exit codes say whether their
results were right. Here they must also leave nothing behind.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest
from servers import ROOT, environment

pytestmark = pytest.mark.timeout(400)
EXAMPLES = {
    "decorator.py": ([], r"tensor\(\[\["),
    "client.py": ([], r"suspended: Ready is False, Suspended"),
    "cluster.py": (["--members", "3"], r"summed on 3 servers"),
    "events.py": ([], r"events: .*Scheduled"),
    "metrics.py": (["--rounds", "3", "--interval", "0.2"], r"snapshot by snapshot"),
    "two_servers.py": (["--rounds", "40"], r"reward"),
    "grpo.py": (["--steps", "20", "--group", "8"], r"equal after every copy"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_example(cluster, operator, namespace, tmp_path, name):
    arguments, pattern = EXAMPLES[name]
    # An example takes the namespace that the kubeconfig names, as kubectl does.
    kubeconfig = tmp_path / "kubeconfig"
    shutil.copy(cluster.kubeconfig, kubeconfig)
    kubectl = ("config", "--kubeconfig", str(kubeconfig), "set-context", "--current", "--namespace", namespace)
    cluster.kubectl(*kubectl)
    command = [sys.executable, str(ROOT / "examples" / name), "--provider", "kubernetes", *arguments]
    env = environment(COLUMNS="200", KUBECONFIG=str(kubeconfig))
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=380)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert re.search(pattern, done.stdout), done.stdout
    left = json.loads(cluster.kubectl("get", "computes", "--namespace", namespace, "--output", "json"))
    assert left["items"] == []
