"""What earlier campaigns say of the next one: of its objective, its durations and its failures; saved in a folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.surrogates.learned_process import LearnedProcess
from rlctl.surrogates.model_folder import Arrays, ModelFolder
from rlctl.surrogates.process_learning import EarlierOutput, learn_process
from rlctl.surrogates.search_model import Evaluated

Floats = NDArray[np.float64]

PRIOR, PRIOR_ARRAYS = "prior.json", "prior.npz"
_FORM = ModelFolder("prior", "learn", PRIOR, PRIOR_ARRAYS, version=1)
OUTPUTS = ("loss", "cost", "success")
"""What is learned: the loss, the logarithm of node-seconds, and 1 or -1 for a result or none."""


@dataclass(frozen=True)
class SearchGround:
    """Where the campaigns of a kind take place.

    Attributes:
        groups, cost_groups: length scales of the features, and of those with resources; see ``GaussianProcess``.
        space, cost_space: features of points all over it, [p, features] and [p, cost features].
        noisy: whether repeated evaluations differ.
    """

    groups: NDArray[np.int64]
    cost_groups: NDArray[np.int64]
    space: Floats
    cost_space: Floats
    noisy: bool


def output_of(name: str, campaign: Evaluated) -> EarlierOutput:
    """An output of a campaign, one of ``OUTPUTS``, as models read it."""
    if name == "loss":
        known = np.isfinite(campaign.losses)
        return EarlierOutput(campaign.x[: len(known)][known], campaign.losses[known])
    if name == "cost":
        known = np.isfinite(campaign.cost) & (campaign.cost > 0.0)
        return EarlierOutput(campaign.cost_x[known], np.log(campaign.cost[known]))
    return EarlierOutput(campaign.x, np.where(campaign.succeeded, 1.0, -1.0))


@dataclass(frozen=True)
class CampaignPrior:
    """What was learned of a kind of campaign.

    Attributes:
        outputs: by name, one of ``OUTPUTS``; one is missing where nothing can be said of it.
    """

    outputs: Mapping[str, LearnedProcess]

    @classmethod
    def learn(cls, campaigns: Sequence[Evaluated], ground: SearchGround, seed: int) -> CampaignPrior:
        """Learn from the evaluations of campaigns; failures, if there is one."""
        outputs = {}
        for name in OUTPUTS:
            found = [output for one in campaigns if len((output := output_of(name, one)).y)]
            if len(found) < 2 or (name == "success" and min(one.y.min() for one in found) > 0.0):
                continue
            cost = name == "cost"
            outputs[name] = learn_process(
                found,
                ground.cost_groups if cost else ground.groups,
                ground.cost_space if cost else ground.space,
                seed,
                noisy=ground.noisy or name != "loss",
                warp=name == "loss",
            )
        return cls(outputs)


@dataclass(frozen=True)
class PriorFolder:
    """What a folder holds.

    Attributes:
        prior: what was learned.
        inputs: parameters and stages that it knows, as JSON.
        about: sources, evidence and versions.
        digest: SHA-256 of all of it.
    """

    prior: CampaignPrior
    inputs: Mapping[str, Any]
    about: Mapping[str, Any]
    digest: str


def write_prior(folder: Path, prior: CampaignPrior, inputs: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    """Write a new folder, as a whole or not at all."""
    arrays = {f"{name}.{key}": of for name, one in prior.outputs.items() for key, of in one.arrays().items()}
    outputs = {name: one.description() for name, one in prior.outputs.items()}
    _FORM.write(folder, arrays, {"outputs": outputs, "inputs": inputs, "about": about})


def read_prior(folder: Path) -> PriorFolder:
    """Read a folder.

    Raises:
        ConfigError: it is missing, damaged, or of another version.
    """

    def learned(data: Mapping[str, Any], arrays: Arrays, digest: str) -> PriorFolder:
        outputs = {
            name: LearnedProcess.restored(
                description,
                {key.removeprefix(f"{name}."): of for key, of in arrays.items() if key.startswith(f"{name}.")},
            )
            for name, description in data["outputs"].items()
        }
        return PriorFolder(CampaignPrior(outputs), data["inputs"], data["about"], digest)

    return _FORM.read(folder, learned)
