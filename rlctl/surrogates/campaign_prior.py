"""What earlier campaigns say of the next one: of its objective, its durations and its failures; saved in a folder."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError
from rlctl.core.json_values import plain
from rlctl.surrogates.learned_process import LearnedProcess
from rlctl.surrogates.process_learning import EarlierOutput, learn_process
from rlctl.surrogates.search_model import Evaluated
from rlctl.system.files import atomic_folder

Floats = NDArray[np.float64]

FORMAT = 1
PRIOR, PRIOR_ARRAYS = "prior.json", "prior.npz"
OUTPUTS = ("loss", "cost", "success")
"""What is learned: the loss, the logarithm of node-seconds, and 1 or -1 for a result or none."""

_AGAIN = "make it again with rlctl learn"


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
    stream = io.BytesIO()
    arrays = {f"{name}.{key}": of for name, one in prior.outputs.items() for key, of in one.arrays().items()}
    np.savez_compressed(stream, **arrays)  # type: ignore[arg-type]
    content = stream.getvalue()
    data = {
        "format": FORMAT,
        "arrays_sha256": hashlib.sha256(content).hexdigest(),
        "outputs": {name: one.description() for name, one in prior.outputs.items()},
        "inputs": inputs,
        "about": about,
    }
    with atomic_folder(folder, (PRIOR_ARRAYS, PRIOR)) as new:
        (new / PRIOR_ARRAYS).write_bytes(content)
        (new / PRIOR).write_text(json.dumps(plain(data), indent=1) + "\n", encoding="utf-8")


def read_prior(folder: Path) -> PriorFolder:
    """Read a folder.

    Raises:
        ConfigError: it is missing, damaged, or of another version.
    """
    file = folder / PRIOR
    if not file.is_file():
        raise ConfigError(f"{folder} holds no prior, there is no {PRIOR} in it: make it with rlctl learn")
    try:
        text = file.read_bytes()
        data = json.loads(text)
        found = data["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file} cannot be read ({error}): {_AGAIN}") from None
    if found != FORMAT:
        raise ConfigError(f"{file} has format {found!r}, this rlctl reads {FORMAT}: {_AGAIN}")
    try:
        content = (folder / PRIOR_ARRAYS).read_bytes()
        if hashlib.sha256(content).hexdigest() != data["arrays_sha256"]:
            raise ConfigError(f"{folder / PRIOR_ARRAYS} is not the one that {PRIOR} was written with: {_AGAIN}")
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            arrays = dict(stored)
        outputs = {
            name: LearnedProcess.restored(
                description,
                {key.removeprefix(f"{name}."): of for key, of in arrays.items() if key.startswith(f"{name}.")},
            )
            for name, description in data["outputs"].items()
        }
        return PriorFolder(CampaignPrior(outputs), data["inputs"], data["about"], hashlib.sha256(text).hexdigest())
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{folder} is damaged ({error!r}): {_AGAIN}") from None
