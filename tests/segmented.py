"""Simulations in segments of functions, on the simulated executor: a segment's results follow from what came before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.config.twin_section import TwinSection
from rlctl.core.campaign import Action, Decision
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy, SimpleRule
from rlctl.core.records import RecordList
from rlctl.core.simulation import Launch, Simulated
from rlctl.environments.campaign_env import twin
from rlctl.programs.configured import ConfiguredPrograms
from rlctl_envs.segments.campaign import SegmentsCampaign
from rlctl_envs.segments.factory import Segments

OPTIONS: dict[str, Any] = {
    "controls": {"T": [0.0, 1.0]},
    "lengths": {"steps": [100, 200, 400]},
    "objective": {"find": "q >= 1"},
    "until": {"found": 1, "node_seconds": 1000},
    "simulations": 1,
}
PROGRAM: dict[str, Any] = {"command": "python", "results": {"q": {"regex": "q = (.*)"}}}

Step = Callable[[float, Mapping[str, Any]], "float | Simulated"]
"""The next state of a simulation, from 0 at first, by the parameters of a segment's task; or how it ends instead."""


class SteppedModel:
    """A task model whose simulations are a number each, which a function advances; the number is the result ``q``."""

    def __init__(self, step: Step) -> None:
        self._step = step
        self.files: dict[int, float] = {}
        self.launches: list[Launch] = []

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        self.launches.append(launch)
        asked = launch.spec.parameters
        start = 0.0 if asked["from"] is None else self.files[asked["from"]]
        after = self._step(start, asked)
        if isinstance(after, Simulated):
            return after
        self.files[asked["evaluation"]] = after
        return Simulated(0.01 * asked["length"], {"outputs": {"q": after}})


class Answers(SimpleRule):
    """Answers what a function says of the state."""

    name = "answers"

    def __init__(self, answer: Callable[[Any], Action]) -> None:
        self._answer = answer

    def act(self, decision: Decision) -> Action:
        return self._answer(decision.fields["state"])


HOLD = Answers(lambda state: {"T": 0.5, "steps": 200})


def segments(
    folder: Path = Path(),
    program: Mapping[str, Any] | None = None,
    twin: Mapping[str, Any] | None = None,
    **changes: Any,
) -> Segments:
    """Campaigns of segments; ``changes``: of the options."""
    section, stand_in = {**PROGRAM, **(program or {})}, None if twin is None else TwinSection(**twin)
    return Segments(
        {**OPTIONS, **changes}, ConfiguredPrograms({"program": section}, folder, single=True, twin=stand_in)
    )


def steered(
    factory: Segments,
    step: Step,
    policy: Policy = HOLD,
    cores: int = 1,
    journal: RecordList | None = None,
    model: SteppedModel | None = None,
) -> SegmentsCampaign:
    """The campaign at its end."""
    campaign = factory.campaign(0)
    executor = twin(factory, Capacity(nodes=1, cores=cores), 0, journal, model or SteppedModel(step))
    driver = Driver(campaign, executor, journal)
    policy.reset(0)
    decision = driver.begin()
    while decision is not None:
        assert decision.number < 2000
        decision = driver.step(policy.act(decision))
    return campaign
