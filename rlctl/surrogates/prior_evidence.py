"""Whether a prior helps: campaigns are left out, and predicted from their first evaluations with and without it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rlctl.surrogates.campaign_prior import CampaignPrior, SearchGround, output_of
from rlctl.surrogates.informed_output import InformedOutput
from rlctl.surrogates.output_model import OutputModel
from rlctl.surrogates.process_learning import EarlierOutput
from rlctl.surrogates.search_model import Evaluated

Floats = NDArray[np.float64]

CONTEXTS = (5, 10, 20)
"""Numbers of evaluations that are known."""

MOST_FOLDS = 10
_FEWEST, _MOST_GAIN = 5, 5.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """Predictions of one output of campaigns that were left out.

    Attributes:
        output: ``loss`` or ``cost``.
        known: first evaluations of each campaign that were known.
        campaigns: how many were predicted.
        rank, rank_without: correlation of ranks of predicted and found values, with and without the prior; means over
            campaigns.
        gain: natural logarithm of the density of found values with the prior, less that without, for one evaluation;
            median over campaigns.
    """

    output: str
    known: int
    campaigns: int
    rank: float
    rank_without: float
    gain: float

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def prior_evidence(
    campaigns: Sequence[Evaluated], ground: SearchGround, seed: int, done: Callable[[], object] = lambda: None
) -> list[Evidence]:
    """Leave out campaigns, one at a time or a tenth of them, and predict them.

    Args:
        done: called after each of ``folds(campaigns)``.
    """
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    number = folds(campaigns)
    for fold in range(number):
        prior = CampaignPrior.learn([one for i, one in enumerate(campaigns) if i % number != fold], ground, seed)
        for left_out in campaigns[fold::number]:
            for output in ("loss", "cost"):
                if output in prior.outputs:
                    of = output_of(output, left_out)
                    for known in CONTEXTS:
                        if len(of.y) >= known + _FEWEST:
                            pair = _models(prior, output, ground)
                            found.setdefault((output, known), []).append(_compared(*pair, of, known))
        done()
    rows = []
    for (output, known), each in sorted(found.items(), key=lambda item: (item[0][0] != "loss", item[0][1])):
        rank, without, gain = np.array(each).T
        rows.append(
            Evidence(output, known, len(each), float(rank.mean()), float(without.mean()), float(np.median(gain)))
        )
    return rows


def folds(campaigns: Sequence[Evaluated]) -> int:
    """How often campaigns are left out."""
    return min(len(campaigns), MOST_FOLDS)


def _models(prior: CampaignPrior, output: str, ground: SearchGround) -> tuple[InformedOutput, OutputModel]:
    cost = output == "cost"
    groups = ground.cost_groups if cost else ground.groups
    informed, plain = (OutputModel(groups, noisy=cost or ground.noisy, warp=not cost) for _ in range(2))
    return InformedOutput(prior.outputs[output], informed, groups), plain


def _compared(
    informed: InformedOutput, plain: OutputModel, of: EarlierOutput, known: int
) -> tuple[float, float, float]:
    """Correlations of ranks with and without the prior, and the gain in log density."""
    correlations, densities = [], []
    for model in (informed, plain):
        model.tune(of.x[:known], of.y[:known], np.random.default_rng(0))
        mean, deviation = model.predict(of.x[known:])
        z, wide = np.asarray(model.warped(of.y[known:])), np.hypot(deviation, model.noise)
        correlations.append(_rank_correlation(mean, z))
        densities.append(-0.5 * ((z - mean) / wide) ** 2 - np.log(wide))
    gain = np.clip(densities[0] - densities[1], -_MOST_GAIN, _MOST_GAIN)
    return correlations[0], correlations[1], float(gain.mean())


def _rank_correlation(a: Floats, b: Floats) -> float:
    if np.ptp(a) < 1e-9 or np.ptp(b) == 0.0:
        return 0.0
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])
