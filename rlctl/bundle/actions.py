"""From the network's last layer to an action, for each kind of action space, as Stable-Baselines3's PPO does it."""

from __future__ import annotations

from typing import Any, Protocol, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.core.errors import PolicyError

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]


class Answers(Protocol):
    """What is computed from the outputs of the last layer.

    Attributes:
        outputs: how many numbers the last layer gives.
        dtype: of the answers.
    """

    outputs: int
    dtype: np.dtype[Any]

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[Any]:
        """The mode of the distribution, flat; may overwrite ``outputs``."""

    def draw(self, outputs: Float32, mask: Mask | None, random: np.random.Generator) -> NDArray[Any]:
        """A sample of the distribution, flat."""

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """How much every output may change, at least, before ``likeliest`` gives another index; inf: never."""


def action_heads(space: spaces.MultiDiscrete | spaces.Discrete) -> tuple[int, ...]:
    """Number of choices of each head of an action space.

    >>> action_heads(spaces.MultiDiscrete([3, 2])), action_heads(spaces.Discrete(5))
    ((3, 2), (5,))
    """
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(int(n) for n in space.nvec)


def answers(space: spaces.Space[Any], log_std: Float32 | None = None, output: str = "plain") -> Answers:
    """What an action space needs.

    Args:
        log_std: for Box: logarithm of the standard deviation of each number.
        output: see ``rlctl.bundle.manifest.Network``.

    Raises:
        PolicyError: the space cannot be answered.
    """
    if output != "plain":
        if isinstance(space, spaces.Box) and np.isfinite([space.low, space.high]).all():
            return Squashed(space, drawn=output == "squashed_gaussian")
        raise PolicyError(f"actions of {space} have no bounds to be scaled to")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return Categorical(action_heads(space))
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(int(np.prod(space.shape)))
    if isinstance(space, spaces.Box) and np.issubdtype(cast(Any, space.dtype), np.floating) and log_std is not None:
        return Gaussian(space, log_std)
    raise PolicyError(f"actions of {space} cannot be answered; known: Discrete, MultiDiscrete, MultiBinary, real Box")


class Categorical:
    """Independent categorical heads over flat logits; what the mask forbids has probability 0."""

    def __init__(self, heads: tuple[int, ...]) -> None:
        self.heads = heads
        self.outputs = sum(heads)
        self.dtype: np.dtype[Any] = np.dtype(np.int64)
        ends = np.cumsum(heads).tolist()
        self._slices = [slice(end - n, end) for n, end in zip(heads, ends, strict=True)]

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[np.int64]:
        """The largest allowed logit of each head; the first of a head that allows nothing."""
        if mask is not None:
            outputs[~mask] = -np.inf
        return np.array([outputs[head].argmax() for head in self._slices], dtype=np.int64)

    def draw(self, outputs: Float32, mask: Mask | None, random: np.random.Generator) -> NDArray[np.int64]:
        """The largest of logits + Gumbel noise is a sample of their softmax."""
        return self.likeliest(outputs + random.gumbel(size=outputs.shape).astype(np.float32), mask)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """Half the least distance, over the heads, from the best allowed logit to the next."""
        allowed = outputs if mask is None else np.where(mask, outputs, -np.inf)
        least = np.inf
        for head in self._slices:
            known = np.sort(allowed[head][np.isfinite(allowed[head])])
            if len(known) > 1:
                least = min(least, float(known[-1] - known[-2]) / 2.0)
        return least


class Bernoulli:
    """Independent yes or no; an output is the logit of yes."""

    def __init__(self, outputs: int) -> None:
        self.outputs = outputs
        self.dtype: np.dtype[Any] = np.dtype(np.int8)

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[np.int8]:
        """Yes where it is likelier than no."""
        _refuse(mask)
        return (outputs > 0.0).astype(np.int8)

    def draw(self, outputs: Float32, mask: Mask | None, random: np.random.Generator) -> NDArray[np.int8]:
        """Yes with its probability."""
        _refuse(mask)
        # Logistic noise: P(logit + noise > 0) is the sigmoid of the logit.
        return (outputs + random.logistic(size=outputs.shape) > 0.0).astype(np.int8)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """Distance of the least certain logit from 0."""
        return float(np.abs(outputs).min())


class Gaussian:
    """Independent normal numbers around the outputs, clipped to the space's bounds: no squashing, as in PPO."""

    def __init__(self, space: spaces.Box, log_std: Float32) -> None:
        self.outputs = int(np.prod(space.shape))
        self._low, self._high = space.low.reshape(-1), space.high.reshape(-1)
        self.dtype: np.dtype[Any] = np.dtype(cast(Any, space.dtype))
        self._std: Float32 = np.exp(log_std)

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[Any]:
        """The mean, clipped."""
        _refuse(mask)
        return np.clip(outputs, self._low, self._high).astype(self.dtype)

    def draw(self, outputs: Float32, mask: Mask | None, random: np.random.Generator) -> NDArray[Any]:
        """Mean plus noise, clipped."""
        noise = random.standard_normal(self.outputs).astype(np.float32)
        return self.likeliest(outputs + self._std * noise, mask)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """There are no indices."""
        return np.inf


class Squashed:
    """The hyperbolic tangent of the outputs, scaled to the space's bounds, as in SAC and TD3.

    Args:
        drawn: the outputs are means, then logarithms of standard deviations.
    """

    def __init__(self, space: spaces.Box, drawn: bool) -> None:
        self._numbers = int(np.prod(space.shape))
        self.outputs = self._numbers * (2 if drawn else 1)
        self._low, self._high = space.low.reshape(-1), space.high.reshape(-1)
        self._drawn = drawn
        self.dtype: np.dtype[Any] = np.dtype(cast(Any, space.dtype))

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[Any]:
        """The tangent of the mean."""
        _refuse(mask)
        return self._scaled(outputs[: self._numbers])

    def draw(self, outputs: Float32, mask: Mask | None, random: np.random.Generator) -> NDArray[Any]:
        """The tangent of mean plus noise; what has no deviation has no noise."""
        _refuse(mask)
        mean = outputs[: self._numbers]
        if self._drawn:
            std = np.exp(np.clip(outputs[self._numbers :], -20.0, 2.0))
            mean = mean + std * random.standard_normal(self._numbers).astype(np.float32)
        return self._scaled(mean)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """There are no indices."""
        return np.inf

    def _scaled(self, mean: Float32) -> NDArray[Any]:
        scaled = self._low + 0.5 * (np.tanh(mean) + 1.0) * (self._high - self._low)
        return np.clip(scaled, self._low, self._high).astype(self.dtype)


def _refuse(mask: Mask | None) -> None:
    if mask is not None and not mask.all():
        raise PolicyError("a mask forbids choices of Discrete and MultiDiscrete actions only")
