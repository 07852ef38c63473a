"""Searches over functions, on the simulated executor: what a program would compute is a function of its parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlctl.core.campaign import Action, Decision
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy, SimpleRule
from rlctl.core.records import RecordList
from rlctl.core.simulation import Launch, Simulated
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import policy_factory
from rlctl.programs.configured import ConfiguredPrograms
from rlctl_envs.search.campaign import SearchCampaign
from rlctl_envs.search.factory import Search

Function = Callable[[Mapping[str, Any], str], Mapping[str, float] | float]
"""Results of parameters at a stage: ``y`` alone, or by name."""
Seconds = Callable[[Launch], float]


class FunctionModel:
    """A task model that computes a function; one that gives None fails as the options say for ``exit``."""

    def __init__(self, function: Function, seconds: Seconds) -> None:
        self._function, self._seconds = function, seconds
        self.launches: list[Launch] = []

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        return [self._outcome(launch) for launch in launches]

    def _outcome(self, launch: Launch) -> Simulated:
        self.launches.append(launch)
        asked = launch.spec.parameters
        found, seconds = self._function(asked["parameters"], asked["stage"]), self._seconds(launch)
        if found is None:
            return Simulated(seconds, {"kind": "exit", "then": "infeasible", "message": "exit code 1", "attempts": 1})
        outputs = dict(found) if isinstance(found, Mapping) else {"y": found}
        progress = outputs.pop("progress", [])
        return Simulated(seconds, {"outputs": outputs}, progress=[(t, {"progress": v}) for t, v in progress])


def search(
    options: Mapping[str, Any], folder: Path = Path(), results: Sequence[str] = ("y",), **program: Any
) -> Search:
    """A search, by its options and those of its program."""
    section = {"command": "python", "results": {name: {"regex": f"{name} = (.*)"} for name in results}, **program}
    return Search(options, ConfiguredPrograms({"program": section}, folder, single=True))


def steered(
    factory: Search,
    function: Function,
    rule: str | Policy = "target_per_second",
    seed: int = 0,
    cores: int = 1,
    seconds: Seconds = lambda launch: 10.0,
    journal: RecordList | None = None,
    **parameters: Any,
) -> SearchCampaign:
    """The campaign at its end."""
    policy = policy_factory(rule)(**parameters) if isinstance(rule, str) else rule
    campaign = factory.campaign(seed)
    model = FunctionModel(function, seconds)
    executor = twin(factory, Capacity(nodes=1, cores=cores), seed, journal, model)
    driver = Driver(campaign, executor, journal)
    policy.reset(seed)
    decision = driver.begin()
    while decision is not None:
        assert decision.number < 5000
        decision = driver.step(policy.act(decision))
    return campaign


class Fixed(SimpleRule):
    """Answers what a function says of the state."""

    def __init__(self, answer: Callable[[Any], Action]) -> None:
        self._answer = answer

    def act(self, decision: Decision) -> Action:
        return self._answer(decision.fields["state"])
