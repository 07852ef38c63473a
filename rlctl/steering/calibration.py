"""Measures start-up and scaling of a program on the configured executor, as a campaign of its own."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, brief
from rlctl.core.json_values import json_text
from rlctl.monitoring.progress import Progress
from rlctl.plugins.fittable import Scalable
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.evaluation_table import read_table
from rlctl.steering.probe import probe
from rlctl.steering.recorded_reading import timed_rows
from rlctl.steering.run_folder import read_run
from rlctl.steering.start import start
from rlctl.surrogates.measured_scaling import CALIBRATION, MeasuredScaling
from rlctl.system.files import write_atomically

_EMPTY_RUNS = 3


@dataclass(frozen=True, slots=True)
class OnCores:
    """What was measured on one choice of resources.

    Attributes:
        ranks, cores: cores of all ranks together.
        runs: that gave a result.
        median_s: of their durations.
        start_up_s: of an evaluation whose program does nothing.
        speed: how much faster than on one core the work is, without start-up, by the fitted law.
    """

    ranks: int
    cores: int
    runs: int
    median_s: float
    start_up_s: float
    speed: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """What ``calibrate`` has found."""

    folder: Path
    law: MeasuredScaling
    choices: Sequence[OnCores]

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.law.to_json(), "choices": [asdict(one) for one in self.choices], **provenance()}

    def to_text(self) -> str:
        """The law, for people."""
        serial = (
            f"{self.law.loading_s:.3f} s on all cores alike, then {100 * self.law.serial:.0f} % of the work is serial"
        )
        law = serial if len({one.cores for one in self.choices}) > 1 else "one number of cores: scaling is not known"
        scatter = f"measured times scatter by {100 * self.law.scatter:.0f} % around this"
        return f"{law}; {scatter}\nwrote {self.folder / CALIBRATION}; its evaluations: rlctl results {self.folder}"

    def table(self) -> Table:
        """The choices, for people."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for name in ("ranks", "cores", "runs", "median s", "start-up s", "speed-up", "efficiency"):
            table.add_column(name, justify="right")
        for one in self.choices:
            numbers = [f"{one.median_s:.3g}", f"{one.start_up_s:.3g}", f"{one.speed:.2f}"]
            cells = [str(one.ranks), str(one.cores), str(one.runs), *numbers, f"{100 * one.speed / one.cores:.0f} %"]
            table.add_row(*cells)
        return table


def calibrate(
    config: Config,
    out: Path,
    points: int = 4,
    *,
    resume: bool = False,
    boot_s: float = 0.0,
    progress: Progress | None = None,
    begun: Callable[[Path], None] | None = None,
) -> Calibration:
    """Run some points on every choice of resources, and an empty program; write ``calibration.json``.

    Args:
        config: whose program is measured, at the stage that counts, with the executor of the configuration.
        out: the run folder; ``rlctl twin`` reads it like any other.
        points: spread over the parameters.
        resume: go on with an interrupted calibration.
        boot_s, progress, begun: see ``rlctl.steer``.

    Raises:
        ConfigError: the campaign cannot be calibrated, or too few evaluations gave a result.
        StoppedError: the program fails repeatedly.
    """
    with config.source.located():
        factory = configured_campaign(config)
        if not isinstance(factory, Scalable):
            problem = f"campaign {brief(factory.name)} cannot be calibrated: calibrate a search of the same program"
            raise ConfigError(problem, ("campaign", "name"))
        changes = factory.scaling_options(points)
    campaign = config.campaign.model_copy(update={"options": {**config.campaign.options, **changes}})
    steer = config.steer.model_copy(update={"rules_on_twin": False})
    design = _same_file(config.model_copy(update={"campaign": campaign, "twin": None, "steer": steer}), config)
    rule = factory.scaling_rule
    start(design, rule, out, instance=None, resume=resume, boot_s=boot_s, progress=progress, begun=begun, chosen=None)
    runs = _runs(out)
    start_up_s = {ranks: _start_up_s(design, ranks) for ranks in sorted({run[1] for run in runs})}
    law = MeasuredScaling.fit(start_up_s, runs)
    calibration = Calibration(out, law, _choices(law, runs))
    write_atomically(out / CALIBRATION, json_text(calibration.to_json(), indent=1) + "\n")
    return calibration


def _runs(out: Path) -> list[tuple[int, int, int, float]]:
    """Point, ranks, cores of all ranks, and seconds of the evaluations with a result, with the fewest GPUs.

    Those that an interruption has met are left out.
    """
    run = read_run(out)
    table = read_table(run)
    assert table is not None
    rows = [row for row in timed_rows(run, table) if row["status"] == "done" and row["ended_s"] is not None]
    done = [row for row in rows if row["ended_s"] > row["started_s"]]
    if len(done) < 2:
        raise ConfigError(f"{out}: {len(done)} evaluations gave a result: see rlctl results {out}")
    fewest = min(row["gpus"] for row in done)
    numbers: dict[tuple[Any, ...], int] = {}
    runs = []
    for row in done:
        point = tuple(row[name] for name in table.findings.parameters)
        if row["gpus"] == fewest:
            number = numbers.setdefault(point, len(numbers))
            runs.append(
                (number, int(row["ranks"]), int(row["ranks"] * row["cores"]), row["ended_s"] - row["started_s"])
            )
    return runs


def _choices(law: MeasuredScaling, runs: Sequence[tuple[int, int, int, float]]) -> list[OnCores]:
    found = []
    for ranks, cores in sorted({(run[1], run[2]) for run in runs}):
        seconds = [run[3] for run in runs if run[1:3] == (ranks, cores)]
        speed = 1.0 / (law.serial + (1.0 - law.serial) / cores)
        found.append(OnCores(ranks, cores, len(seconds), statistics.median(seconds), law.start_up_s[ranks], speed))
    return found


def _start_up_s(config: Config, ranks: int) -> float:
    """Median duration of evaluations whose program does nothing: wrapper, folder, templates and launcher."""

    def emptied(section: Mapping[str, Any]) -> dict[str, Any]:
        kept = {key: of for key, of in section.items() if key not in ("before", "after", "failures", "progress")}
        return {**kept, "command": ["true"], "resources": {"ranks": ranks}}

    changed = {
        "program": None if config.program is None else emptied(config.program),
        "programs": {name: emptied(section) for name, section in config.programs.items()},
    }
    empty = _same_file(config.model_copy(update=changed), config)
    return statistics.median(probe(empty).duration_s for _ in range(_EMPTY_RUNS))


def _same_file(changed: Config, config: Config) -> Config:
    """A changed configuration whose paths begin where those of the original one do."""
    changed._source = config.source
    return changed
