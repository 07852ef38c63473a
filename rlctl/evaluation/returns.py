"""The comparison of policies on an environment with rewards: mean returns of the same held-out episodes."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from rich import box
from rich.table import Table

from rlctl.campaign import Action, Decision
from rlctl.errors import ConfigError
from rlctl.evaluation.play import EVALUATION, draw_instances
from rlctl.evaluation.statistics import LEVEL, Interval, resampled_sums
from rlctl.monitoring.progress import Progress
from rlctl.policy import Policy
from rlctl.rewarded import RewardFactory

SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Row:
    """One policy over all episodes.

    Attributes:
        mean: return of an episode, undiscounted, with its 95 % interval.
        difference: ``mean`` minus that of the reference on the same episodes, with its 95 % paired interval.
        length: steps of an episode.
    """

    policy: str
    episodes: int
    mean: float
    interval: Interval
    difference: float
    difference_interval: Interval
    length: float


@dataclass(frozen=True, slots=True)
class Returns:
    """Every policy's return in every episode; the first policy is the reference."""

    environment: str
    rows: Sequence[Row]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """JSON-ready form."""
        rows = [asdict(row) for row in self.rows]
        return {"schema": SCHEMA, "environment": self.environment, "seed": self.seed, "rows": rows}

    def table(self) -> Table:
        """For a terminal, 80 columns wide."""
        reference = self.rows[0].policy
        title = f"{self.environment}: return of {self.rows[0].episodes} held-out episodes"
        table = Table(title=title, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
        table.add_column("policy")
        for heading in ("mean return", f"minus {reference}", "steps"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            less = "" if row.policy == reference else _text(row.difference, row.difference_interval)
            table.add_row(row.policy, _text(row.mean, row.interval), less, f"{row.length:.1f}")
        return table


def evaluate(
    factory: RewardFactory, policies: Mapping[str, Policy | None], episodes: int, seed: int, progress: Progress
) -> Returns:
    """Let every policy play the same held-out episodes.

    Args:
        policies: by name; None draws from the action space. The first is the reference.
        seed: of the episodes.

    Raises:
        ConfigError: a policy cannot answer.
    """
    seeds = draw_instances(seed, EVALUATION, episodes)
    played: dict[str, list[tuple[float, int]]] = {}
    progress.start("comparing policies", len(seeds) * len(policies), "episodes")
    environment = factory.environment()
    try:
        for name, policy in policies.items():
            played[name] = []
            for instance in seeds:
                played[name].append(play(environment, name, copy.deepcopy(policy), instance))
                progress.advance(1)
    finally:
        progress.stop()
        environment.close()
    columns = np.array([[total for total, _ in of] for of in played.values()]).T
    sums = resampled_sums(np.hstack([columns, columns - columns[:, :1]]), seed=seed) / episodes
    tail = (1.0 - LEVEL) / 2.0
    lows, highs = np.quantile(sums, [tail, 1.0 - tail], axis=0).tolist()
    count, means = len(policies), columns.mean(axis=0).tolist()
    rows = [
        Row(
            policy=name,
            episodes=episodes,
            mean=means[i],
            interval=(lows[i], highs[i]),
            difference=means[i] - means[0],
            difference_interval=(lows[count + i], highs[count + i]),
            length=float(np.mean([steps for _, steps in played[name]])),
        )
        for i, name in enumerate(played)
    ]
    return Returns(factory.name, rows, seed)


def play(environment: gymnasium.Env[Any, Any], name: str, policy: Policy | None, instance: int) -> tuple[float, int]:
    """Return and length of one episode.

    Raises:
        ConfigError: the policy cannot answer.
    """
    observation, info = environment.reset(seed=instance)
    space = environment.action_space
    space.seed(instance % 2**32)
    if policy is not None:
        policy.reset(instance)
    total, steps, over = 0.0, 0, False
    while not over:
        if policy is None:
            action = _by_chance(space, info.get("action_mask"))
        else:
            action = _answer(space, policy, name, steps, observation, info)
        observation, reward, terminated, truncated, info = environment.step(action)
        total, steps, over = total + float(reward), steps + 1, terminated or truncated
    return total, steps


def _by_chance(space: spaces.Space[Any], mask: Any) -> Any:
    if mask is None or not isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return space.sample()
    flat = np.asarray(mask, np.int8).reshape(-1)
    if isinstance(space, spaces.Discrete):
        return space.sample(mask=flat)
    return space.sample(mask=tuple(np.split(flat, np.cumsum(space.nvec.reshape(-1))[:-1])))


def _answer(
    space: spaces.Space[Any], policy: Policy, name: str, step: int, observation: Any, info: Mapping[str, Any]
) -> Any:
    """Asks as for a campaign: rules read ``fields["observation"]``, networks the same as float32."""
    mask = np.asarray(info.get("action_mask", np.ones(_choices(space))), np.bool_)
    row = np.asarray(observation, np.float32)
    decision = Decision("environment", float(step), {"observation": observation}, row, mask, number=step)
    try:
        action = _in_space(space, policy.act(decision))
    except (KeyError, IndexError, TypeError, ValueError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise ConfigError(f"policy {name} does not fit this environment ({problem}): use one trained on it") from error
    if not space.contains(action):
        raise ConfigError(f"policy {name} answers {action!r}, which is not in {space}: use one trained on it")
    return action


def _in_space(space: spaces.Space[Any], answer: Action) -> Any:
    """A flat answer as the environment takes it; a rule may name it ``action``."""
    if isinstance(answer, Mapping):
        return answer["action"]
    flat: NDArray[Any] = np.asarray(answer)
    if isinstance(space, spaces.Discrete):
        return np.int64(flat.reshape(-1)[0] + space.start)
    return flat.reshape(space.shape or ()).astype(space.dtype)


def _choices(space: spaces.Space[Any]) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    return int(space.nvec.sum()) if isinstance(space, spaces.MultiDiscrete) else 0


def _text(value: float, interval: Interval) -> str:
    return f"{value:.1f} [{interval[0]:.1f}, {interval[1]:.1f}]"
