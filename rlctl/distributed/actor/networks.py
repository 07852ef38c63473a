"""Layers of neural networks over a flat vector of weights, which they view and do not copy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from rlctl.distributed.comm.transition_spec import Float32


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
