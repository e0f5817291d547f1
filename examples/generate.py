"""Generate tokens with a small Llama on a remote device: greedy and sampled, with a growing key-value cache.

The model comes from a config and a seed (there is nothing to download). Sampling draws on the device's own generator,
so the tokens must be those of the local CPU, one by one. `--device cpu` never imports SkyTorch.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import dataclass

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here may reach for the network

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

PROMPT = [1, 17, 333, 42, 901, 5, 77, 640]


@dataclass
class Generated:
    greedy: list[int]
    sampled: list[int]
    tokens_per_s: float


def small_llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=2048,
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=3,
        max_position_embeddings=1024,
        initializer_range=0.08,  # spreads the logits, so that an untrained model does not hover between two tokens
        eos_token_id=None,
        bos_token_id=1,
        pad_token_id=0,
    )
    return LlamaForCausalLM(config).eval()


def generate(device: torch.device, new_tokens: int) -> Generated:
    model = small_llama().to(device)
    prompt = torch.tensor([PROMPT], device=device)
    everything = torch.ones_like(prompt)
    length = {"attention_mask": everything, "max_new_tokens": new_tokens, "min_new_tokens": new_tokens}
    model.generate(prompt, do_sample=False, attention_mask=everything, max_new_tokens=4)  # warm up
    started = time.perf_counter()
    greedy = model.generate(prompt, do_sample=False, **length)[0].tolist()
    torch.manual_seed(1234)
    sampled = model.generate(prompt, do_sample=True, temperature=0.9, top_k=50, top_p=0.95, **length)[0].tolist()
    seconds = time.perf_counter() - started
    return Generated(greedy[len(PROMPT) :], sampled[len(PROMPT) :], 2 * new_tokens / seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("sky", "cpu"), default="sky", help="cpu: plain PyTorch, no SkyTorch")
    parser.add_argument("--provider", default="local", help="where the server runs: local, address or kubernetes")
    parser.add_argument("--tokens", type=int, default=64, help="new tokens for each of the two ways")
    args = parser.parse_args()
    console = Console()

    local = generate(torch.device("cpu"), args.tokens)
    if args.device == "cpu":
        console.print(f"greedy  {local.greedy}\nsampled {local.sampled}", soft_wrap=True)
        console.print(f"cpu: {local.tokens_per_s:.1f} tokens/s")
        return 0

    from skytorch.client import Compute

    with Compute("generate", provider=args.provider) as node:
        remote = generate(node.device(), args.tokens)
    console.print(f"greedy  {remote.greedy}\nsampled {remote.sampled}", soft_wrap=True)
    same = remote.greedy == local.greedy and remote.sampled == local.sampled
    console.print(
        f"sky: {remote.tokens_per_s:.1f} tokens/s, cpu {local.tokens_per_s:.1f} tokens/s, "
        f"sky/cpu {remote.tokens_per_s / local.tokens_per_s:.2f}x, tokens {'identical' if same else 'DIFFERENT'}",
        soft_wrap=True,
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
