"""How long a program takes on how many cores: a law with three numbers, and the file that keeps it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from rlctl.core.errors import ConfigError

Floats = NDArray[np.float64]

CALIBRATION = "calibration.json"
FORMAT = 1


@dataclass(frozen=True)
class MeasuredScaling:
    """``start_up_s + loading_s + work_s (serial + (1 - serial) / cores)`` (Amdahl 1967), ``work_s`` of each point.

    Attributes:
        start_up_s: seconds of an evaluation whose program does nothing, by ranks.
        loading_s: what the program takes at every point and on all cores alike, such as its own start.
        work_s: of the points that were measured, on one core, without both.
        serial: share of the work that more cores do not make faster.
        scatter: standard deviation of the logarithm of measured over predicted seconds.
    """

    start_up_s: Mapping[int, float]
    loading_s: float
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
        place = np.unique([run[0] for run in runs], return_inverse=True)[1]
        cores = np.array([run[2] for run in runs], float)
        start_s = np.array([start_up_s[run[1]] for run in runs])
        seconds = np.array([run[3] for run in runs])
        count, several = int(place.max()) + 1, len(set(cores)) > 1
        # Without several numbers of cores, or with too few points, what is loaded cannot be told from what is serial.
        loads = several and count > 2
        rest = np.maximum(seconds - start_s, 0.05 * seconds)

        def missed(found: Floats) -> Floats:
            serial, loading_s, work_s = found[0] * several, found[1] * loads, np.exp(found[2:])[place]
            expected = start_s + loading_s + work_s * (serial + (1.0 - serial) / cores)
            return np.asarray(np.log(seconds / expected))

        begin = np.r_[0.1, 0.1 * rest.min(), [math.log(float(rest[place == one].max())) for one in range(count)]]
        low, high = np.r_[0.0, 0.0, np.full(count, -20.0)], np.r_[1.0, rest.min(), np.full(count, 20.0)]
        found = scipy.optimize.least_squares(missed, begin, bounds=(low, high), x_scale="jac").x
        freedom = max(1, len(runs) - count - several - loads)
        scatter = math.sqrt(float(np.sum(missed(found) ** 2)) / freedom)
        serial, loading_s = float(found[0]) * several, float(found[1]) * loads
        return cls(dict(start_up_s), loading_s, np.exp(found[2:]).tolist(), serial, scatter)

    def seconds(self, work_s: float, ranks: int, cores: float) -> float:
        """What an evaluation takes; start-up on ranks that were not measured is that of the nearest number."""
        near = min(self.start_up_s, key=lambda measured: abs(measured - ranks))
        return self.start_up_s[near] + self.loading_s + work_s * (self.serial + (1.0 - self.serial) / cores)

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
            work_s = [float(seconds) for seconds in data["work_s"]]
            return cls(start_up_s, float(data["loading_s"]), work_s, float(data["serial"]), float(data["scatter"]))
        except FileNotFoundError:
            raise ConfigError(f"{folder} has no {CALIBRATION}: make it with rlctl calibrate") from None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{file} cannot be read ({error!r}): calibrate again") from None
