"""How long a program takes on how many cores: a law with three numbers, and the file that keeps it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from rlctl.core.errors import ConfigError

CALIBRATION = "calibration.json"
FORMAT = 1


@dataclass(frozen=True)
class MeasuredScaling:
    """``start_up_s + work_s (serial + (1 - serial) / cores)`` (Amdahl 1967), each point with its own ``work_s``.

    Attributes:
        start_up_s: seconds of an evaluation whose program does nothing, by ranks.
        work_s: of the points that were measured, on one core, without start-up.
        serial: share of the work that more cores do not make faster.
        scatter: standard deviation of the logarithm of measured over predicted seconds.
    """

    start_up_s: Mapping[int, float]
    work_s: Sequence[float]
    serial: float
    scatter: float

    @classmethod
    def fit(cls, start_up_s: Mapping[int, float], runs: Sequence[tuple[int, int, int, float]]) -> MeasuredScaling:
        """Fit to runs.

        Args:
            start_up_s: by ranks.
            runs: point, ranks, cores of all ranks together, and seconds, of each.
        """
        points = np.array([run[0] for run in runs])
        cores = np.array([run[2] for run in runs], float)
        start_s = np.array([start_up_s[run[1]] for run in runs])
        seconds = np.array([run[3] for run in runs])
        # What is left of a run that was hardly longer than its start-up is not known better than to a twentieth.
        log_work = np.log(np.maximum(seconds - start_s, 0.05 * seconds))

        def left(serial: float) -> tuple[Any, Any]:
            ones = log_work - np.log(serial + (1.0 - serial) / cores)
            means = np.array([ones[points == point].mean() for point in np.unique(points)])
            return ones - means[np.unique(points, return_inverse=True)[1]], means

        def loss(serial: float) -> float:
            return float(np.sum(left(serial)[0] ** 2))

        several = len(set(cores)) > 1
        serial = float(minimize_scalar(loss, bounds=(0.0, 1.0), method="bounded").x) if several else 0.0
        rest, means = left(serial)
        freedom = max(1, len(runs) - len(means) - several)
        return cls(dict(start_up_s), np.exp(means).tolist(), serial, float(np.sqrt(np.sum(rest**2) / freedom)))

    def seconds(self, work_s: float, ranks: int, cores: float) -> float:
        """What an evaluation takes; start-up on ranks that were not measured is that of the nearest number."""
        near = min(self.start_up_s, key=lambda measured: abs(measured - ranks))
        return self.start_up_s[near] + work_s * (self.serial + (1.0 - self.serial) / cores)

    def to_json(self) -> dict[str, Any]:
        """For JSON."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def read(cls, folder: Path) -> MeasuredScaling:
        """Read that of a folder of ``rlctl calibrate``.

        Raises:
            ConfigError: there is none, or it is damaged.
        """
        file = folder / CALIBRATION
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
            if data["format"] != FORMAT:
                raise ConfigError(f"{file} has format {data['format']!r}, this rlctl reads {FORMAT}: calibrate again")
            start_up_s = {int(ranks): float(seconds) for ranks, seconds in data["start_up_s"].items()}
            return cls(start_up_s, [float(s) for s in data["work_s"]], float(data["serial"]), float(data["scatter"]))
        except FileNotFoundError:
            raise ConfigError(f"{folder} has no {CALIBRATION}: make it with rlctl calibrate") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} cannot be read ({error!r}): calibrate again") from None
