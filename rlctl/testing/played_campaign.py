"""Plays a campaign on its twin for the checks, and checks each answer of it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete

from rlctl.core.campaign import (
    Action,
    Campaign,
    Cancel,
    Command,
    Decision,
    Mask,
    Outcome,
    Start,
    Update,
    Wait,
    action_to_json,
    head_sizes,
    require_campaign,
)
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.driver import Driver
from rlctl.core.errors import ContractError, RlctlError, reason
from rlctl.core.machine import Capacity, Machine
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.random_policy import Chance
from rlctl.core.records import RecordList
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.core.task import Event, Failure, TaskId, TaskResult, TaskState
from rlctl.environments.campaign_env import twin

MOST_DECISIONS = 20_000
_Result = TypeVar("_Result")


def call(what: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    """Call a function of the campaign's or the policy's author; ContractError, which names it, if it raises."""
    try:
        return function(*arguments)
    except RlctlError:
        raise
    except Exception as error:
        raise ContractError(f"{what} raised {reason(error)}") from error


class _JsonRecords(RecordList):
    """A journal in memory; what it takes must be JSON."""

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:  # type: ignore[override]
        super().append(kind, time_s, json.loads(json.dumps(data)))


class _FaultyModel:
    """Spoils a model: some tasks fail, and some results are empty, as those of programs may be."""

    def __init__(self, model: TaskModel, seed: int) -> None:
        self._model = model
        self._random = np.random.default_rng(seed)

    def outcomes(self, launches: Sequence[Launch]) -> list[Simulated]:
        return [self._spoil(simulated) for simulated in self._model.outcomes(launches)]

    def _spoil(self, simulated: Simulated) -> Simulated:
        chance = self._random.random()
        if chance < 0.15:
            return Simulated(simulated.duration_s, failure=Failure.EXIT, message="exit code 1")
        return Simulated(simulated.duration_s, {}) if chance < 0.25 else simulated


class _CheckedCampaign(Campaign):
    """Stands between a campaign and the driver, and checks each answer."""

    def __init__(self, campaign: Campaign, capacity: Capacity, foreign_events: bool) -> None:
        self.campaign = campaign
        self.foreign_events = foreign_events
        self.capacity = capacity
        self.heads = _check_spaces(campaign)
        self.started: list[dict[str, Any]] = []
        self.deadline_s, self.reward_scale = campaign.deadline_s, campaign.reward_scale
        self.observation_space, self.action_space = campaign.observation_space, campaign.action_space
        self._uids: set[TaskId] = set()

    def begin(self, capacity: Capacity) -> None:
        call("begin()", self.campaign.begin, capacity)

    def on_time(self, time_s: float) -> None:
        call("on_time()", self.campaign.on_time, time_s)

    def on_event(self, event: Event) -> None:
        about = f" {event.result.failure}" if event.result is not None and event.result.failure else ""
        values = f" with values {dict(event.result.values)}" if event.result is not None and not about else ""
        call(f"on_event() of a task that is {event.state.value}{about}{values}", self.campaign.on_event, event)

    @property
    def wake_s(self) -> float:
        wake_s = call("wake_s", lambda: self.campaign.wake_s)
        if not isinstance(wake_s, float | int) or math.isnan(wake_s):
            raise ContractError(f"wake_s is {wake_s!r}, it should be a number of seconds, or infinite")
        return float(wake_s)

    def follow_up(self) -> Sequence[Command]:
        commands = call("follow_up()", self.campaign.follow_up)
        for command in commands:
            self._check_command(command)
        return commands

    def on_machine(self, machine: Machine) -> None:
        call(f"on_machine({machine})", self.campaign.on_machine, machine)

    def decision(self) -> Decision | None:
        decision = call("decision()", self.campaign.decision)
        if decision is not None:
            _check_decision(decision, self.campaign.observation_space, self.heads)
            if comparable(decision) != comparable(call("decision()", self.campaign.decision)):
                raise ContractError("decision() answers differently when asked again: keep it until apply()")
            if self.foreign_events:
                self._send_foreign_events(decision)
        return decision

    def apply(self, action: Action) -> list[Command]:
        commands = call(f"apply({action!r})", self.campaign.apply, action)
        if not isinstance(commands, list):
            raise ContractError(
                f"apply() returned {commands!r}, it should return a list of Start, Cancel, Update, Wait"
            )
        for command in commands:
            self._check_command(command)
        return commands

    def outcome(self) -> Outcome:
        outcome = call("outcome()", self.campaign.outcome)
        if not isinstance(outcome, Outcome) or (outcome.reached and not outcome.ended):
            raise ContractError(f"outcome() returned {outcome!r}; a campaign that reached its goal has ended")
        return outcome

    def _check_command(self, command: Command) -> None:
        if isinstance(command, Start):
            spec = command.spec
            if spec.uid in self._uids:
                raise ContractError(f"apply() starts task {spec.uid!r} twice: give each task a uid of its own")
            self._uids.add(spec.uid)
            try:
                self.capacity.check(spec)
                data = {"uid": spec.uid, "arguments": spec.arguments, "parameters": dict(spec.parameters)}
                self.started.append(json.loads(json.dumps(data)))
            except (RlctlError, TypeError, ValueError) as error:
                raise ContractError(f"apply() starts task {spec.uid!r}: {error}") from None
        elif isinstance(command, Cancel):
            if command.uid not in self._uids:
                raise ContractError(f"apply() cancels task {command.uid!r}, which it never started")
        elif isinstance(command, Update):
            if command.uid not in self._uids:
                raise ContractError(f"apply() changes task {command.uid!r}, which it never started")
        elif not isinstance(command, Wait):
            raise ContractError(f"apply() returned {command!r}, which is no Start, Cancel, Update or Wait")

    def _send_foreign_events(self, decision: Decision) -> None:
        """Events of a task that the campaign never started; whether they change anything shows in comparison."""
        uid = TaskId("a-task-of-another-campaign")
        for state, failure in ((TaskState.RUNNING, None), (TaskState.DONE, None), (TaskState.FAILED, Failure.EXIT)):
            result = TaskResult(uid, state, 1, {}, failure) if state.final else None
            self.on_event(Event(decision.time_s, uid, state, 1, result))


class PlayedCampaign:
    """One campaign, played to its end on the simulated executor."""

    def __init__(
        self,
        factory: CampaignFactory,
        instance: int,
        capacity: Capacity,
        faults: bool = False,
        foreign_events: bool = True,
    ) -> None:
        model = call(f"task_model({instance})", factory.task_model, instance)
        if faults:
            model = _FaultyModel(model, instance)
        self.instance = instance
        campaign = call(f"campaign({instance})", factory.campaign, instance)
        require_campaign(campaign)
        self.campaign = _CheckedCampaign(campaign, capacity, foreign_events)
        self.journal = _JsonRecords()
        self.driver = Driver(self.campaign, twin(factory, capacity, instance, self.journal, model), self.journal)
        self.decisions: list[Any] = []
        self.masks: list[Mask] = []
        self.outcome = Outcome(False, False, 0)

    def play(self, policy: Policy | None = None, enough: int | None = None) -> PlayedCampaign:
        """Play it with a policy, None: with random actions, to its end or for ``enough`` decisions."""
        policy = Chance(self.campaign.action_space) if policy is None else policy
        policy.reset(self.instance)
        decision = self.driver.begin()
        if decision is None:
            raise ContractError("decision() is None at the beginning: begin() should open the first decisions")
        while decision is not None and len(self.decisions) != enough:
            if len(self.decisions) == MOST_DECISIONS:
                raise ContractError(f"outcome() has not ended after {MOST_DECISIONS} decisions of {policy.name}")
            self.decisions.append(comparable(decision))
            self.masks.append(decision.mask.copy())
            with asking(f"policy {policy.name}", f"decision {decision.number}"):
                action = call(f"policy {policy.name}: act()", policy.act, decision)
            call("apply() is given what JSON cannot hold:", action_to_json, action)
            self.driver.answer(action)
            decision = self.driver.advance()
        self.outcome = self.campaign.outcome()
        return self


def _check_spaces(campaign: Campaign) -> list[int]:
    if not isinstance(campaign.observation_space, Box) or campaign.observation_space.dtype != np.float32:
        raise ContractError(f"observation_space is {campaign.observation_space}, it should be a Box of float32")
    space: gymnasium.Space[Any] = campaign.action_space
    if not isinstance(space, MultiDiscrete | Discrete | Box):
        raise ContractError(f"action_space is {space}, it should be MultiDiscrete, Discrete or Box")
    if isinstance(space, Box) and not (space.dtype in (np.float32, np.float64) and space.is_bounded("both")):
        raise ContractError(f"action_space is {space}, a Box should be of float32 or float64, with finite bounds")
    for name in ("reward_scale", "deadline_s"):
        value = getattr(campaign, name)
        endless = name == "deadline_s" and value == math.inf
        if not endless and not (isinstance(value, int | float) and 0.0 < value < math.inf):
            raise ContractError(f"{name} is {value!r}, it should be a positive number")
    return [int(n) for n in head_sizes(space)]


def _check_decision(decision: Decision, space: Box, heads: Sequence[int]) -> None:
    if not isinstance(decision, Decision):
        raise ContractError(f"decision() returned {decision!r}, it should return a Decision or None")
    seen, mask = decision.observation, decision.mask
    if not isinstance(seen, np.ndarray) or seen.dtype != np.float32 or seen.shape != space.shape:
        form = f"{seen.dtype} {seen.shape}" if isinstance(seen, np.ndarray) else repr(seen)
        raise ContractError(f"decision(): the observation is {form}, observation_space says float32 {space.shape}")
    outside = np.flatnonzero(~((seen >= space.low) & (seen <= space.high)))
    if outside.size:
        i = int(outside[0])
        raise ContractError(
            f"decision(): observation[{i}] is {seen[i]}, observation_space allows {space.low[i]} to {space.high[i]}"
        )
    if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_ or mask.shape != (sum(heads),):
        raise ContractError(f"decision(): the mask is {mask!r}, it should hold {sum(heads)} booleans, for {heads}")
    for number, part in enumerate(np.split(mask, np.cumsum(heads)[:-1]) if heads else ()):
        if not part.any():
            raise ContractError(f"decision(): the mask allows no choice of head {number}")


def comparable(decision: Decision | None) -> Any:
    """A decision in a form that can be compared."""
    if decision is None:
        return None
    fields = json.dumps(dict(decision.fields), sort_keys=True, default=repr)
    return decision.subject, decision.time_s, fields, decision.observation.tobytes(), decision.mask.tobytes()
