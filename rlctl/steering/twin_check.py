"""How far a fitted twin was from the last real run of its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlctl.config.schema import Config
from rlctl.core.errors import ConfigError, JournalError
from rlctl.steering.recorded_reading import is_run, read_recorded
from rlctl.steering.run_names import runs_of
from rlctl.steering.twin_fit import fittable
from rlctl.surrogates.held_out import Agreement

FEWEST_VALUES = 10
"""Values of a run that a twin is judged by at least."""


@dataclass(frozen=True, slots=True)
class TwinDistance:
    """How a fitted twin compares with the last real run.

    Attributes:
        run: that run; None: there is none that the twin was not fitted to.
        found: how well the twin predicts its evaluations; None without a run.
        reason: why there is no run to compare with.
        outside: share of values outside the 90 % intervals, of the run, or else of the twin's held-out evaluations.
    """

    run: Path | None
    found: Agreement | None
    reason: str
    outside: float

    def to_text(self) -> str:
        """For people."""
        share = f"{100 * self.outside:.0f} % outside the 90 % intervals"
        if self.found is None:
            return f"twin: {self.reason}; held-out evaluations of its fit: {share}"
        return "\n  ".join([f"twin, compared with {self.run}: {share}", *self.found.lines()])


def twin_distance(config: Config) -> TwinDistance | None:
    """Compare the configuration's fitted twin with the newest run that is named after it; None: it has no such twin.

    Raises:
        ConfigError: the twin cannot be used, or lies farther from the run than ``twin.most_outside`` allows.
    """
    if config.twin is None or config.twin.fitted is None:
        return None
    with config.source.located():
        factory = fittable(config)
        about = factory.twin_about()
        held = float(about["held_out"]["outside"])
        sources = {one["path"]: one["sha256"] for one in about["sources"]}
        for run in runs_of(config):
            if not is_run(run):
                continue
            try:
                source = read_recorded(run)
                found = factory.compare_twin(source)
            except (ConfigError, JournalError):  # of another version of this configuration, or without evaluations
                continue
            if source.sha256 in sources.values() or str(run.absolute()) in sources:
                return TwinDistance(None, None, f"{run} is among its data", held)
            _require_near(config.twin.most_outside, run, found)
            return TwinDistance(run, found, "", found.outside)
    return TwinDistance(None, None, "there is no real run to compare with", held)


def _require_near(most: float, run: Path, found: Agreement) -> None:
    if found.predictions < FEWEST_VALUES or found.outside <= most:
        return
    raise ConfigError(
        f"of {found.predictions} values of {run}, {100 * found.outside:.0f} % lie outside the twin's 90 % intervals, "
        f"more than most_outside: {most:g} allows: fit it again with that run; or set most_outside, beside fitted",
        ("twin",),
    )
