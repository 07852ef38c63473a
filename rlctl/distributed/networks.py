"""Layers of neural networks over a flat vector of weights, which they view and do not copy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rlctl.distributed.layout import Float32


class Perceptron:
    """Linear layers with an activation between them.

    Args:
        widths: of the input, each hidden layer, and the output.
        activation: ``tanh`` or ``relu``.

    Attributes:
        length: numbers of weights: of each layer the matrix (outputs, inputs) in C order, then the bias.
    """

    def __init__(self, widths: Sequence[int], activation: str = "tanh") -> None:
        if activation not in ("tanh", "relu"):
            raise ValueError(f"activation {activation!r}: known are tanh and relu")
        self.widths = tuple(widths)
        self.length = sum((inputs + 1) * outputs for inputs, outputs in pairwise(self.widths))
        self._relu = activation == "relu"
        self._layers: list[tuple[Float32, Float32]] = []

    def view(self, flat: Float32) -> None:
        """The weights lie here from now on."""
        self._layers, at = [], 0
        for inputs, outputs in pairwise(self.widths):
            middle, end = at + inputs * outputs, at + (inputs + 1) * outputs
            self._layers.append((flat[at:middle].reshape(outputs, inputs).T, flat[middle:end]))
            at = end

    def __call__(self, x: Float32) -> Float32:
        """Outputs [n, outputs] of inputs [n, inputs]."""
        last = len(self._layers) - 1
        for i, (weight, bias) in enumerate(self._layers):
            x = x @ weight
            x += bias
            if i < last:
                x = np.maximum(x, 0.0, out=x) if self._relu else np.tanh(x, out=x)
        return x


class Lstm:
    """One layer of long short-term memory, as PyTorch computes it: gates input, forget, cell, output.

    Attributes:
        length: numbers of weights: input matrix (4 units, inputs), recurrent matrix (4 units, units), and one bias, the
            sum of PyTorch's two.
    """

    def __init__(self, inputs: int, units: int) -> None:
        self.inputs, self.units = inputs, units
        self.length = 4 * units * (inputs + units + 1)

    def view(self, flat: Float32) -> None:
        """The weights lie here from now on."""
        a = 4 * self.units * self.inputs
        b = a + 4 * self.units * self.units
        self._input = flat[:a].reshape(4 * self.units, self.inputs).T
        self._recurrent = flat[a:b].reshape(4 * self.units, self.units).T
        self._bias = flat[b:]

    def __call__(self, x: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Outputs [n, units], and the new state [n, 2 units] of hidden and cell."""
        n = self.units
        gates = x @ self._input
        gates += state[:, :n] @ self._recurrent
        gates += self._bias
        # sigmoid(x) = (1 + tanh(x / 2)) / 2, which does not overflow
        gates[:, : 2 * n] *= 0.5
        gates[:, 3 * n :] *= 0.5
        np.tanh(gates, out=gates)
        i, f, g, o = (gates[:, k * n : (k + 1) * n] for k in range(4))
        cell = (0.5 * (1.0 + f)) * state[:, n:] + (0.5 * (1.0 + i)) * g
        hidden = (0.5 * (1.0 + o)) * np.tanh(cell)
        return hidden, np.concatenate([hidden, cell], axis=1)
