"""Reinforcement learning on two servers: a policy is trained on one Compute and sampled on another.

Each round the sampler plays a batch of games with its replica of the policy, the trainer makes one policy-gradient
step on them, and the new weights are copied from server to server with `q.data.copy_(p.data)`. The reward of every
round must be that of the same program on the local CPU. `--device cpu` never imports SkyTorch.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import sys
import time

import torch
from rich.console import Console
from torch import nn
from torch.distributions import Categorical

SIDE = 5  # the board is SIDE x SIDE
MOVES = torch.tensor([[1, 0], [-1, 0], [0, 1], [0, -1]])


class Policy(nn.Sequential):
    """(own position, goal) to one logit for each of four moves."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4))


@torch.no_grad()
def play(policy: nn.Module, device: torch.device, games: int, steps: int) -> tuple[torch.Tensor, ...]:
    """Observations, actions and rewards of `games` games, each (steps, games, ...), on `device`."""
    moves = MOVES.to(device)
    place, goal = torch.randint(0, SIDE, (2, games, 2), device=device)
    seen, acted, rewards = [], [], []
    for _ in range(steps):
        observation = torch.cat((place, goal), dim=1).float() / (SIDE - 1) - 0.5
        action = Categorical(logits=policy(observation)).sample()
        before = (place - goal).abs().sum(dim=1)
        place = (place + moves[action]).clamp(0, SIDE - 1)
        after = (place - goal).abs().sum(dim=1)
        seen.append(observation)
        acted.append(action)
        rewards.append((before - after).float() - 0.5 * (after > 0))
    return torch.stack(seen), torch.stack(acted), torch.stack(rewards)


def learn(policy: nn.Module, optimizer: torch.optim.Optimizer, games: tuple[torch.Tensor, ...]) -> None:
    observations, actions, rewards = games
    returns = rewards.flip(0).cumsum(0).flip(0)
    advantage = (returns - returns.mean(dim=1, keepdim=True)) / (returns.std() + 1e-6)
    choice = Categorical(logits=policy(observations))
    loss = -(choice.log_prob(actions) * advantage).mean() - 0.01 * choice.entropy().mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def run(trainer: torch.device, sampler: torch.device, rounds: int, games: int, steps: int) -> list[float]:
    """Mean reward of every round."""
    torch.manual_seed(0)
    policy = Policy()
    replica = copy.deepcopy(policy).to(sampler)
    policy = policy.to(trainer)
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    torch.manual_seed(1)  # the games do not depend on which generator made the weights
    mean_rewards = []
    for _ in range(rounds):
        played = play(replica, sampler, games, steps)
        mean_rewards.append(played[2].sum(dim=0).mean())
        learn(policy, optimizer, tuple(part.to(trainer) for part in played))
        for p, q in zip(policy.parameters(), replica.parameters(), strict=True):
            q.data.copy_(p.data)
    return torch.stack(mean_rewards).tolist()


async def run_on_two_servers(provider: str, size: tuple[int, int, int]) -> tuple[list[float], float]:
    """(mean rewards, seconds) with the trainer and the sampler in server processes of their own."""
    from skytorch.client import Cluster, Compute

    async with Cluster(Compute("trainer", provider=provider), Compute("sampler", provider=provider)) as cluster:
        trainer, sampler = cluster
        started = time.perf_counter()
        rewards = run(trainer.device(), sampler.device(), *size)
        return rewards, time.perf_counter() - started


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("sky", "cpu"), default="sky", help="cpu: plain PyTorch, no SkyTorch")
    parser.add_argument("--provider", default="local", help="where the servers run: local, address or kubernetes")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--games", type=int, default=256)
    parser.add_argument("--steps", type=int, default=10)
    args = parser.parse_args()
    console = Console()
    size = (args.rounds, args.games, args.steps)

    if args.device == "sky":  # first: a device must be registered before the process's first backward
        rewards, remote_s = asyncio.run(run_on_two_servers(args.provider, size))
    started = time.perf_counter()
    local = run(torch.device("cpu"), torch.device("cpu"), *size)
    local_s = time.perf_counter() - started
    if args.device == "cpu":
        rewards = local

    for first in range(0, args.rounds, max(1, args.rounds // 6)):
        console.print(f"round {first:4d}: mean reward {rewards[first]:+.3f}")
    improved = sum(rewards[-5:]) / len(rewards[-5:]) > rewards[0] + 1.0
    if args.device == "cpu":
        console.print(f"cpu: reward {rewards[0]:+.3f} -> {rewards[-1]:+.3f} in {local_s:.1f} s")
        return 0 if improved else 1
    worst = max(abs(a - b) for a, b in zip(rewards, local, strict=True))
    console.print(
        f"sky: reward {rewards[0]:+.3f} -> {rewards[-1]:+.3f} in {remote_s:.1f} s on two servers, "
        f"cpu {local_s:.1f} s, largest difference of a round {worst:.1e}",
        soft_wrap=True,
    )
    return 0 if improved and worst <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
