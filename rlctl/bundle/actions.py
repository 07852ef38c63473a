"""Distributions over actions on the outputs of a network, for each kind of action space, as in Stable-Baselines3.

They work on rows: outputs [n, k], masks [n, k] or None, actions [n, a].
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.core.errors import PolicyError

Float32 = NDArray[np.float32]
Mask = NDArray[np.bool_]
Sample = tuple[NDArray[Any], Float32, Float32]
"""Actions for the environment; the same as an algorithm stores them; log-probabilities [n] of these, 0 if unknown."""
_LOG_2PI = math.log(2.0 * math.pi)
_SMALL = 1e-6
"""In the logarithm of the squashing correction, as in Stable-Baselines3."""


def action_heads(space: spaces.MultiDiscrete | spaces.Discrete) -> tuple[int, ...]:
    """Number of choices of each head of an action space.

    >>> action_heads(spaces.MultiDiscrete([3, 2])), action_heads(spaces.Discrete(5))
    ((3, 2), (5,))
    """
    return (int(space.n),) if isinstance(space, spaces.Discrete) else tuple(int(n) for n in space.nvec)


def action_distribution(
    space: spaces.Space[Any], log_std: Float32 | None = None, output: str = "plain", greedy: bool = False
) -> ActionDistribution:
    """The distribution for an action space.

    Args:
        log_std: for Box: logarithm of the standard deviation of each number.
        output: see ``rlctl.bundle.manifest.Network``.
        greedy: see ``Categorical``.

    Raises:
        PolicyError: there is none.
    """
    if output != "plain":
        if isinstance(space, spaces.Box) and np.isfinite([space.low, space.high]).all():
            return Squashed(space.low, space.high, drawn=output == "squashed_gaussian", dtype=space.dtype)
        raise PolicyError(f"actions of {space} have no bounds to be scaled to")
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return Categorical(action_heads(space), greedy)
    if isinstance(space, spaces.MultiBinary):
        return Bernoulli(int(np.prod(space.shape)))
    if isinstance(space, spaces.Box) and np.issubdtype(cast(Any, space.dtype), np.floating) and log_std is not None:
        return Gaussian(space.low, space.high, log_std, space.dtype)
    raise PolicyError(f"actions of {space} cannot be answered; known: Discrete, MultiDiscrete, MultiBinary, real Box")


class ActionDistribution(ABC):
    """A distribution over actions.

    Attributes:
        outputs: numbers of the last layer, for each row.
        dtype: of the actions.
    """

    outputs: int
    dtype: np.dtype[Any]

    @abstractmethod
    def mode(self, outputs: Float32, masks: Mask | None) -> NDArray[Any]:
        """The likeliest actions."""

    @abstractmethod
    def sample(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float = 0.0
    ) -> Sample:
        """Draw actions; ``exploration`` is used by those without randomness of their own."""

    def sample_uniform(self, count: int, masks: Mask | None, random: np.random.Generator) -> Sample:
        """Draw actions without a network: uniform over what is allowed."""
        return self.sample(np.zeros((count, self.outputs), np.float32), masks, random)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """How much every output of one row may change before ``mode`` gives another index; inf without indices."""
        return np.inf


class Categorical(ActionDistribution):
    """Independent choices, one for each head; what the mask forbids has probability 0.

    Args:
        heads: number of choices of each.
        greedy: outputs are values: ``sample`` takes the best, but with probability ``exploration`` any.
    """

    def __init__(self, heads: tuple[int, ...], greedy: bool = False) -> None:
        self.heads, self.outputs, self.dtype = heads, sum(heads), np.dtype(np.int64)
        self._greedy = greedy
        ends = np.cumsum(heads).tolist()
        self._slices = [slice(end - n, end) for n, end in zip(heads, ends, strict=True)]

    def mode(self, outputs: Float32, masks: Mask | None) -> NDArray[np.int64]:
        """The largest allowed logit of each head; the first of a head that allows nothing."""
        allowed = outputs if masks is None else np.where(masks, outputs, -np.inf)
        chosen = np.empty((len(outputs), len(self.heads)), np.int64)
        for i, head in enumerate(self._slices):
            allowed[:, head].argmax(axis=1, out=chosen[:, i])
        return chosen

    def sample(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float = 0.0
    ) -> Sample:
        """The largest of logits + Gumbel noise is a sample of their softmax."""
        if self._greedy:
            return self._epsilon_greedy(outputs, masks, random, exploration)
        if masks is not None:
            outputs = np.where(masks, outputs, np.float32(-1e8))
        noisy = outputs - np.log(random.standard_exponential(outputs.shape, dtype=np.float32))
        count = len(outputs)
        chosen = np.empty((count, len(self.heads)), np.int64)
        log_probs = np.zeros(count, np.float32)
        every = np.arange(count)
        for i, head in enumerate(self._slices):
            chosen[:, i] = noisy[:, head].argmax(axis=1)
            logits = outputs[:, head]
            shifted = logits - logits.max(axis=1, keepdims=True)
            log_probs += shifted[every, chosen[:, i]] - np.log(np.exp(shifted).sum(axis=1))
        return chosen, chosen.astype(np.float32), log_probs

    def sample_uniform(self, count: int, masks: Mask | None, random: np.random.Generator) -> Sample:
        """Uniform over what is allowed."""
        return Categorical(self.heads).sample(np.zeros((count, self.outputs), np.float32), masks, random)

    def _epsilon_greedy(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float
    ) -> Sample:
        chosen = self.mode(outputs, masks)
        explores = random.random(len(outputs)) < exploration
        if explores.any():
            chosen[explores] = self.sample_uniform(len(outputs), masks, random)[0][explores]
        return chosen, chosen.astype(np.float32), np.zeros(len(outputs), np.float32)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """Half the least distance, over the heads, from the best allowed logit to the next."""
        allowed = outputs if mask is None else np.where(mask, outputs, -np.inf)
        least = np.inf
        for head in self._slices:
            known = np.sort(allowed[head][np.isfinite(allowed[head])])
            if len(known) > 1:
                least = min(least, float(known[-1] - known[-2]) / 2.0)
        return least


class Bernoulli(ActionDistribution):
    """Independent yes or no; an output is the logit of yes."""

    def __init__(self, outputs: int) -> None:
        self.outputs, self.dtype = outputs, np.dtype(np.int8)

    def mode(self, outputs: Float32, masks: Mask | None) -> NDArray[np.int8]:
        """Yes where it is likelier than no."""
        _require_no_mask(masks)
        return (outputs > 0.0).astype(np.int8)

    def sample(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float = 0.0
    ) -> Sample:
        """Yes with its probability: P(logistic noise < logit) is the sigmoid of the logit."""
        _require_no_mask(masks)
        yes = random.logistic(size=outputs.shape) < outputs
        # log sigmoid(+-x) = -log(1 + exp(-+x))
        log_probs = -np.logaddexp(0.0, np.where(yes, -outputs, outputs)).sum(axis=1)
        return yes.astype(np.int8), yes.astype(np.float32), log_probs.astype(np.float32)

    def margin(self, outputs: Float32, mask: Mask | None) -> float:
        """Distance of the least certain logit from 0."""
        return float(np.abs(outputs).min())


class Gaussian(ActionDistribution):
    """Independent normal numbers around the outputs, clipped to bounds for the environment: no squashing, as in PPO."""

    def __init__(self, low: Any, high: Any, log_std: Float32, dtype: Any = np.float32) -> None:
        self._low, self._high = np.ravel(low), np.ravel(high)
        self.outputs, self.dtype = len(self._low), np.dtype(dtype)
        self._std: Float32 = np.exp(log_std)
        self._constant = float(log_std.sum()) + 0.5 * _LOG_2PI * self.outputs

    def mode(self, outputs: Float32, masks: Mask | None) -> NDArray[Any]:
        """The mean, clipped."""
        _require_no_mask(masks)
        return np.clip(outputs, self._low, self._high).astype(self.dtype)

    def sample(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float = 0.0
    ) -> Sample:
        """Mean plus noise; stored as drawn."""
        noise = random.standard_normal(outputs.shape, dtype=np.float32)
        stored = outputs + self._std * noise
        log_probs = -0.5 * np.square(noise).sum(axis=1) - self._constant
        return self.mode(stored, masks), stored, log_probs.astype(np.float32)

    def sample_uniform(self, count: int, masks: Mask | None, random: np.random.Generator) -> Sample:
        """From the standard normal distribution, as bounds may be infinite."""
        zeros = np.zeros((count, self.outputs), np.float32)
        return Gaussian(self._low, self._high, zeros[0], self.dtype).sample(zeros, masks, random)


class Squashed(ActionDistribution):
    """The hyperbolic tangent of the outputs, stored in [-1, 1] and scaled to bounds, as in SAC and TD3.

    Args:
        drawn: the outputs are means, then logarithms of standard deviations; otherwise ``sample`` adds normal noise of
            deviation ``exploration`` to the tangent, and clips.
    """

    def __init__(self, low: Any, high: Any, drawn: bool, dtype: Any = np.float32) -> None:
        self._low, self._high = np.ravel(low), np.ravel(high)
        self._numbers, self._drawn = len(self._low), drawn
        self.outputs = self._numbers * (2 if drawn else 1)
        self.dtype = np.dtype(dtype)

    def mode(self, outputs: Float32, masks: Mask | None) -> NDArray[Any]:
        """The tangent of the mean."""
        _require_no_mask(masks)
        return self._scaled(np.tanh(outputs[:, : self._numbers]))

    def sample(
        self, outputs: Float32, masks: Mask | None, random: np.random.Generator, exploration: float = 0.0
    ) -> Sample:
        """Mean plus noise, squashed (Haarnoja et al., arXiv:1812.05905, appendix C); or squashed plus noise."""
        _require_no_mask(masks)
        mean = outputs[:, : self._numbers]
        if not self._drawn:
            stored: Float32 = np.tanh(mean)
            if exploration > 0.0:
                noise = random.standard_normal(stored.shape, dtype=np.float32)
                np.clip(stored + np.float32(exploration) * noise, -1.0, 1.0, out=stored)
            return self._scaled(stored), stored, np.zeros(len(outputs), np.float32)
        log_std = np.clip(outputs[:, self._numbers :], -20.0, 2.0)
        noise = random.standard_normal(mean.shape, dtype=np.float32)
        stored = np.tanh(mean + np.exp(log_std) * noise)
        normal = -0.5 * np.square(noise) - log_std - 0.5 * _LOG_2PI
        log_probs = (normal - np.log(1.0 - np.square(stored) + _SMALL)).sum(axis=1)
        return self._scaled(stored), stored, log_probs.astype(np.float32)

    def sample_uniform(self, count: int, masks: Mask | None, random: np.random.Generator) -> Sample:
        """Uniform within the bounds."""
        stored = random.uniform(-1.0, 1.0, (count, self._numbers)).astype(np.float32)
        return self._scaled(stored), stored, np.full(count, -self._numbers * math.log(2.0), np.float32)

    def _scaled(self, stored: Float32) -> NDArray[Any]:
        scaled = self._low + 0.5 * (stored + 1.0) * (self._high - self._low)
        clipped: NDArray[Any] = np.clip(scaled, self._low, self._high).astype(self.dtype)
        return clipped


def _require_no_mask(masks: Mask | None) -> None:
    if masks is not None and not masks.all():
        raise PolicyError("a mask forbids choices of Discrete and MultiDiscrete actions only")
