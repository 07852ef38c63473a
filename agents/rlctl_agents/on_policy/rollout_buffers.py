"""Rollout buffers that are filled at once, with as many transitions as have come."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib.common.maskable.buffers import MaskableRolloutBuffer
from sb3_contrib.common.recurrent.buffers import RecurrentRolloutBuffer
from stable_baselines3.common.buffers import RolloutBuffer


class Filled:
    """Mixed into a buffer of Stable-Baselines3, which it makes of changing size.

    Minibatches are nearly equal: a rest of few transitions would be a noisy step of its own.
    """

    minibatches: int | None = None
    """In each pass; None: as ``batch_size`` says."""

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
            yield self._get_samples(part)  # type: ignore[attr-defined]

    def parts(self, batch_size: int | None) -> int:
        """How many minibatches a pass has."""
        if self.minibatches is not None:
            return self.minibatches
        return 1 if batch_size is None else max(1, round(self.buffer_size / batch_size))


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
