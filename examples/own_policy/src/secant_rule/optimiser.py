"""An optimiser as a policy for the campaign ``curing``: a Gaussian process says where the target is most likely met."""

import numpy as np

PLACES = 99  # candidates within the bracket


class GaussianProcess:
    """Remember what was measured, fit a Gaussian process, and run where the peak most likely lies at the target.

    See ``rlctl.core.policy.Policy``. What is modelled is by how much the peak exceeds the oven's temperature.

    Args:
        length_K: over how many kelvin of the oven the excess stays alike.
        noise_K: by how much a measurement may be off.
        coarse_above_K: coarse runs are made while the bracket is wider than this.
        apart: while another run is in progress, stay this share of the bracket away from it.
    """

    name = "gaussian_process"
    SPACE = {  # noqa: RUF012
        "length_K": (5.0, 60.0, "log"),
        "noise_K": (0.1, 4.0, "log"),
        "coarse_above_K": (0.5, 60.0, "log"),
        "apart": (0.02, 0.4),
    }

    def __init__(self, length_K=25.0, noise_K=0.5, coarse_above_K=10.0, apart=0.15):
        self.length_K, self.noise_K = length_K, noise_K
        self.coarse_above_K, self.apart = coarse_above_K, apart
        self.excess_K = {}  # by oven temperature

    def reset(self, seed):
        """A new campaign, a new resin: what was measured of the last one says nothing."""
        self.excess_K = {}

    def state(self):
        """JSON only; its mappings have text as keys, so this is a list of pairs."""
        return {"excess_K": list(self.excess_K.items())}

    def restore(self, state):
        """What ``state`` gave, perhaps in an earlier process."""
        self.excess_K = dict(state["excess_K"])

    def act(self, decision):
        """A policy sees decisions only, so each decision is where it learns of results."""
        fields = decision.fields
        for oven, peak in zip(fields["bracket_K"], fields["peaks_K"], strict=True):
            if peak is not None:
                self.excess_K[oven] = peak - oven
        low, high = fields["bracket_K"]
        ovens = low + (high - low) * np.arange(1, PLACES + 1) / (PLACES + 1)
        mean, deviation = self.posterior(ovens)
        score = -0.5 * ((ovens + mean - fields["target_K"]) / deviation) ** 2 - np.log(deviation)
        for other in fields["running_K"]:
            score[np.abs(ovens - other) < self.apart * (high - low)] = -np.inf
        coarse = high - low > self.coarse_above_K and fields["undecided"] == 0
        return {"oven_K": float(ovens[np.argmax(score)]), "coarse": coarse}

    def posterior(self, ovens, prior_K=20.0, prior_deviation_K=30.0):
        """Mean and standard deviation of the excess at these ovens."""
        if not self.excess_K:
            return np.full(len(ovens), prior_K), np.full(len(ovens), prior_deviation_K)
        known, excess = map(np.array, zip(*self.excess_K.items(), strict=True))
        near = prior_deviation_K**2 * self._alike(known, known) + self.noise_K**2 * np.eye(len(known))
        across = prior_deviation_K**2 * self._alike(ovens, known)
        weights = np.linalg.solve(near, across.T)
        variance = prior_deviation_K**2 + self.noise_K**2 - np.sum(across.T * weights, axis=0)
        return prior_K + (excess - prior_K) @ weights, np.sqrt(variance)

    def _alike(self, one, other):
        return np.exp(-0.5 * ((one[:, None] - other[None, :]) / self.length_K) ** 2)
