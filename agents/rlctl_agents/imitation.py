"""Imitates a rule on the twin, so that learning starts where the rule ends.

DAgger (Ross, Gordon and Bagnell 2011, arXiv:1011.0686): the rule answers in the states that rule and network reach
together; round by round the network decides more often. Then the critic learns what the imitating policy earns.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sb3_contrib import RecurrentPPO

from rlctl.core.policy import Policy
from rlctl.environments.campaign_env import Episode
from rlctl.environments.residual import meant
from rlctl.monitoring.progress import Progress
from rlctl_agents.on_policy.vtrace import vtrace
from rlctl_agents.taught_policy import Batch, TaughtPolicy
from rlctl_agents.vec_env import TrainingVecEnv

SHARES = (1.0, 0.6, 0.3, 0.0)
"""Of decisions that the rule takes, round by round; in the last round the network is alone, and the critic learns."""
STEPS, REMEMBERED = 100, 400
"""Of each environment in a round, about; where there is a memory, so many that whole campaigns are seen at once."""
PASSES = (4, 4, 4, 8)
"""Over all states so far, after each round."""
SWEEPS = 4
"""Of the critic: targets are computed anew before each."""
RATE = 1e-3
ENTROPY = 0.2
"""Weight of the entropy beside the likelihood of the rule's answers. Where the rule is certain, its choice gets exp(5)
times the probability of each other one: enough to play as it does, and to learn from what else might be done."""
MOST_NUMBERS = 1 << 26
"""In the rows of all rounds."""


@dataclass(frozen=True, slots=True)
class Imitation:
    """A rule, and how it is imitated.

    Attributes:
        rule: may have a memory.
        decisions: on the twin, in all rounds.
        seed: of whose answer is taken, and of the minibatches.
        stop: asked at each step; once it answers True, ``teach`` gives up.
    """

    rule: Policy
    decisions: int
    seed: int
    progress: Progress
    stop: Callable[[], bool]

    def shape(self, model: Any) -> tuple[int, int]:
        """Environments and steps of each round."""
        width = int(np.prod(model.observation_space.shape))
        each = max(1, min(self.decisions, MOST_NUMBERS // width) // len(SHARES))
        count = max(min(4, each), each // (REMEMBERED if isinstance(model, RecurrentPPO) else STEPS))
        return count, max(1, each // count)

    def teach(self, model: Any, env: TrainingVecEnv, campaigns: Callable[[], list[Episode]]) -> int | None:
        """Teach actor and critic of a new model what the rule does, and what that earns.

        Args:
            model: PPO, MaskablePPO or RecurrentPPO.
            env: as many environments as ``shape`` says, of their own.
            campaigns: those that ``env`` plays at the moment.

        Returns:
            decisions that were taken on the twin; None: it was given up.
        """
        rng = np.random.default_rng(self.seed)
        torch.manual_seed(int(rng.integers(2**31)))
        _, steps = self.shape(model)
        taught = TaughtPolicy(model, steps)
        optimizer = torch.optim.Adam(model.policy.parameters(), RATE)
        players = _Players(env, campaigns, [copy.deepcopy(self.rule) for _ in range(env.num_envs)])
        rounds: list[Batch] = []
        for share, passes in zip(SHARES, PASSES, strict=True):
            if not rounds or taught.recurrent:
                players.begin()
                taught.begin()
            played = self._play(taught, players, share, steps, rng)
            if played is None:
                return None
            rounds.append(played)
            for _ in range(passes):
                for part in taught.minibatches(rounds, rng):
                    _, log_probs, entropy = taught.evaluate(part)
                    labelled = torch.as_tensor(part.labelled)
                    loss = -(log_probs * labelled).sum() / labelled.sum().clamp(min=1) - ENTROPY * entropy.mean()
                    taught.step(optimizer, loss)
        _teach_critic(taught, rounds[-1], optimizer, rng)
        return len(SHARES) * steps * env.num_envs

    def _play(
        self, taught: TaughtPolicy, players: _Players, share: float, steps: int, rng: np.random.Generator
    ) -> Batch | None:
        """A round, in which the rule takes a ``share`` of the decisions."""
        seen: list[Batch] = []
        for _ in range(steps):
            if self.stop():
                return None
            rows, masks, starts = players.rows, players.env.action_masks(), players.starts
            own = taught.act(rows, starts, masks)
            labels, labelled = players.answers(own)
            taken = np.where((rng.random(len(own)) < share)[:, None], labels, own)
            seen.append(Batch(rows, masks, starts, labels, labelled, *players.step(taken)))
            self.progress.advance(len(own))
        return Batch.stacked(seen)


class _Players:
    """Environments, each with a rule of its own that watches."""

    def __init__(self, env: TrainingVecEnv, campaigns: Callable[[], list[Episode]], rules: list[Policy]) -> None:
        self.env, self._campaigns, self._rules = env, campaigns, rules
        self.rows: Any = None
        self.starts = np.ones(env.num_envs, np.bool_)

    def begin(self) -> None:
        """Begin all campaigns."""
        self.rows, self.starts = self.env.reset(), np.ones(self.env.num_envs, np.bool_)
        for i, rule in enumerate(self._rules):
            rule.reset(i)

    def answers(self, otherwise: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """What the rules say, as choices [n, heads], and where that is a choice; the others are as given."""
        labels, labelled = otherwise.copy(), np.zeros(len(otherwise), np.bool_)
        for i, episode in enumerate(self._campaigns()):
            decision = episode.decision
            found = None if decision is None else meant(decision, self._rules[i].act(decision))
            if found is not None:
                labels[i], labelled[i] = found, True
        return labels, labelled

    def step(self, actions: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_]]:
        """Answer all decisions: rewards, ends of episodes, and which of these were cut off."""
        self.rows, rewards, done, infos = self.env.step(actions)
        for ended in np.flatnonzero(done).tolist():
            self._rules[ended].reset(ended)
        self.starts = done
        cut = np.array([bool(info.get("TimeLimit.truncated")) for info in infos])
        return np.asarray(rewards, np.float32), done, cut


def _teach_critic(taught: TaughtPolicy, played: Batch, optimizer: Any, rng: np.random.Generator) -> None:
    """Fit the critic to lambda-returns of a round in which the network decided alone.

    What follows a cut is worth about what the last state was, and so is what follows the end of the round.
    """
    model = taught.model
    ended = played.done & ~played.cut
    goes_on = ~played.done
    goes_on[-1] = False
    for _ in range(SWEEPS):
        values = taught.values(played)
        following = np.where(goes_on, np.roll(values, -1, axis=0), values)
        zero, discounts = np.zeros_like(values), (model.gamma * ~ended).astype(np.float32)
        targets, _ = vtrace(zero, values, following, played.rewards, discounts, goes_on, model.gae_lambda)
        for _ in range(max(PASSES)):
            for part in taught.minibatches([played.with_targets(targets)], rng):
                predicted, _, _ = taught.evaluate(part)
                taught.step(optimizer, torch.nn.functional.mse_loss(predicted, torch.as_tensor(part.rewards)))
