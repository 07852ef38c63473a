"""Makes annealing campaigns and what belongs to them."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.config.validation import check_options
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.records import Record
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.system.mpi import require_mpiexec
from rlctl_envs.block_copolymer.campaign import AnnealingCampaign
from rlctl_envs.block_copolymer.material import Material
from rlctl_envs.block_copolymer.options import AnnealingOptions
from rlctl_envs.block_copolymer.pictures import films_png
from rlctl_envs.block_copolymer.twin import FilmTwin, compute


class BlockCopolymer(CampaignFactory):
    """Block-copolymer annealing; see the README of this folder and ``AnnealingOptions``."""

    name = "block_copolymer"
    version = 2  # 2: the measured wavenumber has an error
    opponents = ("annealing_posterior", "feedback")
    changeable = (
        *(f"campaign.options.{key}" for key in ("films", "allocation_s", "retries", "program.walltime_s")),
        "machine.nodes",
    )

    def __init__(self, options: Mapping[str, Any] | None = None) -> None:
        self.options = check_options(AnnealingOptions, options, "campaign.options")
        self.capacity = self.options.capacity()

    def check(self, capacity: Capacity, real: bool) -> None:
        """Refuse a machine with less than a core for each chain and each rank, and real ranks without mpiexec."""
        for name, cores in (("ranks", max(self.options.ranks)), ("chains", self.options.chains)):
            if cores > capacity.total_cores:
                raise ConfigError(
                    f"{name} of {cores} need as many cores, but machine.nodes times machine.cores is "
                    f"{capacity.total_cores}: lower {name}, or raise machine.cores",
                    ("campaign", "options", name),
                )
        if real and self.options.clairvoyant:
            raise ConfigError("only a twin is clairvoyant: leave it out", ("campaign", "options", "clairvoyant"))
        if real and max(self.options.ranks) > 1:
            require_mpiexec(max(self.options.ranks), ("campaign", "options", "ranks"))

    def campaign(self, seed: int) -> AnnealingCampaign:
        """The campaign of instance ``seed``."""
        return AnnealingCampaign(self.options, seed, self.privileged(seed) if self.options.clairvoyant else None)

    def task_model(self, seed: int) -> FilmTwin:
        """The twin of instance ``seed``."""
        return FilmTwin(self.options, _material(seed), seed)

    def repetitions(self, seed: int, count: int) -> list[FilmTwin]:
        """Twins of instance ``seed`` with other thermal noise, measurements and fresh films; no segment dies."""
        program = self.options.program.model_copy(update={"failure_probability": 0.0})
        options = self.options.model_copy(update={"program": program})
        return [FilmTwin(options, _material(seed), seed, number) for number in range(1, count + 1)]

    def privileged(self, seed: int) -> NDArray[np.float32]:
        """The material, [7], each number about within -1 to 1."""
        return _material(seed).as_array()

    def hidden(self, seed: int) -> list[float]:
        """The material's parameters."""
        return list(_material(seed).to_json().values())

    def prepare(self, folder: Path, seed: int) -> None:
        """Write ``material.json``, which the program reads and the policy does not."""
        (folder / "material.json").write_text(json.dumps(_material(seed).to_json(), indent=1) + "\n")

    def outcomes(self, launches: Sequence[tuple[TaskModel, Launch]]) -> list[Simulated]:
        """What segments of many instances do, advanced together."""
        return compute(launches)

    def write_twin_files(self, model: TaskModel, folder: Path) -> bool:
        """Write the fields of the twin's films, as the program leaves them."""
        if isinstance(model, FilmTwin):
            model.write_files(folder)
        return isinstance(model, FilmTwin)

    def pictures(self, folder: Path, records: Sequence[Record]) -> dict[str, bytes]:
        """The films as they are now."""
        png = io.BytesIO()
        return {"films": png.getvalue()} if films_png(folder, records, png) else {}


@lru_cache(maxsize=4096)
def _material(seed: int) -> Material:
    return Material.draw(seed)
