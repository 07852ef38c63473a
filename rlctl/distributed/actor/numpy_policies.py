"""Policies of actors, in NumPy: a flat vector of weights, and what it means.

A rank with PyTorch takes seconds to start and hundreds of megabytes; a forward pass of a small network on few
observations is also an order of magnitude faster without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.attention import Attention, AttentionSpec
from rlctl.bundle.recurrent import Lstm
from rlctl.distributed.actor.networks import Perceptron
from rlctl.distributed.comm.transition_spec import Float32

_LOG_2PI = math.log(2.0 * math.pi)
_SMALL = 1e-6
"""In the logarithm of the squashing correction, as Stable-Baselines3 has it."""


@dataclass(slots=True)
class PolicyOutput:
    """Of a policy to the rows of n environments.

    Attributes:
        actions: [n, n_action], as ``VectorEnvironment.step`` takes them.
        stored: [n, n_action], as the algorithm stores them.
        log_probs: [n], of ``stored``; 0 where the algorithm needs none.
        state: [n, s], memory for the next answer.
    """

    actions: NDArray[Any]
    buffer_actions: Float32
    log_probs: Float32
    state: Float32


class Head(Protocol):
    """From the network's outputs to actions.

    Attributes:
        outputs: of the network, for each environment.
        extra: numbers among the weights beside the network's.
    """

    outputs: int
    extra: int

    def load(self, extra: Float32) -> None:
        """Take up the extra weights; a view, not kept changing."""

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Actions for the environment, as stored, and their log-probabilities."""

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """The same, whatever the network says."""


class ActorPolicy:
    """A network and a head.

    Args:
        spec: ``kind`` of the head and what it needs; ``n_obs``, ``n_mask``, ``hidden``, ``activation``; ``clip`` of the
            observation, or None; ``lstm``: units of a recurrent layer before the hidden ones, or 0; ``attention``: what
            ``rlctl.bundle.attention.AttentionSpec`` says, in place of hidden layers, or None.

    Attributes:
        length: numbers of the flat weights: recurrent layer, hidden layers, last layer, extra of the head; each layer
            as matrix (outputs, inputs) in C order, then bias.
        state_size: numbers of memory for each environment.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.n_obs, self.n_mask = int(spec["n_obs"]), int(spec["n_mask"])
        clip = spec.get("clip")
        self._clip = None if clip is None else float(clip)
        self.head: Head = HEADS[spec["kind"]](spec)
        units = int(spec.get("lstm") or 0)
        self._lstm = Lstm(self.n_obs, units) if units else None
        sets = spec.get("attention")
        self._network: Perceptron | Attention
        if sets is not None:
            self._network = Attention(AttentionSpec.model_validate(sets))
        else:
            widths = [units or self.n_obs, *spec["hidden"], self.head.outputs]
            self._network = Perceptron(widths, spec.get("activation", "tanh"))
        self._split = self._lstm.length if self._lstm else 0
        self._end = self._split + self._network.length
        self.length = self._end + self.head.extra
        self.state_size = 2 * units
        self._flat = np.zeros(self.length, np.float32)
        if self._lstm is not None:
            self._lstm.view(self._flat[: self._split])
        self._network.view(self._flat[self._split : self._end])

    def load(self, flat: Float32) -> None:
        """Take up new weights; copied."""
        self._flat[:] = flat
        self.head.load(self._flat[self._end :])

    def initial_state(self, count: int) -> Float32:
        """Memory of ``count`` environments at the begin of an episode, [count, state_size]."""
        return np.zeros((count, self.state_size), np.float32)

    def outputs(self, rows: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Of the last layer, and the new memory."""
        x = rows[:, : self.n_obs]
        if self._clip is not None:
            x = np.clip(x, -self._clip, self._clip)
        if self._lstm is not None:
            x, state = self._lstm(x, state)
        return self._network(x), state

    def act(
        self,
        rows: Float32,
        state: Float32,
        random: np.random.Generator,
        exploration: float = 0.0,
        at_random: bool = False,
    ) -> PolicyOutput:
        """Choose.

        Args:
            rows: [n, row].
            state: [n, state_size]; 0 where an episode begins.
            exploration, at_random: see ``rlctl.distributed.learner.experience_source.ExperienceSource.publish``.
        """
        masks = rows[:, self.n_obs : self.n_obs + self.n_mask] > 0.5 if self.n_mask else None
        if at_random:
            if self._lstm is not None:
                _, state = self.outputs(rows, state)
            return PolicyOutput(*self.head.at_random(len(rows), masks, random), state)
        outputs, state = self.outputs(rows, state)
        return PolicyOutput(*self.head.draw(outputs, masks, random, exploration), state)


