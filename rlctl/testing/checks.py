"""Checks a campaign from outside, as Gymnasium's ``check_env`` checks an environment: does it keep its promises?

And a policy: does it forget, save and take up what ``rlctl.core.policy`` says?

Training, comparison, steering and resuming all rest on what ``rlctl.core.campaign`` says. What breaks it shows
late and far from its cause, so it is looked for here, on simulated tasks, in seconds.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from numpy.typing import NDArray

from rlctl.core.campaign import (
    Action,
    Campaign,
    CampaignFactory,
    Cancel,
    Command,
    Decision,
    Outcome,
    Start,
    Update,
    Wait,
    action_to_json,
    require_campaign,
)
from rlctl.core.driver import Driver
from rlctl.core.errors import ContractError, RlctlError, reason
from rlctl.core.machine import Capacity, Machine
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.random_policy import choose
from rlctl.core.records import RecordList
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.core.task import Event, Failure, TaskId, TaskResult, TaskState
from rlctl.environments.campaign_env import twin
from rlctl.testing.leaks import told_too_early

MOST_DECISIONS = 20_000
ENOUGH_DECISIONS = 64
"""Of a campaign, to see whether a policy keeps its memory."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Checked:
    """What was seen of a campaign that keeps its promises.

    Attributes:
        decisions: over all campaigns that were played.
        tasks: likewise.
        reached: for each policy, in how many of the instances it reached the goal; ``random`` chooses by chance. Empty
            for an environment with rewards, which has no goal.
        cut: episodes of such an environment that had not ended after ``evaluate.max_steps``.
    """

    decisions: int
    tasks: int
    instances: int
    reached: Mapping[str, int]
    cut: int = 0


def check_campaign(
    factory: CampaignFactory,
    capacity: Capacity | None = None,
    policies: Sequence[Policy] = (),
    instances: int = 4,
    seed: int = 0,
) -> Checked:
    """Play a campaign on its twin and look whether it keeps what ``rlctl.core.campaign`` promises.

    Args:
        factory: of the campaign.
        capacity: the allocation; None: the factory's ``capacity`` if it has one, else two cores.
        policies: rules that should reach the goal; without any, nothing is said of a goal that chance does not reach.
        instances: how many are played, by chance and by each policy.
        seed: of the first instance.

    Raises:
        ContractError: one line: which method, what it did, what it should do.
    """
    capacity = capacity or factory.capacity
    _check_factory(factory, seed)
    told = _call("decision()", told_too_early, factory, capacity)
    if told is not None:
        raise ContractError(f"decision(): {told}: policies must not read what only the twin knows")
    seeds = [seed + i for i in range(instances)]
    games: dict[str, list[_Game]] = {"random": []}
    for instance in seeds:
        games["random"].append(_Game(factory, instance, capacity).play(_Chance(instance)))
    first = games["random"][0]
    # Again, after others were played: the same seed and events must give the same campaign.
    again = _Game(factory, seed, capacity).play(_Chance(seed))
    _compare(first, again)
    quiet = _Game(factory, seed, capacity, strangers=False).play(_Chance(seed))
    if quiet.decisions != first.decisions or quiet.outcome != first.outcome:
        raise ContractError("on_event() of a task that the campaign never started changes what comes: ignore the event")
    _check_replay(factory, first, capacity)
    _check_masked(factory, first, capacity)
    for instance in seeds:
        _Game(factory, instance, capacity, faults=True).play(_Chance(instance))
    for policy in policies:
        games[policy.name] = [_Game(factory, instance, capacity).play(policy) for instance in seeds]
    reached = {name: sum(game.outcome.reached for game in played) for name, played in games.items()}
    if policies and not any(reached.values()):
        raise ContractError(
            f"outcome(): none of {', '.join(reached)} reached the goal in {instances} instances: is it within reach "
            "before deadline_s, and does on_event() count what the twin's results say?"
        )
    everything = [game for played in games.values() for game in played]
    return Checked(
        decisions=sum(len(game.decisions) for game in everything),
        tasks=sum(len(game.watched.started) for game in everything),
        instances=instances,
        reached=reached,
    )


