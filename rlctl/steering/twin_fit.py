"""Fits the twin of a campaign to past evaluations, and says how well it predicts those that it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlctl.config.load import config_hash, load_config
from rlctl.config.provenance import provenance
from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, StorageError, brief
from rlctl.plugins.fittable import Fittable
from rlctl.plugins.registry import configured_campaign
from rlctl.steering.recorded_reading import is_run, read_recorded_each
from rlctl.steering.run_folder import CONFIG
from rlctl.surrogates.fitted_folder import DESCRIPTION, write_fitted
from rlctl.surrogates.fitted_output import MOST_ROWS
from rlctl.surrogates.held_out import Agreement
from rlctl.system.files import require_folder, storage_errors


@dataclass(frozen=True, slots=True)
class FittedTwin:
    """A twin that was written.

    Attributes:
        folder: where.
        rows, failed: evaluations that it was fitted to, and how many of them failed.
        held_out: how well evaluations are predicted that the models have not seen.
    """

    folder: Path
    rows: int
    failed: int
    held_out: Agreement

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        of = {"twin": str(self.folder), "rows": self.rows, "failed": self.failed}
        return {**of, "held_out": self.held_out.to_json()}

    def to_text(self) -> str:
        """For people."""
        some = f", {MOST_ROWS} of them used" if self.rows > MOST_ROWS else ""
        lines = [f"{self.rows} evaluations{some}, {self.failed} of them failed; held out, a fifth at a time:"]
        lines += [f"  {line}" for line in self.held_out.lines()]
        lines.append(f"wrote {self.folder}; use it with this line in the configuration: twin: {self.folder}")
        return "\n".join(lines)


def fit_twin(paths: Sequence[Path], out: Path, config: Config | None = None, seed: int | None = None) -> FittedTwin:
    """Fit a twin and write its folder; an earlier twin there is replaced.

    Args:
        paths: run folders of ``rlctl steer`` or ``rlctl calibrate``, and CSV files.
        config: whose parameters, results and stages are modelled; None: that of the first run folder.
        seed: of the division into fifths; None: that of the configuration.

    Raises:
        ConfigError: the sources cannot be used, or have too few evaluations.
        StorageError: the folder cannot be written, or holds something else.
    """
    require_folder(out)
    if out.is_dir() and any(out.iterdir()) and not (out / DESCRIPTION).exists():
        raise StorageError(f"{out} holds other files: give another folder")
    config = config or _config_of(paths)
    seed = config.seed if seed is None else seed
    with config.source.located():
        factory = fittable(config)
        sources = read_recorded_each(paths)
        fit = factory.fit_twin(sources, seed)
    about = {
        "campaign": config.campaign.name,
        "config_hash": config_hash(config),
        "sources": [source.to_json() for source in sources],
        "rows": fit.rows,
        "failed": fit.failed,
        "seed": seed,
        "held_out": fit.held_out.to_json(),
        **provenance(),
    }
    with storage_errors(out):
        write_fitted(out, fit.model, about)
    return FittedTwin(out, fit.rows, fit.failed, fit.held_out)


def fittable(config: Config) -> Fittable:
    """The factory of a campaign whose twin can be fitted; else ConfigError."""
    factory = configured_campaign(config)
    if not isinstance(factory, Fittable):
        problem = f"no twin can be fitted to campaign {brief(factory.name)}, it has one of its own"
        raise ConfigError(problem, ("campaign", "name"))
    return factory


def _config_of(paths: Sequence[Path]) -> Config:
    run = next((path for path in paths if is_run(path)), None)
    if run is None:
        missing = next((path for path in paths if not path.exists()), None)
        if missing is not None:
            raise ConfigError(f"{missing}: there is no such run folder or CSV file")
        raise ConfigError("CSV files do not say what their columns mean: add --config CONFIG")
    return load_config(run / CONFIG)
