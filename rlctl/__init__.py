"""rlctl: learns to steer simulation campaigns on supercomputers.

The commands of the command line are functions:

    config = rlctl.load_config("configs/annealing.yaml", ["seed=1"])
    folder = rlctl.train(config, "runs/first")
    print(rlctl.evaluate(config, [str(folder), "feedback"]).to_json())
    summary = rlctl.steer(config, str(folder), "runs/real")
    page = rlctl.report("runs/real")

Names are loaded on first use, so that ``import rlctl`` is instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rlctl.api import check, evaluate, judge, steer, train, tune
    from rlctl.cli.doctor import diagnose
    from rlctl.config.load import load_config
    from rlctl.core.campaign import Campaign
    from rlctl.core.errors import SimulationDiverged
    from rlctl.core.policy import SimpleRule
    from rlctl.plugins.factory import SimpleFactory
    from rlctl.plugins.registry import load_policy
    from rlctl.steering.reading import report, results, status, trace

    __version__: str

__all__ = [
    "Campaign",
    "SimpleFactory",
    "SimpleRule",
    "SimulationDiverged",
    "check",
    "diagnose",
    "evaluate",
    "judge",
    "load_config",
    "load_policy",
    "report",
    "results",
    "status",
    "steer",
    "trace",
    "train",
    "tune",
]

_HOMES = {
    "load_config": "rlctl.config.load",
    "load_policy": "rlctl.plugins.registry",
    "diagnose": "rlctl.cli.doctor",
    "check": "rlctl.api",
    "train": "rlctl.api",
    "tune": "rlctl.api",
    "evaluate": "rlctl.api",
    "judge": "rlctl.api",
    "steer": "rlctl.api",
    "Campaign": "rlctl.core.campaign",
    "SimpleFactory": "rlctl.plugins.factory",
    "SimpleRule": "rlctl.core.policy",
    "SimulationDiverged": "rlctl.core.errors",
    "report": "rlctl.steering.reading",
    "results": "rlctl.steering.reading",
    "trace": "rlctl.steering.reading",
    "status": "rlctl.steering.reading",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("rlctl.config.provenance").rlctl_version()
    if name not in _HOMES:
        raise AttributeError(f"module 'rlctl' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