def check_policy(
    factory: CampaignFactory, policy: Policy, capacity: Capacity | None = None, instances: int = 2, seed: int = 0
) -> None:
    """Play a campaign and look whether a policy keeps what ``rlctl.core.policy`` promises.

    Args:
        factory: of a campaign that keeps its own promises; see ``check_campaign``.
        capacity: as in ``check_campaign``.
        instances: whose beginnings are played, that of the first one twice.
        seed: of the first instance.

    Raises:
        ContractError: one line: which method, what it did, what it should do.
    """
    capacity = capacity or factory.capacity
    fresh = copy.deepcopy(policy)
    first = _Game(factory, seed, capacity).play(policy, ENOUGH_DECISIONS)
    for instance in range(seed + 1, seed + instances):
        _Game(factory, instance, capacity).play(_Resumed(policy, fresh, instance), ENOUGH_DECISIONS)
    again = _Game(factory, seed, capacity).play(policy, ENOUGH_DECISIONS)
    if again.decisions != first.decisions:
        raise ContractError("reset(seed) should forget all: an instance that is played again goes another way")


class _Resumed:
    """A policy beside one that takes up its memory for each answer, as that of a resumed campaign does."""

    def __init__(self, policy: Policy, fresh: Policy, seed: int) -> None:
        self.name, self.reset, self.state, self.restore = policy.name, policy.reset, policy.state, policy.restore
        self._policy, self._fresh, self._seed = policy, fresh, seed

    def act(self, decision: Decision) -> Action:
        other = copy.deepcopy(self._fresh)
        other.reset(self._seed)
        state = _call("state()", self._policy.state)
        if state:  # an empty one is not kept
            kept = _call("state() gives what JSON cannot hold: it", json.dumps, dict(state))
            _call("restore(state())", other.restore, json.loads(kept))
        with asking(f"policy {self.name}", f"decision {decision.number}"):
            action = self._policy.act(decision)
        if action_to_json(other.act(decision)) != action_to_json(action):
            raise ContractError(
                f"restore(state()) gives a policy that answers decision {decision.number} differently: "
                "state() should give all that act() remembers, as JSON"
            )
        return action


class _Chance:
    """Any allowed choice."""

    name = "random"

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def act(self, decision: Decision) -> Action:
        raise NotImplementedError  # ``_Game`` knows the heads

    def choose(self, mask: NDArray[np.bool_], heads: Sequence[int]) -> NDArray[np.int64]:
        return choose(self._random, mask, heads)


class _Records(RecordList):
    """A journal in memory; what it takes must be JSON."""

    def append(self, kind: str, time_s: float, data: Mapping[str, Any]) -> None:  # type: ignore[override]
        super().append(kind, time_s, json.loads(json.dumps(data)))


class _Faulty:
    """A model some of whose tasks fail, and some of whose results say nothing, as programs do."""

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