def actor_policy(spec: Mapping[str, Any]) -> ActorPolicy:
    """The policy that ``spec`` tells of, with weights of 0."""
    return ActorPolicy(spec)


class Categorical:
    """Independent choices, one for each head; ``spec["heads"]``: how many there are of each."""

    extra = 0

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.heads = tuple(int(n) for n in spec["heads"])
        self.outputs = sum(self.heads)
        ends = np.cumsum(self.heads).tolist()
        self._slices = [slice(end - n, end) for n, end in zip(self.heads, ends, strict=True)]

    def load(self, extra: Float32) -> None:
        """There are none."""

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """The largest of logits + Gumbel noise is a sample of their softmax."""
        if masks is not None:
            outputs = np.where(masks, outputs, np.float32(-1e8))
        noisy = outputs - np.log(random.standard_exponential(outputs.shape, dtype=np.float32))
        count = len(outputs)
        chosen = np.empty((count, len(self.heads)), np.int64)
        log_probs = np.zeros(count, np.float32)
        every = np.arange(count)
        for i, part in enumerate(self._slices):
            chosen[:, i] = noisy[:, part].argmax(axis=1)
            logits = outputs[:, part]
            shifted = logits - logits.max(axis=1, keepdims=True)
            log_probs += shifted[every, chosen[:, i]] - np.log(np.exp(shifted).sum(axis=1))
        return chosen, chosen.astype(np.float32), log_probs

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Uniform over what is allowed."""
        return self.draw(np.zeros((count, self.outputs), np.float32), masks, random, 0.0)


class Greedy(Categorical):
    """The best of the values of one head, but with probability ``exploration``, for each environment, any."""

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Epsilon-greedy."""
        allowed = outputs if masks is None else np.where(masks, outputs, -np.inf)
        chosen = allowed.argmax(axis=1)[:, None]
        curious = random.random(len(outputs)) < exploration
        if curious.any():
            chosen[curious] = self.at_random(len(outputs), masks, random)[0][curious]
        return chosen, chosen.astype(np.float32), np.zeros(len(outputs), np.float32)

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Uniform over what is allowed."""
        return super().draw(np.zeros((count, self.outputs), np.float32), masks, random, 0.0)


class Bernoulli:
    """Independent yes or no; an output is the logit of yes. ``spec["outputs"]``: how many."""

    extra = 0

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.outputs = int(spec["outputs"])

    def load(self, extra: Float32) -> None:
        """There are none."""

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Yes with its probability."""
        yes = random.logistic(size=outputs.shape) < outputs
        stored = yes.astype(np.float32)
        # log sigmoid(+-x) = -log(1 + exp(-+x))
        log_probs = -np.logaddexp(0.0, np.where(yes, -outputs, outputs)).sum(axis=1)
        return yes.astype(np.int8), stored, log_probs.astype(np.float32)

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Either, equally likely."""
        return self.draw(np.zeros((count, self.outputs), np.float32), masks, random, 0.0)


class _Box:
    """Numbers within bounds, ``spec["low"]`` and ``spec["high"]``, flat."""

    extra = 0

    def __init__(self, spec: Mapping[str, Any]) -> None:
        bounds = [np.asarray(spec[name], np.float64) for name in ("low", "high")]
        self.low, self.high = bounds
        self.outputs = len(self.low)

    def load(self, extra: Float32) -> None:
        """There are none."""

    def unscaled(self, scaled: Float32) -> Float32:
        """From [-1, 1] to the bounds."""
        numbers: Float32 = (self.low + 0.5 * (scaled + 1.0) * (self.high - self.low)).astype(np.float32)
        return numbers

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Uniform within the bounds."""
        scaled = random.uniform(-1.0, 1.0, (count, self.outputs)).astype(np.float32)
        return self.unscaled(scaled), scaled, np.full(count, -self.outputs * math.log(2.0), np.float32)


