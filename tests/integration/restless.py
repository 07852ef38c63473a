"""Steers an ensemble by a policy that stops and resizes as often as it starts: ``python restless.py CONFIG RUN``.

It goes on with the run if there is one. The policy answers at random, and its randomness is saved with the campaign.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from rlctl.config.load import load_config
from rlctl.core.campaign import Action, Decision
from rlctl.steering.control import steer

SCRIPT = str(Path(__file__))


def config(machine: dict[str, Any], executor: dict[str, Any], **options: Any) -> str:
    """A small ensemble of tasks that sleep, and may be stopped and resized, as a configuration file has it.

    Args:
        options: of the campaign; those of its workload are merged.
    """
    workload = {"tasks": [5, 5], "most_tasks": 7, "kinds": [1, 1], "work_s": 2.0, "spread": [0.3, 0.3]}
    workload |= {"resizable": 1.0, "checkpoint_s": 0.5, "reports": 3, **options.pop("workload", {})}
    campaign = {"workload": workload, "ranks": [1, 2], "stop": True, "resize": True, "allocation_s": 300.0} | options
    sections = {"campaign": {"name": "ensemble", "options": campaign}, "machine": machine, "executor": executor}
    return yaml.safe_dump(
        {"schema": 1, "seed": 0, "steer": {"rules_on_twin": False, "stop_after_failures": None}, **sections}
    )


class Restless:
    """Each verb that is allowed is as likely, and of its choices each."""

    name = "restless"

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)

    def reset(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, decision: Decision) -> Action:
        controls = decision.fields["state"].options.control_slots
        allowed = np.flatnonzero(decision.mask)
        parts = [part for part in (allowed[allowed == 0], allowed[(allowed > 0) & (allowed <= controls)]) if part.size]
        starts = allowed[allowed > controls]
        if starts.size:  # waiting before anything runs would only take time
            parts = [part for part in parts if part[0] != 0] + [starts]
        part = parts[self.rng.integers(len(parts))]
        return np.array([self.rng.choice(part)])

    def state(self) -> dict[str, Any]:
        return {"random": self.rng.bit_generator.state}

    def restore(self, state: Any) -> None:
        self.rng.bit_generator.state = state["random"]


if __name__ == "__main__":
    run = Path(sys.argv[2])
    try:
        steer(load_config(Path(sys.argv[1])), Restless(), run, resume=(run / "journal.db").exists())
    except KeyboardInterrupt:
        sys.exit(130)
