"""Evaluations that are made elsewhere: their parameters, their commands, and the folders with their inputs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rlctl.config.schema import Config
from rlctl.core.driver import Driver
from rlctl.core.errors import LaunchError
from rlctl.core.task import TaskSpec
from rlctl.plugins.registry import executor_factory, executor_options
from rlctl.programs.evaluation_folder import fill_folder
from rlctl.programs.program import description_of
from rlctl.steering.run_folder import WORK


@dataclass(frozen=True, slots=True)
class AskedPoint:
    """One evaluation.

    Attributes:
        evaluation: its number.
        parameters: by name.
        ranks, cores, gpus: what it would occupy here; cores and GPUs for each rank.
        command: of its program, as it would be started here.
        folder: its inputs, rendered; None: its program has none.
        stage: empty: there is only one.
    """

    evaluation: int
    parameters: Mapping[str, Any]
    ranks: int
    cores: int
    gpus: float
    command: Sequence[str]
    folder: str | None
    stage: str = ""

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def asked_points(config: Config, run: Path, driver: Driver, numbers: Sequence[int]) -> list[AskedPoint]:
    """Open evaluations of a run with these numbers; folders that are not there are made."""
    uids, executors = driver.campaign.open_evaluations(), None
    points = []
    for number in numbers:
        spec = driver.open[uids[number]]
        executors = executors or executor_factory(config.executor.name, executor_options(config))
        try:
            command = list(executors.command(spec))
        except LaunchError:  # it is elsewhere
            command = [str(spec.executable), *spec.arguments]
        given, need = spec.parameters, spec.resources
        points.append(
            AskedPoint(
                evaluation=number,
                parameters=given.get("parameters", given),
                ranks=need.ranks,
                cores=need.cores_per_rank,
                gpus=need.gpus_per_rank,
                command=command,
                folder=_folder(spec, run),
                stage=str(given.get("stage", "")),
            )
        )
    return points


def _folder(spec: TaskSpec, run: Path) -> str | None:
    described = description_of(spec)
    if described is None:
        return None
    program = json.loads((run / WORK / described[0]).read_text())
    folder = run / WORK / described[1]["folder"]
    if not folder.exists():
        new = folder.with_name(f".{folder.name}.new")  # a kill must not leave half of it
        fill_folder(program, described[1]["values"], new)
        new.replace(folder)
    return str(folder)
