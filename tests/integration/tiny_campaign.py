"""A campaign as small as can be, of real programs: make so many parts, two at a time, in one of three sizes.

Two programs may end at one instant, so that there can be one part more than was asked for.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from rlctl.core.campaign import Action, Campaign, Cancel, Command, Decision, Outcome, Start
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.machine import Capacity
from rlctl.core.task import Event, Failure, TaskId, TaskSpec, TaskState

PROGRAM = """
import json, os, sys, time
uid, size, wait, fails = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "wait", sys.argv[4] == "fails"
with open("begun", "a") as file:
    file.write(f"{uid} {os.getpid()}\\n")
while wait and not os.path.exists("go"):
    time.sleep(0.01)
time.sleep(0.02 * size)
if fails:
    sys.exit(3)
if sys.argv[4] == "breaks" and not os.path.exists("repaired"):
    sys.exit("no licence")
with open(uid + ".part", "w") as file:
    json.dump({"size": size}, file)
os.replace(uid + ".part", uid + ".json")
"""


class Parts(Campaign):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.MultiDiscrete([3])
    reward_scale = 1.0
    deadline_s = 600.0

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = {"parts": 4, "wait": False, "failing": [], "breaking": [], "blind": [], "task": {}, **options}
        self.idle = 0
        self.started = 0
        self.good = 0
        self.size = 0
        self.running: list[TaskId] = []

    def begin(self, capacity: Capacity) -> None:
        self.idle = capacity.total_cores

    def on_time(self, time_s: float) -> None:
        pass

    def on_event(self, event: Event) -> None:
        if event.result is not None:
            self.idle += 1
            self.running.remove(event.uid)
            if event.state is TaskState.DONE:
                self.good += 1
                self.size += int(event.result.values["size"])

    def decision(self) -> Decision | None:
        if not self.idle:
            return None
        first = np.nan if self.started in self.options["blind"] else float(self.good)
        return Decision(
            subject=f"part-{self.started}",
            time_s=0.0,
            fields={"good": self.good, "label": "text", "sizes": (1, 2, 3)},
            observation=np.array([first, self.idle], dtype=np.float32),
            mask=np.ones(3, dtype=np.bool_),
        )

    def apply(self, action: Action) -> list[Command]:
        assert not isinstance(action, Mapping)
        size = int(action[0])
        uid = TaskId(f"part-{self.started}")
        waits = self.options["wait"]  # all, none, or these
        wait = "wait" if waits is True or (waits and self.started in waits) else "run"
        fails = "fails" if self.started in self.options["failing"] else "works"
        fails = "breaks" if self.started in self.options["breaking"] else fails
        self.started += 1
        self.idle -= 1
        self.running.append(uid)
        spec = TaskSpec(
            uid=uid,
            executable="python",
            arguments=("-c", PROGRAM, uid, str(size), wait, fails),
            environment=self.options.get("environment", {}),
            walltime_s=60.0,
            result_file=f"{uid}.json",
            failure_codes=((3, Failure.DIVERGED),),
        )
        commands: list[Command] = [Start(replace(spec, **self.options["task"]))]
        if self.started == self.options.get("cancel_at"):
            commands.append(Cancel(self.running[0]))
        return commands

    def outcome(self) -> Outcome:
        reached = self.good >= self.options["parts"]
        extra: dict[Any, Any] = {"size": float(self.size)}
        if self.options.get("odd"):  # what JSON does not know
            extra |= {"nan": np.float32("nan"), "count": np.int64(3), Failure.EXIT: {"name": b"\xff"}, 7: np.arange(2)}
        return Outcome(ended=reached, reached=reached, successes=self.good, extra=extra)


class Factory(CampaignFactory):
    name = "tiny"
    version = 1

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = options

    def campaign(self, seed: int) -> Parts:
        return Parts(self.options)

    def prepare(self, folder: Path, seed: int) -> None:
        (folder / "instance").write_text(str(seed))


class Cycling:
    """Answers 0, 1, 2, 0, 1 ...: what it answers tells whether its memory was restored."""

    name = "cycling"

    def __init__(self, fails_at: int = -1, odd: bool = False) -> None:
        self.fails_at = fails_at
        self.odd = odd
        self.asked = 0

    def act(self, decision: Decision) -> Action:
        if decision.number == self.fails_at:
            raise ZeroDivisionError("what a policy may do")
        self.asked += 1
        return np.array([(self.asked - 1) % 3])

    def reset(self, seed: int) -> None:
        self.asked = 0

    def state(self) -> Mapping[str, Any]:
        if self.odd and self.asked > 1:  # only when it is too late to refuse it
            return {"asked": np.int64(self.asked), "seen": np.zeros(2)}
        return {"asked": self.asked}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.asked = state["asked"]
