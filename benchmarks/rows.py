"""What all benchmarks share: rows of one form, as a table for people and as JSON for programs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: what was measured of which system, its median and range over ``runs`` runs.

    Attributes:
        target: what it should reach; None: it has none.
        met: whether the median reaches it.
    """

    measure: str
    system: str
    median: float
    low: float
    high: float
    unit: str
    runs: int
    target: float | None = None
    met: bool | None = None


def row(
    measure: str, system: str, values: Sequence[float], unit: str, target: float | None = None, *, least: bool = False
) -> Row:
    """From the values of all runs; the target is the most that is allowed, or with ``least`` the least.

    >>> row("time", "a", [3.0, 1.0, 2.0], "s", 2.5)
    Row(measure='time', system='a', median=2.0, low=1.0, high=3.0, unit='s', runs=3, target=2.5, met=True)
    """
    median = statistics.median(values)
    met = None if target is None else (median >= target if least else median <= target)
    return Row(measure, system, median, min(values), max(values), unit, len(values), target, met)


def parser(text: str | None) -> argparse.ArgumentParser:
    """With the options that every benchmark takes; ``text`` is what it measures."""
    made = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--quick", action="store_true", help="fewer and smaller runs: under two minutes")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the rows there")
    return made


def report(title: str, rows: Sequence[Row], file: Path | None) -> None:
    """Print the table, and write the rows to a file if one is given."""
    table = Table(title=title)
    for column in ("measure", "system", "median", "low", "high", "unit", "runs", "target", "met"):
        table.add_column(column, justify="left" if column in ("measure", "system", "unit") else "right")
    before = None
    for one in rows:
        if before is not None and one.measure != before:
            table.add_section()
        numbers = [figure(one.median), figure(one.low), figure(one.high)]
        target = "" if one.target is None else figure(one.target)
        met = {None: "", True: "yes", False: "NO"}[one.met]
        table.add_row(
            "" if one.measure == before else one.measure, one.system, *numbers, one.unit, str(one.runs), target, met
        )
        before = one.measure
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    console.print(table)
    if file is not None:
        file.write_text(json.dumps([asdict(one) for one in rows], indent=2) + "\n")


def figure(value: float) -> str:
    """Three digits that count.

    >>> figure(0.012345), figure(12.345), figure(12345.6)
    ('0.0123', '12.3', '12,346')
    """
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def machine(packages: Iterable[str] = ()) -> str:
    """Where it was measured: processors, how busy they are, Python, versions of packages."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    parts = [f"{platform.machine()}, {cores} cores, load {load}", f"Python {platform.python_version()}"]
    for name in packages:
        try:
            parts.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return "; ".join(parts)
