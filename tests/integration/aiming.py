"""A campaign whose actions are the numbers of a Box: aim at a point that is shown.

A run takes longer the farther off it is. The file is its own program: ``python aiming.py X Y UID``.
"""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rlctl.core.campaign import Action, Campaign, Command, Decision, Outcome, Start
from rlctl.core.machine import Capacity
from rlctl.core.simulation import Launch, Simulated
from rlctl.core.task import Event, TaskId, TaskSpec, TaskState
from rlctl.plugins.factory import SimpleFactory

ENTRY_POINTS = "[rlctl.campaigns]\naiming = aiming:Factory\n[rlctl.policies]\nmarksman = aiming:Marksman\n"
CONFIG = """
schema: 1
seed: 1
campaign: {name: aiming}
machine: {nodes: 1, cores: 1}
train:
  algorithm: sac
  decisions: 1500
  checkpoint_decisions: 100000
  validation_instances: 2
  num_envs: 2
  options: {gamma: 0.2, net_arch: [32, 32], learning_rate: 3.0e-3, learning_starts: 200, batch_size: 64}
"""
LOW, HIGH = np.array([-1.0, 0.0], np.float32), np.array([1.0, 4.0], np.float32)
HITS, NEAR = 5, 0.15


def draw(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(LOW, HIGH)


def off(target: Sequence[float], x: float, y: float) -> float:
    """Distance, in widths of the Box."""
    return math.hypot((x - target[0]) / 2.0, (y - target[1]) / 4.0)


class Aiming(Campaign):
    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = gymnasium.spaces.Box(LOW, HIGH)
    reward_scale = 10.0
    deadline_s = 60.0

    def __init__(self, seed: int) -> None:
        self.target, self.shots, self.hits, self.waits = draw(seed), 0, 0, False

    def begin(self, capacity: Capacity) -> None:
        pass

    def on_time(self, time_s: float) -> None:
        self.late = time_s >= self.deadline_s

    def on_event(self, event: Event) -> None:
        if event.uid == f"shot-{self.shots}" and event.result is not None:
            self.waits = False
            done = event.state is TaskState.DONE
            self.hits += done and event.result.values.get("off", 1.0) < NEAR

    def decision(self) -> Decision | None:
        if self.waits:
            return None
        seen = 2.0 * (self.target - LOW) / (HIGH - LOW) - 1.0
        return Decision(f"shot-{self.shots + 1}", 0.0, {"target": self.target.tolist()}, seen.astype(np.float32))

    def apply(self, action: Action) -> list[Command]:
        if isinstance(action, Mapping):
            x, y = action["x"], action["y"]
        else:
            assert self.action_space.contains(action), action
            x, y = (float(number) for number in action)
        self.shots, self.waits = self.shots + 1, True
        uid = TaskId(f"shot-{self.shots}")
        return [
            Start(
                TaskSpec(
                    uid=uid,
                    executable="python",
                    arguments=(__file__, str(x), str(y), uid),
                    parameters={"x": x, "y": y},
                    walltime_s=30.0,
                    result_file=f"{uid}.json",
                )
            )
        ]

    def outcome(self) -> Outcome:
        reached = self.hits >= HITS
        return Outcome(reached or getattr(self, "late", False), reached, self.hits)


class Twin:
    def __init__(self, seed: int) -> None:
        self.target = draw(seed)

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        missed = [off(self.target, **launch.spec.parameters) for launch in launches]
        return [Simulated(0.05 + 0.3 * far, {"off": far}) for far in missed]


class Factory(SimpleFactory):
    name = "aiming"

    def campaign(self, seed: int) -> Aiming:
        return Aiming(seed)

    def task_model(self, seed: int) -> Twin:
        return Twin(seed)

    def prepare(self, folder: Path, seed: int) -> None:
        (folder / "target.json").write_text(json.dumps(draw(seed).tolist()))


class Marksman:
    """A rule: named quantities."""

    name = "marksman"

    def act(self, decision: Decision) -> Action:
        x, y = decision.fields["target"]
        return {"x": x, "y": y}

    def reset(self, seed: int) -> None:
        pass

    def state(self) -> Mapping[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


if __name__ == "__main__":
    far = off(json.loads(Path("target.json").read_text()), float(sys.argv[1]), float(sys.argv[2]))
    time.sleep(0.05 + 0.3 * far)
    Path(f"{sys.argv[3]}.part").write_text(json.dumps({"off": far}))
    os.replace(f"{sys.argv[3]}.part", f"{sys.argv[3]}.json")
