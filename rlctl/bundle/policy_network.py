"""The network of a policy in NumPy, for saved policies and for actors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.attention import attention_logits
from rlctl.bundle.manifest import Network

Float32 = NDArray[np.float32]
Shapes = dict[str, tuple[int, ...]]
Weights = Mapping[str, NDArray[Any]]
ATTENTION = "attention."
"""What the names of the weights of attention begin with."""
LOG_STD = "log_std"
"""Of the actions of a Box, where the network gives their means."""


def weight_shapes(network: Network, inputs: int, outputs: int, box: bool) -> Shapes:
    """Names and shapes of the weights, in their order in a flat vector; matrices are (outputs, inputs).

    Those of the recurrent layer are PyTorch's (gates input, forget, cell, output), its two biases added.

    Args:
        inputs, outputs: numbers of the observation and, flat, of the action.
        box: whether the actions are of a Box.
    """
    if network.attention is not None:
        return {f"{ATTENTION}{name}": shape for name, shape in network.attention.shapes().items()}
    shapes: Shapes = {}
    if units := network.lstm:
        shapes |= {"lstm.input": (4 * units, inputs), "lstm.recurrent": (4 * units, units), "lstm.bias": (4 * units,)}
    last = 2 * outputs if network.output == "squashed_gaussian" else outputs
    for i, (numbers, width) in enumerate(pairwise([units or inputs, *network.hidden, last])):
        shapes |= {f"{i}.weight": (width, numbers), f"{i}.bias": (width,)}
    if box and network.output == "plain":
        shapes[LOG_STD] = (outputs,)
    return shapes


def views(flat: Float32, shapes: Shapes) -> dict[str, Float32]:
    """Arrays of these shapes, one after the other in a flat vector; nothing is copied."""
    found, at = {}, 0
    for name, shape in shapes.items():
        end = at + math.prod(shape)
        found[name] = flat[at:end].reshape(shape)
        at = end
    return found


class PolicyNetwork:
    """Hidden layers, perhaps behind a recurrent one, or attention over sets.

    Attributes:
        weights: as ``weight_shapes`` names them, and perhaps others; they are not copied.
        state_size: numbers of the recurrent layer's state, for each row.
    """

    def __init__(self, network: Network, weights: Weights) -> None:
        self.network, self.weights = network, weights
        self.state_size = 2 * network.lstm
        self._w = {name.removeprefix(ATTENTION): w.T if w.ndim == 2 else w for name, w in weights.items()}
        count = 0 if network.attention is not None else len(network.hidden) + 1
        self._layers = [(self._w[f"{i}.weight"], self._w[f"{i}.bias"]) for i in range(count)]

    def initial_state(self, count: int) -> Float32:
        """State of ``count`` rows at the begin of an episode, [count, state_size]."""
        return np.zeros((count, self.state_size), np.float32)

    def clipped(self, observations: Float32) -> Float32:
        """Observations as the first layer reads them."""
        clip = self.network.observation_clip
        return observations if clip is None else np.clip(observations, -clip, clip)

    def __call__(self, observations: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Outputs [n, outputs] of the last layer, before any mask, and the new state."""
        x = self.clipped(observations)
        if self.network.attention is not None:
            return attention_logits(self.network.attention, self._w, x), state
        if self.network.lstm:
            x, state = self._remember(x, state)
        relu, last = self.network.activation == "relu", len(self._layers) - 1
        for i, (weight, bias) in enumerate(self._layers):
            x = x @ weight
            x += bias
            if i < last:
                x = np.maximum(x, 0.0, out=x) if relu else np.tanh(x, out=x)
        return x, state

    def _remember(self, x: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Outputs [n, units] of the recurrent layer, and its new state [n, 2 units] of hidden and cell."""
        n = self.network.lstm
        gates = x @ self._w["lstm.input"]
        gates += state[:, :n] @ self._w["lstm.recurrent"]
        gates += self._w["lstm.bias"]
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow
        gates[:, : 2 * n] *= 0.5
        gates[:, 3 * n :] *= 0.5
        np.tanh(gates, out=gates)
        i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
        cell = (0.5 * (1.0 + f)) * state[:, n:] + (0.5 * (1.0 + i)) * g
        hidden = (0.5 * (1.0 + o)) * np.tanh(cell)
        return hidden, np.concatenate([hidden, cell], axis=1)
