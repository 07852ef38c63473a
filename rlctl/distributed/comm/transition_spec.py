"""What travels between an environment, the actor that holds it and the learner, as arrays of known shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import gymnasium
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Layout:
    """Of a row, which is what a policy and its critic see of one environment: [observation, mask, privileged].

    Attributes:
        n_obs: numbers of the flat observation.
        n_mask: allowed choices, flat over the heads, 1 or 0; 0 where the environment tells no masks, or the algorithm
            knows none.
        n_privileged: what only a twin knows and only a critic may see.
        n_action: numbers of an action: an index (from 0) per head, or a number per coordinate.
    """

    n_obs: int
    n_mask: int
    n_privileged: int
    n_action: int

    @property
    def row(self) -> int:
        """Length of a row."""
        return self.n_obs + self.n_mask + self.n_privileged


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where an environment's randomness comes from: ``SeedSequence([seed, agent, environment, episode])``.

    Attributes:
        seed: of the learning.
        agent: which of several agents in one job.
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


@dataclass(frozen=True, slots=True)
class Ended:
    """An episode that ended in a step.

    Attributes:
        environment: which one, from 0, among those stepped together.
        row: [row], what was seen last; not what the next episode begins with.
        ret: undiscounted sum of its rewards.
        length: its steps.
        figures: numbers that the environment told at the end.
    """

    environment: int
    row: Float32
    ret: float
    length: int
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Step:
    """What a step of n environments gave; one that ended has begun anew.

    Attributes:
        rows: [n, row], what is seen now.
        rewards: [n].
        durations: [n], time that the step took in the environment's own clock, in units of the discount: seconds over
            ``train.distributed.discount_s``, or 1 for every step without it.
        terminated, truncated: [n].
        ended: the episodes that ended, in order of environment.
        tasks: ids of the tasks that were started.
    """

    rows: Float32
    rewards: Float32
    durations: Float32
    terminated: Bools
    truncated: Bools
    ended: Sequence[Ended] = ()
    tasks: Sequence[str] = ()


class Worlds(Protocol):
    """Environments that one process steps together.

    Attributes:
        count: how many, n.
        layout: of rows and actions.
        observation_space, action_space: of one environment, as its maker declares them.
        failures: how often an environment failed, by kind; see ``rlctl.distributed.actor.env_guard``.
        episodes: of each environment, number of the episode that it is in, or will begin with.
    """

    count: int
    layout: Layout
    observation_space: gymnasium.Space[Any]
    action_space: gymnasium.Space[Any]
    failures: Mapping[str, int]
    episodes: list[int]

    def begin(self) -> Float32:
        """Begin an episode in each; rows, [n, row]."""

    def step(self, actions: NDArray[Any]) -> Step:
        """Answer the open decision of each.

        Args:
            actions: [n, n_action]: indices from 0 for choices, else numbers within the space's bounds.
        """

    def save(self) -> bytes | None:
        """Everything that the future depends on; None where an environment cannot be saved."""

    def restore(self, state: bytes) -> Float32 | None:
        """Go on where ``save`` was called; rows, [n, row], or None where some environment could not be saved."""

    def close(self) -> None:
        """Let go of everything."""
