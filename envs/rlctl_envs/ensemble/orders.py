"""Orders in which rules start waiting jobs, as scores of what their users submit; the highest starts first.

Each takes the seconds that a job has waited, its run time as its user requested it, its processors, and the time at
which it was submitted on the clock of its log; numbers, or an array of each for all that wait.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Score = Callable[[Any, Any, Any, Any], Any]


def fifo(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """First come, first served."""
    return -submit_s


def sjf(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """Shortest job first."""
    return -run_s


def saf(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """Smallest area first."""
    return -run_s * ranks


def lxf(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """Largest expansion factor first: the time from submission to end, over the run time."""
    return (wait_s + run_s) / run_s


def wfp3(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``(wait / run)^3 ranks`` (Tang, Lan, Desai, Buettner 2009)."""
    return (wait_s / run_s) ** 3 * ranks


def uni(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``wait / (log2(ranks) run)``, UNICEF (Tang, Lan, Desai, Buettner 2009); serial jobs first."""
    return (wait_s + 1e-15) / (np.log2(ranks + 1e-15) * run_s)


def f1(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``log10(run) ranks + 870 log10(submit)``, smallest first (Carastan-Santos and de Camargo 2017), as f2 to f4."""
    return -(np.log10(np.maximum(run_s, 1.0)) * ranks + 870.0 * np.log10(np.maximum(submit_s, 1.0)))


def f2(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``sqrt(run) ranks + 25600 log10(submit)``, smallest first."""
    return -(np.sqrt(run_s) * ranks + 25_600.0 * np.log10(np.maximum(submit_s, 1.0)))


def f3(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``run ranks + 6860000 log10(submit)``, smallest first."""
    return -(run_s * ranks + 6_860_000.0 * np.log10(np.maximum(submit_s, 1.0)))


def f4(wait_s: Any, run_s: Any, ranks: Any, submit_s: Any) -> Any:
    """``run sqrt(ranks) + 530000 log10(submit)``, smallest first."""
    return -(run_s * np.sqrt(ranks) + 530_000.0 * np.log10(np.maximum(submit_s, 1.0)))


SCORES: Mapping[str, Score] = {
    "fifo": fifo,
    "sjf": sjf,
    "saf": saf,
    "lxf": lxf,
    "wfp3": wfp3,
    "uni": uni,
    "f1": f1,
    "f2": f2,
    "f3": f3,
    "f4": f4,
}
"""The scores by name."""
CHANGING = frozenset(("lxf", "wfp3", "uni"))
"""Those that change while jobs wait."""