class Gaussian(_Box):
    """Normal numbers around the outputs, as PPO has them: stored as drawn, clipped for the environment.

    Its extra weights are the logarithms of the standard deviations.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self.extra = self.outputs
        self._std: Float32 = np.ones(self.outputs, np.float32)
        self._constant = 0.0

    def load(self, extra: Float32) -> None:
        """The standard deviations."""

        self._std = np.exp(extra)
        self._constant = float(extra.sum()) + 0.5 * _LOG_2PI * self.outputs

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Mean plus noise."""
        noise = random.standard_normal(outputs.shape, dtype=np.float32)
        stored = outputs + self._std * noise
        log_probs = -0.5 * np.square(noise).sum(axis=1) - self._constant
        return np.clip(stored, self.low, self.high).astype(np.float32), stored, log_probs.astype(np.float32)

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """From the standard normal distribution, as bounds may be infinite."""
        noise = random.standard_normal((count, self.outputs), dtype=np.float32)
        log_probs = -0.5 * np.square(noise).sum(axis=1) - 0.5 * _LOG_2PI * self.outputs
        return np.clip(noise, self.low, self.high).astype(np.float32), noise, log_probs.astype(np.float32)


class SquashedGaussian(_Box):
    """As SAC has it: the hyperbolic tangent of normal numbers, stored in [-1, 1]; outputs are means, then log std."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        super().__init__(spec)
        self._numbers = self.outputs
        self.outputs = 2 * self._numbers

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Squashed mean plus noise (Haarnoja et al., arXiv:1812.05905, appendix C)."""
        mean, log_std = outputs[:, : self._numbers], np.clip(outputs[:, self._numbers :], -20.0, 2.0)
        noise = random.standard_normal(mean.shape, dtype=np.float32)
        scaled: Float32 = np.tanh(mean + np.exp(log_std) * noise)
        normal = -0.5 * np.square(noise) - log_std - 0.5 * _LOG_2PI
        log_probs = (normal - np.log(1.0 - np.square(scaled) + _SMALL)).sum(axis=1)
        return self.unscaled(scaled), scaled, log_probs.astype(np.float32)

    def at_random(
        self, count: int, masks: NDArray[np.bool_] | None, random: np.random.Generator
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """Uniform within the bounds."""
        scaled = random.uniform(-1.0, 1.0, (count, self._numbers)).astype(np.float32)
        return self.unscaled(scaled), scaled, np.full(count, -self._numbers * math.log(2.0), np.float32)


class Deterministic(_Box):
    """As TD3 has it: the hyperbolic tangent of the outputs, with normal noise of deviation ``exploration``."""

    def draw(
        self, outputs: Float32, masks: NDArray[np.bool_] | None, random: np.random.Generator, exploration: float
    ) -> tuple[NDArray[Any], Float32, Float32]:
        """The action plus noise, clipped to [-1, 1]."""
        scaled: Float32 = np.tanh(outputs)
        if exploration > 0.0:
            noise = random.standard_normal(scaled.shape, dtype=np.float32)
            np.clip(scaled + np.float32(exploration) * noise, -1.0, 1.0, out=scaled)
        return self.unscaled(scaled), scaled, np.zeros(len(outputs), np.float32)


HEADS: Mapping[str, Any] = {
    "categorical": Categorical,
    "greedy": Greedy,
    "bernoulli": Bernoulli,
    "gaussian": Gaussian,
    "squashed_gaussian": SquashedGaussian,
    "deterministic": Deterministic,
}
"""What ``spec["kind"]`` may be."""
