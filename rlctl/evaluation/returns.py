"""Compares policies on a Gymnasium environment by the mean returns of the same held-out episodes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from rlctl.bundle.actions import action_heads
from rlctl.core.campaign import Action, Decision, Mask
from rlctl.core.errors import ConfigError
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.random_policy import RANDOM, Chance
from rlctl.environments.masks import action_mask
from rlctl.environments.reward_env import RewardFactory
from rlctl.evaluation.statistics import LEVEL, Interval, resampled_sums, with_interval
from rlctl.monitoring.progress import Progress, working

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class PolicyReturns:
    """Results of one policy over all episodes.

    Attributes:
        mean: mean undiscounted return, with its 95 % interval.
        difference: ``mean`` minus that of the reference on the same episodes, with its paired 95 % interval.
        length: mean number of steps.
        cut: number of episodes that reached the step limit; their returns count until then.
    """

    policy: str
    episodes: int
    mean: float
    interval: Interval
    difference: float
    difference_interval: Interval
    length: float
    cut: int = 0


@dataclass(frozen=True, slots=True)
class Returns:
    """Returns of every policy; the first policy is the reference.

    Attributes:
        max_steps: step limit of an episode.
    """

    environment: str
    rows: Sequence[PolicyReturns]
    seed: int
    max_steps: int

    def to_json(self) -> dict[str, Any]:
        """The comparison for JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    def table(self) -> Table:
        """A table for terminals of 80 columns."""
        reference = self.rows[0].policy
        title = f"{self.environment}: return of {self.rows[0].episodes} held-out episodes"
        table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        cut = [f"{row.policy} {row.cut} of {row.episodes}" for row in self.rows if row.cut]
        if cut:
            table.caption_justify = "left"
            table.caption = (
                f"episodes truncated at the limit of {self.max_steps:,} steps (evaluate.max_steps): {', '.join(cut)}"
            )
        table.add_column("policy")
        for heading in ("mean return", f"minus {reference}", "steps"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            less = "" if row.policy == reference else with_interval(row.difference, row.difference_interval)
            table.add_row(row.policy, with_interval(row.mean, row.interval), less, f"{row.length:.1f}")
        return table


def evaluate(
    factory: RewardFactory,
    policies: Mapping[str, Policy],
    instances: Sequence[int],
    seed: int,
    progress: Progress,
    max_steps: int,
) -> Returns:
    """Run every policy on the same episodes, one for each instance; the first is the reference.

    Args:
        seed: of the bootstrap.

    Raises:
        ConfigError: a policy does not fit the environment.
        EnvironmentFault: the environment raised an exception, or returned an invalid reward or observation.
    """
    episodes = len(instances)
    episodes_of: dict[str, list[tuple[float, int, bool]]] = {}
    work = working(progress, "comparing policies", episodes * len(policies), "episodes")
    with work, closing(factory.environment()) as environment:
        for name, policy in policies.items():
            episodes_of[name] = []
            for instance in instances:
                episodes_of[name].append(run_episode(environment, name, copy.deepcopy(policy), instance, max_steps))
                progress.advance(1)
    columns = np.array([[total for total, *_ in of] for of in episodes_of.values()]).T
    sums = resampled_sums(np.hstack([columns, columns - columns[:, :1]]), seed=seed) / episodes
    tail = (1.0 - LEVEL) / 2.0
    lows, highs = np.quantile(sums, [tail, 1.0 - tail], axis=0).tolist()
    count, means = len(policies), columns.mean(axis=0).tolist()
    rows = [
        PolicyReturns(
            policy=name,
            episodes=episodes,
            mean=means[i],
            interval=(lows[i], highs[i]),
            difference=means[i] - means[0],
            difference_interval=(lows[count + i], highs[count + i]),
            length=float(np.mean([steps for _, steps, _ in episodes_of[name]])),
            cut=sum(cut for *_, cut in episodes_of[name]),
        )
        for i, name in enumerate(episodes_of)
    ]
    return Returns(factory.name, rows, seed, max_steps)


def try_out(
    factory: RewardFactory, policies: Mapping[str, Policy], seed: int, max_steps: int, episodes: int = 4
) -> tuple[int, int]:
    """Run a few episodes with random actions and with each policy, to check environment and policies as ``evaluate``.

    Returns:
        the number of steps, and of episodes that reached ``max_steps``.
    """
    with closing(factory.environment()) as environment:
        episodes_of = [
            run_episode(environment, name, policy, seed + i, max_steps)
            for name, policy in {RANDOM: Chance(factory.action_space), **policies}.items()
            for i in range(episodes)
        ]
    return sum(steps for _, steps, _ in episodes_of), sum(cut for *_, cut in episodes_of)


def run_episode(
    environment: gymnasium.Env[Any, Any], name: str, policy: Policy, instance: int, max_steps: int
) -> tuple[float, int, bool]:
    """Run one episode; returns its return, its length, and whether it reached ``max_steps``."""
    observation, info = environment.reset(seed=instance)
    space = environment.action_space
    policy.reset(instance)
    total, steps, over = 0.0, 0, False
    while not over and steps < max_steps:
        mask = action_mask(environment, info, steps) if _choices(space) else None
        action = _act(space, policy, name, steps, observation, mask)
        observation, reward, terminated, truncated, info = environment.step(action)
        total, steps, over = total + float(reward), steps + 1, bool(terminated or truncated)
    return total, steps, not over


def _act(
    space: spaces.Space[Any], policy: Policy, name: str, step: int, observation: Any, info_mask: Mask | None
) -> Any:
    """Ask the policy as in a campaign: rules read ``fields["observation"]``, networks the flat float32 observation."""
    mask = np.ones(sum(_choices(space)), np.bool_) if info_mask is None else info_mask
    row = np.asarray(observation, np.float32)
    decision = Decision("environment", float(step), {"observation": observation}, row, mask, number=step)
    try:
        with asking(f"policy {name}", f"step {step}"):
            answer = policy.act(decision)
        action = _in_space(space, answer)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"policy {name} does not fit this environment ({problem}): use one trained on it") from error
    if not space.contains(action):
        raise ConfigError(f"policy {name} chose {action!r}, which is not in {space}: use a policy trained on it")
    if info_mask is not None and not _allowed(space, info_mask, action):
        raise ConfigError(
            f"policy {name} chose {action!r} at step {step} of an episode, which the environment's action mask "
            "forbids: let the policy respect decision.mask, or use one trained on the environment"
        )
    return action


def _allowed(space: spaces.Space[Any], mask: Mask, action: Any) -> bool:
    heads = np.array(_choices(space))
    indices = np.ravel(action) - (space.start if isinstance(space, spaces.Discrete) else 0)
    return bool(mask[np.cumsum(heads) - heads + indices].all())


def _in_space(space: spaces.Space[Any], answer: Action) -> Any:
    """Convert a flat action, or a mapping with the key ``action``, to the environment's action space."""
    if isinstance(answer, Mapping):
        return answer["action"]
    flat: NDArray[Any] = np.asarray(answer)
    if isinstance(space, spaces.Discrete):
        return np.int64(flat.reshape(-1)[0] + space.start)
    return flat.reshape(space.shape or ()).astype(space.dtype)


def _choices(space: spaces.Space[Any]) -> tuple[int, ...]:
    """Number of choices of each head; empty for action spaces without choices."""
    return action_heads(space) if isinstance(space, spaces.Discrete | spaces.MultiDiscrete) else ()
