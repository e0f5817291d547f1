"""GRPO on two servers: a small Llama learns to sort digits, trained on one Compute and sampled on another.

Each step the sampler writes a group of answers to every prompt with its replica of the policy, the trainer takes
clipped policy-gradient steps on them, and the new weights go from server to server with `q.data.copy_(p.data)`. An
answer's reward is the share of its digits that stand where the sorted prompt has them; its advantage is how much
better it did than its group. The rewards must be those of the same program on the local CPU, and after every copy the
sampler's weights those of the trainer, bit for bit. `--device cpu` never imports SkyTorch.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import os
import sys
import time
from dataclasses import dataclass, field
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here may reach for the network

import torch
from rich.console import Console
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

DIGITS = 8  # they are 0 to 7, and DIGITS itself is the token that ends a prompt
LENGTH = 4  # digits in a prompt, and in an answer


@dataclass(frozen=True)
class Size:
    steps: int
    prompts: int
    group: int  # answers to a prompt
    epochs: int = 2  # gradient steps on the answers of one step
    clip: float = 0.2
    kl: float = 0.0  # weight of the distance from the policy at the start
    learning_rate: float = 2e-3


@dataclass
class Learned:
    rewards: list[float] = field(default_factory=list)
    on_cpu: bool = True  # and so comparable with the local CPU
    copied_bytes: int = 0
    copies_differ: int = 0  # copies after which the two models were not equal
    seconds: float = 0.0


def small_llama(seed: int) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=DIGITS + 1,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2 * LENGTH + 1,
        tie_word_embeddings=False,
        eos_token_id=None,
        bos_token_id=None,
        pad_token_id=None,
    )
    return LlamaForCausalLM(config).double()  # rounding must not decide which digit is drawn


def draw_prompts(size: Size, device: torch.device) -> torch.Tensor:
    """(prompts x group, LENGTH + 1): each prompt as often as it is answered."""
    digits = torch.randint(0, DIGITS, (size.prompts, LENGTH), device=device)
    ended = torch.cat((digits, torch.full((size.prompts, 1), DIGITS, device=device)), dim=1)
    return ended.repeat_interleave(size.group, dim=0)


@torch.no_grad()
def answer(policy: nn.Module, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Sampled answers and the log-probability of each digit. Nothing is read back on the way."""
    tokens, log_probs = [], []
    next_input, cache = prompts, None
    for _ in range(LENGTH):
        output = policy(input_ids=next_input, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        distribution = output.logits[:, -1].log_softmax(dim=-1)
        next_input = torch.multinomial(distribution.exp(), 1)
        tokens.append(next_input)
        log_probs.append(distribution.gather(1, next_input))
    return torch.cat(tokens, dim=1), torch.cat(log_probs, dim=1)


def reward(prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    return (answers == prompts[:, :LENGTH].sort(dim=1).values).float().mean(dim=1)


def log_probs_of(policy: nn.Module, prompts: torch.Tensor, answers: torch.Tensor) -> torch.Tensor:
    logits = policy(input_ids=torch.cat((prompts, answers[:, :-1]), dim=1), use_cache=False).logits[:, LENGTH:]
    return logits.log_softmax(dim=-1).gather(2, answers.unsqueeze(2)).squeeze(2)


class Learner:
    """The policy, its optimizer and, with a KL term, the policy at the start."""

    def __init__(self, policy: nn.Module, size: Size) -> None:
        self.policy = policy
        self.size = size
        self.optimizer = torch.optim.Adam(policy.parameters(), lr=size.learning_rate)
        self.reference = copy.deepcopy(policy) if size.kl > 0 else None

    def learn(self, prompts: torch.Tensor, answers: torch.Tensor, old: torch.Tensor, rewards: torch.Tensor) -> None:
        groups = rewards.view(-1, self.size.group)
        better = (groups - groups.mean(dim=1, keepdim=True)) / (groups.std(dim=1, keepdim=True) + 1e-4)
        advantage = better.view(-1, 1)
        for _ in range(self.size.epochs):
            new = log_probs_of(self.policy, prompts, answers)
            ratio = (new - old).exp()
            clipped = ratio.clamp(1 - self.size.clip, 1 + self.size.clip)
            loss = -torch.minimum(ratio * advantage, clipped * advantage).mean()
            if self.reference is not None:
                with torch.no_grad():
                    reference = log_probs_of(self.reference, prompts, answers)
                apart = reference - new
                loss = loss + self.size.kl * (apart.exp() - apart - 1).mean()
            self.optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(self.policy.parameters(), 1.0)
            self.optimizer.step()


def fingerprint(model: nn.Module) -> torch.Tensor:
    """A sum over the bits of every weight and its place, computed where they are."""
    bits = torch.cat([p.detach().flatten().view(torch.int64) for p in model.parameters()])
    return (bits * torch.arange(1, 2 * len(bits), 2, device=bits.device)).sum()


def run(trainer: torch.device, sampler: torch.device, seed: int, size: Size, report: Console | None) -> Learned:
    policy = small_llama(seed)
    replica = copy.deepcopy(policy).to(sampler)
    learner = Learner(policy.to(trainer), size)
    torch.manual_seed(seed)  # what is drawn does not depend on which generator made the weights
    learned, fingerprints = Learned(), []
    started = time.perf_counter()
    for step in range(size.steps):
        prompts = draw_prompts(size, sampler)
        answers, old = answer(replica, prompts)
        rewards = reward(prompts, answers)
        learner.learn(*(part.to(trainer) for part in (prompts, answers, old, rewards)))
        for p, q in zip(policy.parameters(), replica.parameters(), strict=True):
            q.data.copy_(p.data)
        learned.copied_bytes += sum(p.numel() * p.element_size() for p in policy.parameters())
        fingerprints.append((fingerprint(policy), fingerprint(replica)))
        learned.rewards.append(rewards.mean().item())  # the only wait of a step
        if report is not None:
            report.print(f"step {step:3d}: mean reward {learned.rewards[-1]:.3f}")
    ours, theirs = (torch.stack(column).cpu() for column in zip(*fingerprints, strict=True))
    learned.copies_differ = int((ours != theirs).sum())
    for p, q in zip(policy.parameters(), replica.parameters(), strict=True):
        learned.copies_differ += not torch.equal(p.detach().cpu(), q.detach().cpu())
    learned.seconds = time.perf_counter() - started
    return learned


async def measured(compute: Any) -> dict[str, float]:
    """The counters of a Compute's server, now."""
    async for snapshot in compute.metrics():
        return {metric.name: metric.value for metric in snapshot.metrics}
    raise AssertionError("the first snapshot comes at once")


async def run_on_two_servers(provider: str, seed: int, size: Size, console: Console) -> Learned:
    from skytorch.client import Cluster, Compute

    async with Cluster(Compute("trainer", provider=provider), Compute("sampler", provider=provider)) as cluster:
        trainer, sampler = cluster
        learned = run(trainer.device(), sampler.device(), seed, size, console)
        learned.on_cpu = all(node.devices() == ["cpu"] for node in cluster)
        client = sum(node.stats()["op_bytes_sent"] + node.stats()["lane_bytes_sent"] for node in cluster)
        left, came = (await measured(trainer))["bytes.sent"], (await measured(sampler))["bytes.received"]
    console.print(
        f"copies: {learned.copied_bytes:,} bytes of weights in {size.steps} steps; the trainer's server sent "
        f"{left:,.0f} bytes, the sampler's received {came:,.0f}, this program sent {client:,} bytes to the two; "
        f"sampler and trainer {'equal after every copy' if learned.copies_differ == 0 else 'DIFFERENT'}",
        soft_wrap=True,
    )
    return learned


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("sky", "cpu"), default="sky", help="cpu: plain PyTorch, no SkyTorch")
    parser.add_argument("--provider", default="local", help="where the servers run: local, address or kubernetes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--prompts", type=int, default=32, help="prompts in a step")
    parser.add_argument("--group", type=int, default=16, help="answers to each prompt")
    parser.add_argument("--kl", type=float, default=0.0, help="weight of the KL term")
    args = parser.parse_args()
    console = Console()
    size = Size(args.steps, args.prompts, args.group, kl=args.kl)

    cpu = torch.device("cpu")
    if args.device == "sky":
        learned = asyncio.run(run_on_two_servers(args.provider, args.seed, size, console))
    else:
        learned = run(cpu, cpu, args.seed, size, console)
    tenth = max(1, args.steps // 10)
    first, last = (sum(part) / tenth for part in (learned.rewards[:tenth], learned.rewards[-tenth:]))
    result = f"{args.device}, seed {args.seed}: reward {first:.3f} -> {last:.3f} in {learned.seconds:.1f} s"
    right = last > first + 0.1 and learned.copies_differ == 0
    if args.device == "sky" and learned.on_cpu:
        local = run(cpu, cpu, args.seed, size, None)
        worst = max(abs(a - b) for a, b in zip(learned.rewards, local.rewards, strict=True))
        result += f", cpu {local.seconds:.1f} s, largest difference of a step {worst:.1e}"
        right &= worst <= 1e-3
    console.print(result, soft_wrap=True)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
