"""The transition format from environment to learner: names, dtypes and shapes, fixed by one ``TransitionSpec``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TransitionSpec:
    """Sizes of observations and actions; an observation is the flat vector [observation, mask, privileged].

    Attributes:
        n_obs: numbers of the environment's own flat observation.
        n_mask: allowed choices, flat over the heads, 1 or 0; 0 where the environment has no masks or the algorithm
            does not use them.
        n_privileged: quantities that only a twin knows and only a critic may see.
        n_action: numbers of an action: an index (from 0) per head, or a number per coordinate.
    """

    n_obs: int
    n_mask: int
    n_privileged: int
    n_action: int

    @cached_property
    def width(self) -> int:
        """Length of an observation."""
        return self.n_obs + self.n_mask + self.n_privileged

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """Of a transition, from actor to learner.

        ``observation`` is what the action was chosen on, ``action`` is as the algorithm stores it, ``log_prob`` is of
        the action under the policy of ``version`` that chose it; see ``Step`` for ``duration``.
        """
        return np.dtype(
            [
                ("observation", np.float32, (self.width,)),
                ("action", np.float32, (self.n_action,)),
                ("log_prob", np.float32),
                ("reward", np.float32),
                ("duration", np.float32),
                ("version", np.int32),
                ("terminated", np.bool_),
                ("truncated", np.bool_),
            ],
            align=True,
        )


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where an environment's randomness comes from: ``SeedSequence([seed, agent, environment, episode])``.

    Attributes:
        seed: of the learning.
        agent: number of the agent, where several learn in one job.
        first: number of the first of the environments that are stepped together; they are numbered through over all
            actors of the agent, so that with one environment for each it is the actor's number.
    """

    seed: int
    agent: int = 0
    first: int = 0

    def episode(self, environment: int, episode: int) -> int:
        """Seed of an episode, 32 bits; ``environment`` counts from 0 among those stepped together.

        >>> Seeds(1, 0, 4).episode(0, 7) == Seeds(1).episode(4, 7)
        True
        """
        sequence = np.random.SeedSequence([self.seed, self.agent, self.first + environment, episode])
        return int(sequence.generate_state(1)[0])


class EpisodeEnd(NamedTuple):
    """An episode that ended in a step.

    Attributes:
        environment: its number, from 0, among those stepped together.
        observation: [width], the last one of the episode; not the first one of the next.
        episode_return: undiscounted sum of the rewards.
        length: number of steps.
        metrics: numbers in the environment's last info.
    """

    environment: int
    observation: Float32
    episode_return: float
    length: int
    metrics: Mapping[str, float] = {}


class Step(NamedTuple):
    """Outcome of a step of n environments; one whose episode ended has already begun the next.

    Attributes:
        observations: [n, width], of the next decision.
        rewards: [n].
        durations: [n], time that the step took on the environment's own clock, in units of the discount: seconds over
            ``train.distributed.discount_s``, or 1 for every step without it.
        terminated, truncated: [n].
        episode_ends: in order of environment.
        tasks: ids of the tasks that were started.
    """

    observations: Float32
    rewards: Float32
    durations: Float32
    terminated: Bools
    truncated: Bools
    episode_ends: Sequence[EpisodeEnd] = ()
    tasks: Sequence[str] = ()


class VectorEnvironment(Protocol):
    """Environments that one process steps together.

    Attributes:
        count: how many, n.
        transition_spec: of observations and actions.
        observation_space, action_space: of one environment, as declared by it.
        failures: how often an environment failed, by kind; see ``rlctl.distributed.actor.env_guard``.
        episodes: of each environment, number of its current or, before ``reset``, its first episode.
    """

    count: int
    transition_spec: TransitionSpec
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    failures: Mapping[str, int]
    episodes: list[int]

    def reset(self) -> Float32:
        """Begin an episode in each; observations [n, width]."""

    def step(self, actions: NDArray[Any]) -> Step:
        """Apply an action in each.

        Args:
            actions: [n, n_action]: indices from 0 for choices, else numbers within the space's bounds.
        """

    def save(self) -> bytes | None:
        """Complete state; None where an environment cannot be saved."""

    def restore(self, state: bytes) -> Float32 | None:
        """Continue from ``save``; observations [n, width], or None where an environment could not be saved."""

    def close(self) -> None:
        """Close all environments."""
