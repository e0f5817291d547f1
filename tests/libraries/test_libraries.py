"""Each library's usual script, run on the local CPU and on `sky` in processes of their own; both report the same.

The scripts know nothing of SkyTorch save the device, and the one call of `skytorch.integrations` where the library's
list of devices needs it. `make test-libraries` installs the libraries; without them the tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from servers import environment

SCRIPTS = Path(__file__).parent / "scripts"
RELATIVE = 1e-4  # what another order of additions changes
NEEDS = {
    "accelerate_loop": ["accelerate"],
    "einops_layers": ["einops"],
    "lightning_fit": ["lightning"],
    "peft_lora": ["peft"],
    "timm_models": ["timm"],
    "torchao_quantize": ["torchao"],
    "torchmetrics_scores": ["torchmetrics"],
    "torchvision_models": ["torchvision"],
    "transformers_generate": ["transformers"],
    "transformers_models": ["transformers", "accelerate"],
    "transformers_trainer": ["transformers", "accelerate"],
    "trl_trainers": ["trl"],
}


def test_every_script_is_listed():
    assert sorted(NEEDS) == sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "small")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", NEEDS)
def test_library(tmp_path: Path, name: str) -> None:
    missing = [library for library in NEEDS[name] if importlib.util.find_spec(library) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: make test-libraries")
    expected, got = (run(SCRIPTS / f"{name}.py", device, tmp_path / device) for device in ("cpu", "sky"))
    assert set(expected["places"]) == {"cpu"}
    assert set(got["places"]) == {"sky"}
    compare(got["values"], expected["values"], name, RELATIVE)
    # Autocast has the lists of cuda on sky, which round where those of the CPU do not: docs/libraries.md.
    compare(got.get("rounded"), expected.get("rounded"), name, torch.finfo(torch.bfloat16).eps)


def run(script: Path, device: str, folder: Path) -> dict[str, Any]:
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(script), device],
        env=environment(SKYTORCH_PROVIDER="local", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false"),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(got: Any, expected: Any, where: str, relative: float) -> None:
    """Texts and whole numbers exactly; other numbers to within `relative`."""
    assert type(got) is type(expected), where
    if isinstance(expected, dict):
        assert got.keys() == expected.keys(), where
        for key in expected:
            compare(got[key], expected[key], f"{where}.{key}", relative)
    elif isinstance(expected, list):
        assert len(got) == len(expected), where
        for i, (one, other) in enumerate(zip(got, expected, strict=True)):
            compare(one, other, f"{where}[{i}]", relative)
    elif isinstance(expected, float):
        assert math.isclose(got, expected, rel_tol=relative, abs_tol=1e-5), f"{where}: {got} instead of {expected}"
    else:
        assert got == expected, where
