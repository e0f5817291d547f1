"""The modules beside the tests are imported by their bare names; tiny tensors want no threads."""

import sys
from pathlib import Path

import torch

torch.set_num_threads(1)
sys.path.insert(0, str(Path(__file__).parent))