class _Watched(Campaign):
    """Stands between a campaign and the driver, and checks each answer."""

    def __init__(self, campaign: Campaign, capacity: Capacity, strangers: bool) -> None:
        self.campaign = campaign
        self.strangers = strangers
        self.capacity = capacity
        self.heads = _check_spaces(campaign)
        self.started: list[dict[str, Any]] = []
        self.deadline_s, self.reward_scale = campaign.deadline_s, campaign.reward_scale
        self.observation_space, self.action_space = campaign.observation_space, campaign.action_space
        self._uids: set[TaskId] = set()

    def begin(self, capacity: Capacity) -> None:
        _call("begin()", self.campaign.begin, capacity)

    def on_time(self, time_s: float) -> None:
        _call("on_time()", self.campaign.on_time, time_s)

    def on_event(self, event: Event) -> None:
        about = f" {event.result.failure}" if event.result is not None and event.result.failure else ""
        values = f" with values {dict(event.result.values)}" if event.result is not None and not about else ""
        _call(f"on_event() of a task that is {event.state.value}{about}{values}", self.campaign.on_event, event)

    @property
    def wake_s(self) -> float:
        wake_s = _call("wake_s", lambda: self.campaign.wake_s)
        if not isinstance(wake_s, float | int) or math.isnan(wake_s):
            raise ContractError(f"wake_s is {wake_s!r}, it should be a number of seconds, or infinite")
        return float(wake_s)

    def on_machine(self, machine: Machine) -> None:
        _call(f"on_machine({machine})", self.campaign.on_machine, machine)

    def decision(self) -> Decision | None:
        decision = _call("decision()", self.campaign.decision)
        if decision is not None:
            _check_decision(decision, self.campaign.observation_space, self.heads)
            if _seen(decision) != _seen(_call("decision()", self.campaign.decision)):
                raise ContractError("decision() answers differently when asked again: keep it until apply()")
            if self.strangers:
                self._tell_of_strangers(decision)
        return decision

    def apply(self, action: Action) -> list[Command]:
        commands = _call(f"apply({action!r})", self.campaign.apply, action)
        if not isinstance(commands, list):
            raise ContractError(
                f"apply() returned {commands!r}, it should return a list of Start, Cancel, Update, Wait"
            )
        for command in commands:
            self._check_command(command)
        return commands

    def outcome(self) -> Outcome:
        outcome = _call("outcome()", self.campaign.outcome)
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

    def _tell_of_strangers(self, decision: Decision) -> None:
        """Events of a task that the campaign never started; whether they change anything shows in comparison."""
        uid = TaskId("a-task-that-nobody-started")
        for state, failure in ((TaskState.RUNNING, None), (TaskState.DONE, None), (TaskState.FAILED, Failure.EXIT)):
            result = TaskResult(uid, state, 1, {}, failure) if state.final else None
            self.on_event(Event(decision.time_s, uid, state, 1, result))


class _Game:
    """One campaign, played to its end on the simulated executor."""

    def __init__(
        self,
        factory: CampaignFactory,
        instance: int,
        capacity: Capacity,
        faults: bool = False,
        strangers: bool = True,
    ) -> None:
        model = _call(f"task_model({instance})", factory.task_model, instance)
        if faults:
            model = _Faulty(model, instance)
        self.instance = instance
        campaign = _call(f"campaign({instance})", factory.campaign, instance)
        require_campaign(campaign)
        self.watched = _Watched(campaign, capacity, strangers)
        self.journal = _Records()
        self.driver = Driver(self.watched, twin(factory, capacity, instance, model=model), self.journal)
        self.decisions: list[Any] = []
        self.masks: list[NDArray[np.bool_]] = []
        self.outcome = Outcome(False, False, 0)

    def play(self, policy: Policy | _Chance, enough: int | None = None) -> _Game:
        if not isinstance(policy, _Chance):
            policy.reset(self.instance)
        decision = self.driver.begin()
        if decision is None:
            raise ContractError("decision() is None at the beginning: begin() should open the first decisions")
        while decision is not None and len(self.decisions) != enough:
            if len(self.decisions) == MOST_DECISIONS:
                raise ContractError(f"outcome() has not ended after {MOST_DECISIONS} decisions of {policy.name}")
            self.decisions.append(_seen(decision))
            self.masks.append(decision.mask.copy())
            if isinstance(policy, _Chance):
                action: Action = policy.choose(decision.mask, self.watched.heads)
            else:
                with asking(f"policy {policy.name}", f"decision {decision.number}"):
                    action = _call(f"policy {policy.name}: act()", policy.act, decision)
            _call("apply() is given what JSON cannot hold:", action_to_json, action)
            self.driver.answer(action)
            decision = self.driver.advance()
        self.outcome = self.watched.outcome()
        return self


