"""The moldable queue, played to the end on the simulated executor."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from rlctl.core.campaign import Action, Decision, Start
from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.core.records import Recorder, RecordList
from rlctl.core.task import Event, TaskResult, TaskState
from rlctl.environments.campaign_env import CampaignEnv
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl_agents.rules.queue import EqualEfficiency, LargestFirst, fitted_scaling, loss
from rlctl_envs.moldable_queue.campaign import NODES, WAIT, QueueCampaign
from rlctl_envs.moldable_queue.factory import MoldableQueue

MACHINE = Capacity(nodes=32, cores=1)


class Watched(SimulatedExecutor):
    """Keeps every event that it has reported."""

    def __init__(self, capacity: Capacity, seed: int, recorder: Recorder | None = None) -> None:
        super().__init__(capacity, MoldableQueue().task_model(seed), recorder)
        self.history: list[Event] = []

    def wait(self, timeout_s: float | None = None, *, idle: bool = False) -> list[Event]:
        events = super().wait(timeout_s, idle=idle)
        self.history += events
        return events


class AnyAllowed:
    """Answers at random among what the mask allows."""

    name = "any_allowed"

    def reset(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, decision: Decision) -> Action:
        return np.array([self.rng.choice(np.flatnonzero(decision.mask))])

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, state: object) -> None:
        pass


def played(policy: Policy, seed: int, capacity: Capacity = MACHINE) -> tuple[QueueCampaign, Watched, Driver]:
    campaign, executor = MoldableQueue().campaign(seed), Watched(capacity, seed)
    driver = Driver(campaign, executor)
    policy.reset(seed)
    decision = driver.begin()
    while decision is not None:
        decision = driver.step(policy.act(decision))
    return campaign, executor, driver


def makespan(policy: Policy, seed: int) -> float:
    return played(policy, seed)[2].ledger.node_seconds / MACHINE.nodes


@pytest.mark.parametrize("policy", [LargestFirst(), EqualEfficiency(), AnyAllowed()], ids=lambda p: p.name)
@pytest.mark.parametrize("capacity", [MACHINE, Capacity(nodes=1, cores=6)], ids=["32 nodes", "6 cores"])
def test_every_task_ends_once_and_the_machine_is_never_overfull(policy: Policy, capacity: Capacity) -> None:
    for seed in range(5):
        campaign, executor, driver = played(policy, seed, capacity)
        assert campaign.outcome().reached
        assert campaign.masked == 0
        ends = [e.result for e in executor.history if e.result is not None]
        assert all(result.state is TaskState.DONE for result in ends)
        numbers = sorted(int(result.uid[4:7]) for result in ends)
        assert numbers == list(range(len(executor.model.workload.jobs)))  # type: ignore[attr-defined]
        for moment in {result.started_s for result in ends}:
            busy = sum(r.cores for r in ends if r.started_s <= moment < r.ended_s)
            assert busy <= capacity.total_cores
        assert driver.ledger.node_seconds == pytest.approx(capacity.nodes * max(r.ended_s for r in ends))


def test_tasks_start_at_the_instant_of_their_decision() -> None:
    """The campaign asks for no more than is free, so that nothing ever queues behind its back."""
    _, executor, _ = played(AnyAllowed(), 3)
    ends = {0.0} | {e.time_s for e in executor.history if e.result is not None}
    assert all(e.time_s in ends for e in executor.history if e.state is TaskState.RUNNING)


def test_children_are_the_same_however_the_tasks_are_run() -> None:
    sizes = {len(played(policy, 11)[0].ended) for policy in (LargestFirst(1), LargestFirst(), AnyAllowed())}
    assert len(sizes) == 1
    assert sizes.pop() > MoldableQueue().task_model(11).workload.initial


def test_mask_allows_what_fits_and_waiting_only_while_something_runs() -> None:
    campaign = MoldableQueue().campaign(0)
    campaign.begin(Capacity(nodes=20, cores=1))
    decision = campaign.decision()
    assert decision is not None
    assert [n for n, ok in zip(NODES, decision.mask, strict=False) if ok] == [1, 2, 4, 8, 16]
    assert not decision.mask[WAIT]
    campaign.apply({"pick": "smallest", "nodes": 16})
    decision = campaign.decision()
    assert decision is not None
    assert [n for n, ok in zip(NODES, decision.mask, strict=False) if ok] == [1, 2, 4]
    assert decision.mask[WAIT]
    campaign.apply({"wait": True})
    assert campaign.decision() is None


@pytest.mark.parametrize(
    "action",
    [
        np.array([WAIT]),
        np.array([5]),
        np.array([99]),
        np.array([-1]),
        {"wait": True},
        {"pick": "largest", "nodes": 32},
        {"pick": "oldest", "nodes": 1},
        {},
    ],
    ids=str,
)
def test_a_choice_that_is_not_allowed_becomes_the_default_and_is_counted(action: Action) -> None:
    campaign = MoldableQueue().campaign(0)
    campaign.begin(Capacity(nodes=20, cores=1))
    largest = max(campaign.fields()["waiting_estimates_s"])
    (command,) = campaign.apply(action)
    assert campaign.masked == 1
    assert campaign.outcome().extra["masked_actions"] == 1.0
    assert isinstance(command, Start)
    assert command.spec.resources.ranks == 1
    assert max(campaign.fields()["waiting_estimates_s"]) < largest


def test_replay_of_the_journal_gives_the_same_state() -> None:
    campaign, recording = MoldableQueue().campaign(4), RecordList()
    driver = Driver(campaign, Watched(MACHINE, 4, recording), recording)
    policy = AnyAllowed()
    policy.reset(4)
    decision = driver.begin()
    for _ in range(25):
        assert decision is not None
        decision = driver.step(policy.act(decision))
    again = Driver(MoldableQueue().campaign(4), Watched(MACHINE, 4))
    attempts = dict.fromkeys(campaign._running, 1)
    rebuilt = again.replay(recording, attempts)
    assert decision is not None
    assert rebuilt is not None
    np.testing.assert_array_equal(rebuilt.observation, decision.observation)
    assert rebuilt.fields == decision.fields
    assert rebuilt.number == decision.number == 25
    assert again.ledger.node_seconds == driver.ledger.node_seconds


@pytest.mark.parametrize(
    ("state", "values"),
    [(TaskState.CANCELED, {}), (TaskState.DONE, {}), (TaskState.DONE, {"children": [50], "estimates_s": []})],
    ids=["stopped", "no result", "garbage"],
)
def test_a_task_without_a_good_end_waits_again(state: TaskState, values: dict[str, object]) -> None:
    campaign = MoldableQueue().campaign(0)
    campaign.begin(MACHINE)
    before = campaign.fields()["waiting_estimates_s"]
    (command,) = campaign.apply({"pick": "largest", "nodes": 4})
    assert isinstance(command, Start)
    uid = command.spec.uid
    campaign.on_event(Event(9.0, uid, state, result=TaskResult(uid, state, 1, values)))
    assert campaign.fields()["waiting_estimates_s"] == before
    assert campaign.free_nodes == 32
    (again,) = campaign.apply({"pick": "largest", "nodes": 4})
    assert isinstance(again, Start)
    assert again.spec.uid != uid


def test_largest_first_on_16_nodes_beats_one_node_each() -> None:
    wide = np.array([makespan(LargestFirst(16), seed) for seed in range(32)])
    narrow = np.array([makespan(LargestFirst(1), seed) for seed in range(32)])
    assert wide.mean() < 0.6 * narrow.mean()


def test_scaling_is_recovered_from_many_measurements() -> None:
    rng = np.random.default_rng(0)
    measured = []
    for nodes in NODES * 200:
        estimate = 600.0 * np.exp(0.1 * rng.standard_normal())
        measured.append((float(estimate), nodes, 600.0 * loss(nodes, 0.08, 0.4) / nodes))
    serial, kappa = fitted_scaling(measured)
    assert serial == pytest.approx(0.08, rel=0.1)
    assert kappa == pytest.approx(0.4, rel=0.1)


def test_it_passes_gymnasiums_checker() -> None:
    check_env(CampaignEnv(MoldableQueue(), MACHINE), skip_render_check=True)


@pytest.mark.parametrize(
    "options", [{"task": [1, 2]}, {"tasks": [9, 3]}, {"work_s": 0}, {"spawn_probability": 2}], ids=str
)
def test_wrong_options_are_one_line_that_names_the_key(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"^campaign\.options.*") as caught:
        MoldableQueue(options)
    assert "\n" not in str(caught.value)
