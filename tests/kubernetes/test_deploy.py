"""deploy/: each way to install SkyTorch, from an empty control plane to a Compute that is ready; the chart against the
manifests that it repeats.

Every way gets a control plane of its own, inside the one that the tests run in, since most of what is installed is of
the whole cluster. Manifests are applied with strict validation: an unknown field is an error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/deploy"))
import helm  # noqa: E402

DEPLOY = ROOT / "deploy"
VERSION = "0.1.0"
APPLY = "kubectl apply --server-side --validate=strict -k deploy/kustomize"
INSTALL = "$HELM install skytorch deploy/chart"
# How to install, where the operator then is, whose Computes it sees, and whose it does not.
WAYS = {
    "base": (f"{APPLY}/base", "skytorch-system", "anywhere", None),
    "gpu": (f"{APPLY}/overlays/gpu", "skytorch-system", "skytorch-team", None),
    "namespaced": (f"{APPLY}/overlays/namespaced", "skytorch", "skytorch", "anywhere"),
    "chart": (f"{INSTALL} -n sky --create-namespace", "sky", "anywhere", None),
    "chart-namespaced": (
        f"kubectl create namespace one && {INSTALL} -n sky --create-namespace --set watchNamespace=one",
        "sky",
        "one",
        "anywhere",
    ),
}
COMPUTE = """
apiVersion: compute.skytorch.dev/v1alpha1
kind: Compute
metadata: {name: tried, namespace: NAMESPACE}
spec: {image: "skytorch-test/stub:v1"}
"""
INSTALLED = """
set -eu
namespace() { kubectl get namespace "$1" >/dev/null 2>&1 || kubectl create namespace "$1"; }
compute() { sed "s/NAMESPACE/$1/" "$COMPUTE" | kubectl apply --server-side --validate=strict -f -; }
COMMAND
COMMAND_AGAIN
kubectl rollout status -n "$OPERATOR" deployment/skytorch-operator --timeout=60s
if [ -n "$UNSEEN" ]; then namespace "$UNSEEN"; compute "$UNSEEN"; fi
namespace "$SEEN"
compute "$SEEN"
kubectl wait -n "$SEEN" compute/tried --for=condition=Ready --timeout=30s
kubectl auth can-i list secrets -A --as="system:serviceaccount:$OPERATOR:skytorch-operator" >"$RIGHTS" || true
if [ -n "$UNSEEN" ]; then kubectl get -n "$UNSEEN" compute/tried -o yaml >"$UNSEEN_STATE"; fi
"""


@pytest.fixture(scope="session")
def helm_binary() -> Path:
    return helm.build()


@pytest.mark.parametrize("way", WAYS)
def test_one_command_installs_it(way: str, helm_binary: Path, tmp_path: Path) -> None:
    command, operator, seen, unseen = WAYS[way]
    again = command if command.startswith("kubectl apply") else ":"  # applying what is there changes nothing
    (tmp_path / "script").write_text(INSTALLED.replace("COMMAND_AGAIN", again).replace("COMMAND", command))
    (tmp_path / "compute.yaml").write_text(COMPUTE)
    environment = {
        **os.environ,
        "HELM": str(helm_binary),
        "OPERATOR": operator,
        "SEEN": seen,
        "UNSEEN": unseen or "",
        "COMPUTE": str(tmp_path / "compute.yaml"),
        "RIGHTS": str(tmp_path / "rights"),
        "UNSEEN_STATE": str(tmp_path / "unseen.yaml"),
    }
    done = subprocess.run(
        [sys.executable, "tests/devcluster", "run", "--no-operator", "--", "bash", str(tmp_path / "script")],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    everywhere = (tmp_path / "rights").read_text().strip()
    assert everywhere == ("no" if unseen else "yes")
    if unseen:
        # The operator had come to the other one, which was made later.
        assert "status" not in yaml.safe_load((tmp_path / "unseen.yaml").read_text())


def rendered(*command: str | Path) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Objects by kind, namespace and name."""
    done = subprocess.run([str(word) for word in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    objects = [found for found in yaml.safe_load_all(done.stdout) if found]
    return {
        (found["kind"], found["metadata"].get("namespace", ""), found["metadata"]["name"]): found for found in objects
    }


def test_the_chart_has_the_same_objects(helm_binary: Path) -> None:
    chart = rendered(helm_binary, "template", "x", "deploy/chart", "-n", "skytorch-system", "--include-crds")
    manifests = rendered("kubectl", "kustomize", "deploy/kustomize/base")
    del manifests["Namespace", "", "skytorch-system"]  # Helm's own
    assert chart.keys() == manifests.keys()
    here, there = (
        found.pop(("Deployment", "skytorch-system", "skytorch-operator")) for found in (chart, manifests)
    )
    assert chart == manifests
    container, other = (found["spec"]["template"]["spec"]["containers"][0] for found in (here, there))
    assert container.pop("imagePullPolicy") == "IfNotPresent"
    # The chart writes out two defaults.
    assert [word for word in container.pop("args") if not word.startswith(("--scheduling", "--certificate"))] == other.pop(
        "args"
    )
    assert here == there


def test_the_chart_is_sound_and_refuses_what_it_does_not_know(helm_binary: Path, tmp_path: Path) -> None:
    subprocess.run([helm_binary, "lint", "--strict", "deploy/chart"], cwd=ROOT, check=True, capture_output=True)
    wrong = subprocess.run(
        [helm_binary, "template", "x", "deploy/chart", "--set", "replica=2"], cwd=ROOT, capture_output=True, text=True)  # fmt: skip
    assert wrong.returncode != 0
    assert "replica" in wrong.stderr
    # Packed, the links are files.
    subprocess.run([helm_binary, "package", "deploy/chart", "-d", tmp_path], cwd=ROOT, check=True, capture_output=True)
    packed = rendered(helm_binary, "template", "x", tmp_path / f"skytorch-{VERSION}.tgz", "-n", "n", "--include-crds")
    assert packed == rendered(helm_binary, "template", "x", "deploy/chart", "-n", "n", "--include-crds")


def test_every_value_is_documented_and_has_a_schema() -> None:
    text = (DEPLOY / "chart/values.yaml").read_text()
    values = yaml.safe_load(text)
    schema = json.loads((DEPLOY / "chart/values.schema.json").read_text())
    assert values.keys() | {"global"} == schema["properties"].keys()
    used = "".join(path.read_text() for path in (DEPLOY / "chart/templates").iterdir())
    for name in values:
        assert f".Values.{name}" in used, name
    for line, following in zip(text.splitlines(), text.splitlines()[1:], strict=False):
        if following[:1].isalpha() and line == "":
            pytest.fail(f"values.yaml does not say what this is: {following}")


def test_one_version_everywhere() -> None:
    from skytorch import __version__

    chart = yaml.safe_load((DEPLOY / "chart/Chart.yaml").read_text())
    base = yaml.safe_load((DEPLOY / "kustomize/base/kustomization.yaml").read_text())
    assert {__version__, chart["version"], chart["appVersion"], base["images"][0]["newTag"]} == {VERSION}