def _check_factory(factory: CampaignFactory, seed: int) -> None:
    if not isinstance(factory.name, str) or not isinstance(factory.version, int):
        raise ContractError(
            f"factory: name must be text and version a number, got {factory.name!r}, {factory.version!r}"
        )
    hidden = [_call(f"privileged({s})", factory.privileged, s) for s in (seed, seed + 1, seed)]
    for array in hidden:
        if not isinstance(array, np.ndarray) or array.ndim != 1 or not np.isfinite(array).all():
            raise ContractError(f"privileged() returned {array!r}, it should return a row of finite numbers")
    if hidden[0].shape != hidden[1].shape or not np.array_equal(hidden[0], hidden[2]):
        raise ContractError("privileged() should have one length for all instances, and one value for a seed")


def _check_spaces(campaign: Campaign) -> list[int]:
    if not isinstance(campaign.observation_space, Box) or campaign.observation_space.dtype != np.float32:
        raise ContractError(f"observation_space is {campaign.observation_space}, it should be a Box of float32")
    space: gymnasium.Space[Any] = campaign.action_space
    if not isinstance(space, MultiDiscrete | Discrete):
        raise ContractError(f"action_space is {space}, it should be MultiDiscrete or Discrete")
    for name in ("reward_scale", "deadline_s"):
        value = getattr(campaign, name)
        if not (isinstance(value, int | float) and 0.0 < value < float("inf")):
            raise ContractError(f"{name} is {value!r}, it should be a positive number")
    return [int(n) for n in space.nvec] if isinstance(space, MultiDiscrete) else [int(space.n)]


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
    for number, part in enumerate(np.split(mask, np.cumsum(heads)[:-1])):
        if not part.any():
            raise ContractError(f"decision(): the mask allows no choice of head {number}")


def _check_replay(factory: CampaignFactory, game: _Game, capacity: Capacity) -> None:
    """What resuming does: at some decisions, and at the end."""
    asked = [i for i, record in enumerate(game.journal) if record.kind == "decision"]
    for number in sorted({0, len(asked) // 2, len(asked) - 1}):
        fresh = _Game(factory, game.instance, capacity)
        decision = fresh.driver.replay(game.journal[: asked[number]], {})
        if _seen(decision) != game.decisions[number]:
            raise ContractError(
                f"a replayed campaign asks differently at decision {number}: its state must follow from the seed, the "
                "actions and the events alone (no clock, no global state, no randomness without a seed)"
            )
    fresh = _Game(factory, game.instance, capacity)
    fresh.driver.replay(game.journal, {})
    if fresh.watched.outcome() != game.outcome:
        raise ContractError(
            "outcome() of a replayed campaign differs: its state must follow from seed, actions, events"
        )


def _check_masked(factory: CampaignFactory, game: _Game, capacity: Capacity) -> None:
    """A choice that the mask forbids is answered like any other."""
    asked = [i for i, record in enumerate(game.journal) if record.kind == "decision"]
    for number, mask in enumerate(game.masks):
        if not mask.all():
            fresh = _Game(factory, game.instance, capacity)
            fresh.driver.replay(game.journal[: asked[number]], {})
            parts = np.split(mask, np.cumsum(fresh.watched.heads)[:-1])
            fresh.watched.apply(np.array([int(np.argmin(part)) for part in parts], np.int64))
            return


def _compare(first: _Game, again: _Game) -> None:
    for number, (one, other) in enumerate(zip(first.decisions, again.decisions, strict=False)):
        if one != other:
            raise ContractError(
                f"decision {number} of instance {first.instance} differs when played again with the same answers: "
                "campaign(seed) and task_model(seed) must be fixed by the seed"
            )
    if first.watched.started != again.watched.started or first.outcome != again.outcome:
        raise ContractError("apply() or outcome() differs when an instance is played again with the same answers")


def _seen(decision: Decision | None) -> Any:
    """A decision in a form that can be compared."""
    if decision is None:
        return None
    fields = json.dumps(dict(decision.fields), sort_keys=True, default=repr)
    return decision.subject, decision.time_s, fields, decision.observation.tobytes(), decision.mask.tobytes()


def _call(what: str, function: Callable[..., _Result], *arguments: Any) -> _Result:
    try:
        return function(*arguments)
    except RlctlError:
        raise
    except Exception as error:
        raise ContractError(f"{what} raised {reason(error)}") from error
