"""What a benchmark gives: rows of one form, with how they were made, as a JSON file."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rlctl.benchmark.measures import Estimate
from rlctl.core.errors import ConfigError
from rlctl.core.json_values import json_text
from rlctl.system.files import write_atomically

SCHEMA = 1

COST = "cost per success"
SUMS = "relative cost per success"
GEOMETRIC = "the same, geometric mean over instances"
LOST = "share of instances lost to the system"
DECILE = "cost per success, worst decile"
NONE = "share of instances without success"
UNREACHED = "share of cost where the goal was not reached"
AREA = "area under successes against cost"
PREPARED = "processor time of training or tuning"
AMORTISED = "cost per success with preparation, over 100 campaigns"
BREAK_EVEN = "campaigns until the policy has paid for itself"
FLIPS = "sign-flip test, policy against rule"
HOLM = "sign-flip test, Holm's correction"
CONTROL = "cost per success of a control, relative to the policy"
HIDDEN = "hidden numbers in fields"
REAL = "cost of real campaigns, relative to the twin"
CALIBRATED = "cost of real campaigns, relative to the calibrated twin"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of a system.

    Attributes:
        family: name of the configuration, and of the variant behind a colon.
        median: the figure; None: it is infinite or has no value.
        low: lower end of its 95 % interval.
        high: upper end.
        runs: campaigns behind the figure.
        target: what it should reach; None: it has none.
        met: whether its interval lies beyond the target, on the right side.
    """

    family: str
    measure: str
    system: str
    median: float | None
    low: float | None
    high: float | None
    unit: str
    runs: int
    target: float | None = None
    met: bool | None = None


@dataclass(frozen=True)
class FamilyResults:
    """Everything about a family.

    Attributes:
        rows: all figures.
        chosen: what was chosen on validation instances: training seed and rule, with the costs of all.
        systems: how each was made.
        made: command, numbers of instances, seeds, versions, commit, hashes.
        skipped: what could not be done, with the reason.
        curves: mean successes at shares of the cost of the best rule's campaign, by system.
        instances: numbers, costs and successes of each instance, by system and seed.
    """

    family: str
    rows: list[Row]
    chosen: Mapping[str, Any] = field(default_factory=dict)
    systems: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    made: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    instances: Mapping[str, Any] = field(default_factory=dict)

    def find(self, measure: str, system: str | None = None, family: str | None = None) -> list[Row]:
        """The rows of a measure, of one system or all, in the family itself or a variant."""
        return [
            row
            for row in self.rows
            if row.measure == measure and row.family == (family or self.family) and system in (None, row.system)
        ]

    def of(self, measure: str, system: str, family: str | None = None) -> Row | None:
        """The row of a measure and a system, if there is one."""
        return next(iter(self.find(measure, system, family)), None)

    @property
    def variants(self) -> list[str]:
        """Names of the rows' families, that of this family left out."""
        return [name for name in dict.fromkeys(row.family for row in self.rows) if name != self.family]


def row(
    family: str,
    measure: str,
    system: str,
    figure: Estimate,
    unit: str,
    runs: int,
    target: float | None = None,
    *,
    most: bool = False,
) -> Row:
    """A row; with a target, its interval has to lie above it, or with ``most`` not.

    >>> row("a", "cost", "b", Estimate(1.2, 1.1, 1.3), "ratio", 8, 1.0).met
    True
    """
    met = None if target is None else (figure.high <= target if most else figure.low > target)
    value, low, high = (x if math.isfinite(x) else None for x in (figure.value, figure.low, figure.high))
    return Row(family, measure, system, value, low, high, unit, runs, target, met)


def write_results(results: FamilyResults, folder: Path) -> Path:
    """Write ``<family>.json``, each row in a line of its own."""
    data = {"schema": SCHEMA, **asdict(results)}
    lines = [f'  "{key}": {_text(value)}' for key, value in data.items()]
    file = folder / f"{results.family}.json"
    write_atomically(file, "{\n" + ",\n".join(lines) + "\n}\n")
    return file


def read_results(file: Path) -> FamilyResults:
    """Read what ``write_results`` wrote; ConfigError if it is of another schema."""
    data = json.loads(file.read_text())
    if data.pop("schema", None) != SCHEMA:
        raise ConfigError(f"{file}: not of schema {SCHEMA}: make it again with rlctl benchmark")
    return FamilyResults(**data | {"rows": [Row(**one) for one in data["rows"]]})


def _text(value: Any) -> str:
    if isinstance(value, list):
        return _joined((json_text(item) for item in value), "[", "]")
    if isinstance(value, dict):
        return _joined((f"{json.dumps(key)}: {json_text(item)}" for key, item in value.items()), "{", "}")
    return json_text(value)


def _joined(items: Iterable[str], opening: str, closing: str) -> str:
    lines = ",\n".join(f"    {item}" for item in items)
    return f"{opening}\n{lines}\n  {closing}" if lines else opening + closing
