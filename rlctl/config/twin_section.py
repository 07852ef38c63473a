"""The section ``twin``: what stands in for real evaluations in training, tuning and comparison."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from rlctl.config.section import Section


def _pair(value: Any) -> Any:
    """One number is both ends of a range."""
    return (value, value) if isinstance(value, int | float) and not isinstance(value, bool) else _tuple(value)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _rising(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] <= value[1]:
        raise ValueError(f"{list(value)}: give [low, high], or one number")
    return value


Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PositiveRange = Annotated[tuple[Positive, Positive], BeforeValidator(_pair), AfterValidator(_rising)]
ShareRange = Annotated[tuple[Share, Share], BeforeValidator(_pair), AfterValidator(_rising)]


class SyntheticSection(Section):
    """Problems that are drawn at random over the parameters' ranges.

    A range is ``[low, high]``, or one number. Each problem has another value from it. Simulations in segments use
    ``seconds``, ``serial``, ``failing`` and ``noise``, as far as they are given.

    Attributes:
        calibration: folder that ``rlctl calibrate`` has written: its seconds and its serial share are used.
        seconds: median duration of an evaluation on one core, at the stage that counts, or of a segment of middle
            length; null: a fifth of the program's ``walltime_s``, or 60 s.
        duration_spread: standard deviation of the logarithm of durations over the parameters' ranges.
        serial: share of the work that more cores do not make faster; null: 0.01 to 0.3.
        failing: share of the parameters' ranges where evaluations fail, in every other problem.
        stuck: share of evaluations that take 5 to 40 times as long, in every other problem.
        noise: standard deviation of the noise of results, in units of their spread; of ``noisy`` campaigns.
    """

    calibration: str | None = None
    seconds: PositiveRange | None = None
    duration_spread: PositiveRange = (0.1, 1.8)
    serial: ShareRange | None = None
    failing: ShareRange = (0.05, 0.3)
    stuck: ShareRange = (0.01, 0.08)
    noise: ShareRange = (0.05, 0.3)

    @model_validator(mode="after")
    def _said_once(self) -> SyntheticSection:
        if self.calibration is not None and (self.seconds is not None or self.serial is not None):
            raise ValueError("calibration says seconds and serial: leave these out, or calibration")
        return self


class TwinSection(Section):
    """What stands in for real evaluations; a path alone is ``fitted``.

    Attributes:
        fitted: folder that ``rlctl twin`` has written.
        most_outside: share of the last real run's values that may lie outside the 90 % intervals of the fitted twin;
            beyond it ``train`` and ``tune`` refuse. 1: they never do.
        synthetic: in place of ``fitted``: ranges of invented problems.
        recorded: in place of both, of searches: a CSV file or a run folder with evaluations of each point, of which one
            is drawn for each evaluation.
    """

    fitted: str | None = None
    most_outside: Share = 0.3
    synthetic: SyntheticSection | None = None
    recorded: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> TwinSection:
        if sum(kind is not None for kind in (self.fitted, self.synthetic, self.recorded)) != 1:
            raise ValueError("give fitted, a folder of rlctl twin, or synthetic, or recorded, a table of evaluations")
        return self

    def absolute(self, resolve: Callable[[str], Path]) -> TwinSection:
        """The same with absolute paths; ``resolve``: makes a path of the file one that begins at the current folder."""
        for kind, path in (("fitted", self.fitted), ("recorded", self.recorded)):
            if path is not None:
                return self.model_copy(update={kind: str(resolve(path).absolute())})
        assert self.synthetic is not None
        if self.synthetic.calibration is None:
            return self
        calibration = str(resolve(self.synthetic.calibration).absolute())
        return self.model_copy(update={"synthetic": self.synthetic.model_copy(update={"calibration": calibration})})


def _of_path(value: Any) -> Any:
    return {"fitted": value} if isinstance(value, str) else value


Twin = Annotated[TwinSection, BeforeValidator(_of_path)]
"""The section, or the path of a fitted twin."""
