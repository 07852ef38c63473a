"""Rollout buffers that are filled at once, with as many transitions as have come."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup


class Filled:
    """Mixed into a buffer of Stable-Baselines3, which it makes of changing size.

    Minibatches are nearly equal: a rest of few transitions would be a noisy step of its own.

    Attributes:
        learners: whose minibatches are one together, with advantages normalised over it; None: this one is alone.
        share: of this learner's samples in the last minibatch.
    """

    learners: RankGroup | None = None
    share = 1.0

    def fill(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Exchange the content: arrays that begin with [N], under the buffer's names for them."""
        for name, array in arrays.items():
            setattr(self, name, array)
        count = len(arrays["observations"])
        self.buffer_size = self.pos = count
        self.n_envs = 1
        self.full = self.generator_ready = True

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Minibatches, in random order."""
        for part in np.array_split(np.random.permutation(self.buffer_size), self.parts(batch_size)):
            yield self._get_samples(part)

    def parts(self, batch_size: int | None) -> int:
        """How many minibatches a pass has, of all learners as many."""
        parts = np.array([1 if batch_size is None else max(1, round(self.buffer_size / batch_size))])
        if self.learners is not None:
            self.learners.max(parts)
        return int(parts[0])

    def _get_samples(self, *arguments: Any) -> Any:
        data = super()._get_samples(*arguments)  # type: ignore[misc]
        if self.learners is None:
            return data
        advantages = data.advantages
        sums = [len(advantages), advantages.double().sum().item(), advantages.double().square().sum().item()]
        moments = np.array(sums)
        self.learners.sum(moments)
        count, total, squares = moments
        self.share = len(advantages) / count
        mean = total / count
        spread = np.sqrt(max(squares - count * mean**2, 0.0) / max(count - 1.0, 1.0))
        return data._replace(advantages=(advantages - mean) / (spread + 1e-8))


class FilledRolloutBuffer(Filled, RolloutBuffer):
    """For PPO."""


class FilledMaskableRolloutBuffer(Filled, MaskableRolloutBuffer):
    """For MaskablePPO."""


class FilledRecurrentRolloutBuffer(Filled, RecurrentRolloutBuffer):
    """For RecurrentPPO; ``seams`` tells where sequences begin besides the starts of episodes."""

    seams: NDArray[np.float32]

    def get(self, batch_size: int | None = None) -> Generator[Any, None, None]:
        """Minibatches of whole stretches, begun at a random place."""
        first = np.random.randint(self.buffer_size)
        order = np.roll(np.arange(self.buffer_size), -first)
        for part in np.array_split(order, self.parts(batch_size)):
            yield self._get_samples(part, self.seams)
