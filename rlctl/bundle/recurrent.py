"""Long short-term memory over a flat vector of weights."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


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
