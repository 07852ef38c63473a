"""The network of a policy in NumPy, over a flat vector of weights: for saved policies and for actors."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.attention import Attention, AttentionSpec
from rlctl.bundle.recurrent import Lstm

Float32 = NDArray[np.float32]


class Perceptron:
    """Linear layers with an activation between them.

    Args:
        widths: of the input, each hidden layer, and the output.
        activation: ``tanh`` or ``relu``.

    Attributes:
        length: numbers of weights: of each layer the matrix (outputs, inputs) in C order, then the bias.
        layers: (inputs, outputs) matrix and bias of each layer.
    """

    def __init__(self, widths: Sequence[int], activation: str = "tanh") -> None:
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation {activation!r}: known are tanh and relu")
        self.widths = tuple(widths)
        self.length = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))
        self.relu = activation == "relu"
        self.layers: list[tuple[Float32, Float32]] = []

    def view(self, flat: Float32) -> None:
        """Use these weights, which are not copied."""
        self.layers, at = [], 0
        for inputs, outputs in pairwise(self.widths):
            middle, end = at + inputs * outputs, at + (inputs + 1) * outputs
            self.layers.append((flat[at:middle].reshape(outputs, inputs).T, flat[middle:end]))
            at = end

    def __call__(self, x: Float32) -> Float32:
        """Outputs [n, outputs] of inputs [n, inputs]."""
        last = len(self.layers) - 1
        for i, (weight, bias) in enumerate(self.layers):
            x = x @ weight
            x += bias
            if i < last:
                x = np.maximum(x, 0.0, out=x) if self.relu else np.tanh(x, out=x)
        return x


class PolicyNetwork:
    """A recurrent layer, if there is one, and hidden layers; or attention over sets.

    Args:
        inputs: numbers of an observation.
        outputs: of the last layer.
        clip: of the observation, or None.
        lstm: units of the recurrent layer; 0: none.
        attention: in place of all layers; None: there is none.

    Attributes:
        length: numbers of weights: recurrent layer, hidden layers, last layer; or attention.
        state_size: numbers of the recurrent layer's state, for each row.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int],
        activation: str = "tanh",
        clip: float | None = None,
        lstm: int = 0,
        attention: AttentionSpec | None = None,
    ) -> None:
        self.clip = clip
        self.lstm = Lstm(inputs, lstm) if lstm else None
        self.attention = None if attention is None else Attention(attention)
        self.perceptron = Perceptron([lstm or inputs, *hidden, outputs], activation)
        self._split = self.lstm.length if self.lstm else 0
        self.length = self._split + (self.attention or self.perceptron).length
        self.state_size = 2 * lstm

    def view(self, flat: Float32) -> None:
        """Use these weights, which are not copied."""
        if self.lstm is not None:
            self.lstm.view(flat[: self._split])
        (self.attention or self.perceptron).view(flat[self._split :])

    def initial_state(self, count: int) -> Float32:
        """State of ``count`` rows at the begin of an episode, [count, state_size]."""
        return np.zeros((count, self.state_size), np.float32)

    def clipped(self, observations: Float32) -> Float32:
        """Observations as the first layer reads them."""
        return observations if self.clip is None else np.clip(observations, -self.clip, self.clip)

    def __call__(self, observations: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Outputs [n, outputs] of the last layer, before any mask, and the new state."""
        x = self.clipped(observations)
        if self.lstm is not None:
            x, state = self.lstm(x, state)
        return (self.attention or self.perceptron)(x), state
