"""What must hold of an ensemble on the twin, whoever decides and whatever goes wrong."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import forms
import gymnasium.utils.env_checker
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.config.load import load_config
from rlctl.config.schema import RuleEntry
from rlctl.core.campaign import Action, Decision
from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity, NodeGroup
from rlctl.core.policy import Policy
from rlctl.core.records import Record, RecordList
from rlctl.core.task import TaskState
from rlctl.environments.campaign_env import CampaignEnv, twin
from rlctl.plugins.registry import configured_campaign, load_policy, make_rule
from rlctl_envs.ensemble.active_task import TaskPhase
from rlctl_envs.ensemble.campaign import EnsembleCampaign
from rlctl_envs.ensemble.cost_account import MOST_CREDIT
from rlctl_envs.ensemble.factory import Ensemble

EQUAL = Capacity(nodes=8, cores=2)
UNEQUAL = Capacity.of([NodeGroup(6, 4, memory_mb=8000), NodeGroup(3, 4, gpus=2, memory_mb=16000)])

HARD: dict[str, Any] = {
    "workload": {
        "tasks": [6, 12],
        "most_tasks": 20,
        "gpus": {"need": 0.2, "gain": 0.4},
        "load": 0.8,
        "resizable": 0.7,
        "memory_mb": [100, 8000],
        "priorities": 3,
        "deadline": [1, 5],
        "quality": 0.6,
        "reports": 4,
        "depend_probability": 0.2,
        "trouble": {"failures_per_rank_s": 5e-5, "traps_per_work": [0, 2], "scatter": 0.2},
    },
    "nodes": {"queue_s": [0, 500], "losses_per_node_s": 5e-5, "repair_s": 600, "change_s": 2000},
    "objective": {"slowdown": 1.0, "gpu_second": 0.1},
    "ranks": [1, 2, 4, 8],
    "stop": True,
    "resize": True,
    "allocation_s": 50000,
}


class AnyAllowed:
    """Answers at random among what the mask allows."""

    name = "any_allowed"

    def reset(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def act(self, decision: Decision) -> Action:
        assert np.isfinite(decision.observation).all()
        return np.array([self.rng.choice(np.flatnonzero(decision.mask))])

    def state(self) -> dict[str, object]:
        return {}

    def restore(self, state: object) -> None: ...


def rule(name: str, **parameters: float) -> Policy:
    return make_rule(RuleEntry(rule=name, parameters=parameters), name, ("policies", name))


def played(
    factory: Ensemble, capacity: Capacity, policy: Policy, instance: int
) -> tuple[Driver, RecordList, list[float]]:
    """Play to the end; the driver, its journal, and the times at which it was asked."""
    records, times = RecordList(), []
    driver = Driver(factory.campaign(instance), twin(factory, capacity, instance, records), records)
    policy.reset(instance)
    decision = driver.begin()
    while decision is not None:
        times.append(decision.time_s)
        assert_consistent(driver.campaign)
        decision = driver.step(policy.act(decision))
    return driver, records, times


def assert_consistent(campaign: EnsembleCampaign) -> None:
    """What is charged is what runs; what a task has said is of the attempt that runs; paths are as long as they are."""
    state, account = campaign.state, campaign.tasks.account
    placed = [task for task in state.running.values() if not task.waits_again]
    assert state.busy_ranks == sum(task.shape.ranks for task in placed)
    assert account._partly == pytest.approx(sum(min(task.done, MOST_CREDIT) for task in placed), abs=1e-9)
    assert account._gpus == sum(task.shape.ranks * task.shape.gpu for task in placed)
    assert all(r.time_s >= task.started_s for task in state.running.values() for r in task.reports)
    paths: dict[int, float] = {}
    for number in sorted(state.tasks, reverse=True):
        after = [paths[n] for n, task in state.tasks.items() if n > number and number in task.job.after]
        paths[number] = state.tasks[number].reference_s + max(after, default=0.0)
    assert {n: task.path_s for n, task in state.tasks.items()} == pytest.approx(paths)


POLICIES = ("any_allowed", "lpt", "easy", "tetris", "renewal", "median_stopping", "wfp3", "same_efficiency")


def policy(name: str) -> Policy:
    return AnyAllowed() if name == "any_allowed" else rule(name)


@settings(max_examples=60 if forms.full() else 12, deadline=None)
@given(instance=st.integers(0, 2**32 - 1), name=st.sampled_from(POLICIES), unequal=st.booleans())
def test_never_over_capacity_and_every_task_ends_once(instance: int, name: str, unequal: bool) -> None:
    capacity = UNEQUAL if unequal else EQUAL
    factory = Ensemble(HARD | ({} if unequal else {"workload": HARD["workload"] | {"gpus": {}}}))
    driver, records, times = played(factory, capacity, policy(name), instance)
    assert times == sorted(times)
    assert [r.time_s for r in records] == sorted(r.time_s for r in records)
    assert_within(capacity, records)
    state = driver.campaign.state
    final = [task.job.number for task in state.ended]
    assert len(final) == len(set(final))
    left = [*state.waiting, *state.blocked, *state.running]
    assert sorted([*final, *left]) == sorted(state.tasks)
    if driver.outcome().reached:
        assert not left
    ends = defaultdict(set)
    for record in records:
        if record.kind == "event" and "result" in record.data:
            ends[record.data["uid"]].add(record.data["state"])
    assert all(len(states) == 1 for states in ends.values())


def assert_within(capacity: Capacity, records: list[Record]) -> None:
    """No core and no GPU of a node is held by two attempts at a time, nor are there more than it has."""
    held: dict[tuple[str, int], tuple[list[int], dict[str, float]]] = {}
    over: set[tuple[str, int]] = set()
    kinds = [kind for kind in capacity.kinds for _ in range(kind.nodes)]
    # A launch is written before the driver has been told of the ends that made room for it, at the same instant.
    for record in sorted(records, key=lambda record: (record.time_s, record.kind == "launching")):
        key = (str(record.data.get("uid")), int(record.data.get("attempt", 0)))
        if record.kind == "launching" and key not in over:
            for cores, _ in held.values():
                assert not set(cores) & set(record.data["cores"])
            held[key] = record.data["cores"], record.data["gpus"]
            shares: dict[str, float] = defaultdict(float)
            for _, gpus in held.values():
                for name, share in gpus.items():
                    shares[name] += share
            assert all(share <= 1.0 + 1e-9 for share in shares.values())
            for core in record.data["cores"]:
                assert core % capacity.cores < kinds[core // capacity.cores].cores
            for name in record.data["gpus"]:
                node, device = name.removeprefix("node").split(":")
                assert int(device) < kinds[int(node)].gpus
        elif record.kind == "event" and record.data["state"] not in ("running", "suspended", "queued"):
            held.pop(key, None)
            over.add(key)


@settings(max_examples=40 if forms.full() else 6, deadline=None)
@given(instance=st.integers(0, 2**32 - 1), name=st.sampled_from(POLICIES))
def test_a_journal_rebuilds_the_ensemble_at_any_point(instance: int, name: str) -> None:
    factory = Ensemble(HARD)
    driver, records, _ = played(factory, UNEQUAL, policy(name), instance)
    whole = list(records)
    again = Driver(factory.campaign(instance), twin(factory, UNEQUAL, instance))
    again.replay(whole, {})
    assert again.outcome() == driver.outcome()
    assert again.ledger.node_seconds == pytest.approx(driver.ledger.node_seconds)


def test_work_is_conserved_over_changes_of_size() -> None:
    # One kind, no start-up, no trouble: what attempts did of the work adds up to all of it.
    options = {
        "workload": {"tasks": [4, 6], "resizable": 1.0, "spawn_probability": 0.0, "reports": 3, "kinds": [1, 1]},
        "ranks": [1, 2, 4, 8],
        "resize": True,
        "control_slots": 20,
    }
    factory, resizes = Ensemble(options), 0
    for instance in range(30):
        driver, records, _ = played(factory, EQUAL, AnyAllowed(), instance)
        resizes += driver.campaign.resizes
        workload = factory.workload(instance)
        done: dict[int, float] = defaultdict(float)
        since: dict[str, tuple[float, int]] = {}
        ranks: dict[str, int] = {}
        for record in records:
            if record.kind == "launching":
                ranks[record.data["uid"]] = len(record.data["cores"])
            elif record.kind == "event" and "progress" not in record.data:
                uid, state = record.data["uid"], record.data["state"]
                if state == "running":
                    since[uid] = record.time_s, ranks[uid]
                elif state in ("preempted", "done"):
                    began_s, count = since.pop(uid)
                    number = int(uid[4:9])
                    done[number] += (record.time_s - began_s) / workload.duration_s(number, count)
        assert driver.outcome().reached
        assert list(done.values()) == pytest.approx([1.0] * len(workload.jobs))
    assert resizes > 20


def test_what_costs_more_than_node_seconds_is_paid() -> None:
    driver, records, _ = played(Ensemble(HARD), UNEQUAL, rule("lpt"), 5)
    outcome, ends = driver.outcome(), driver.campaign.state.ended
    slowdowns = sum(max(1.0, (t.ended_s - t.arrived_s) / max(t.reference_s, 10.0)) for t in ends)
    gpu_s, since = 0.0, dict[str, tuple[float, float]]()
    for record in records:
        if record.kind == "launching":
            since[record.data["uid"]] = record.time_s, sum(record.data["gpus"].values())
        elif record.kind == "event" and record.data["state"] != "running" and record.data["uid"] in since:
            began_s, gpus = since.pop(record.data["uid"])
            gpu_s += gpus * (record.time_s - began_s)
    assert outcome.reached
    assert gpu_s > 0.0
    assert outcome.cost == pytest.approx(driver.ledger.node_seconds + slowdowns + 0.1 * gpu_s, rel=1e-6)


def test_an_allocation_that_waits_or_shrinks_is_paid_only_while_it_is_there() -> None:
    options = {"nodes": {"queue_s": [1000, 1000]}, "workload": {"tasks": [3, 3]}, "ranks": [1, 2]}
    driver, records, _ = played(Ensemble(options), EQUAL, rule("fifo"), 1)
    end_s = max(record.time_s for record in records)
    assert driver.ledger.node_seconds == pytest.approx(EQUAL.nodes * (end_s - 1000.0))
    first = next(record for record in records if record.kind == "launching")
    assert first.time_s == 1000.0


def test_a_task_that_can_never_run_fails_and_so_do_those_that_wait_for_it() -> None:
    options = {"workload": {"memory_mb": [1e6, 1e6], "tasks": [4, 4], "depend_probability": 1.0}}
    factory = Ensemble(options)
    with pytest.raises(ValueError, match="before its first decision"):
        CampaignEnv(factory, UNEQUAL).reset(seed=0)
    campaign = factory.campaign(0)
    campaign.begin(UNEQUAL)
    assert campaign.state.counts[TaskPhase.FAILED] == 4
    assert campaign.outcome().ended


def test_shaped_returns_differ_from_prices_by_a_constant_only() -> None:
    factory = Ensemble({"workload": {"tasks": [5, 8], "reports": 2}, "ranks": [1, 2, 4]})
    sums = []
    for name in ("any_allowed", "lpt"):
        env, rewards = CampaignEnv(factory, EQUAL), 0.0
        player = policy(name)
        player.reset(3)
        env.reset(options={"instance": 7})
        start = factory.campaign(7)
        start.begin(EQUAL)
        while env.episode.decision is not None:
            rewards += env.step(player.act(env.episode.decision))[1]
        cost = env.episode.driver.ledger.node_seconds * env.episode.campaign.reward_scale
        sums.append(rewards + cost + start.outcome().potential)
    assert sums == pytest.approx([0.0, 0.0], abs=1e-9)


def test_giving_up_a_goal_never_pays() -> None:
    class GivesUp:
        name = "gives_up"

        def __init__(self) -> None:
            self.rule = rule("lpt")

        def reset(self, seed: int) -> None: ...

        def act(self, decision: Decision) -> Action:
            reported = decision.fields["state"].reported
            return self.rule.act(decision) if reported is None else {"stop": reported.job.number}

    config = load_config(Path(__file__).parents[2] / "configs" / "ensemble_stopping.yaml")
    factory = configured_campaign(config)
    for instance in range(20 if forms.full() else 6):
        returns = []
        for player in (GivesUp(), load_policy(config, "renewal")):
            env, total = CampaignEnv(factory, config.machine.capacity()), 0.0
            player.reset(instance)
            env.reset(options={"instance": instance})
            while env.episode.decision is not None:
                total += env.step(player.act(env.episode.decision))[1]
            returns.append(total)
            outcome, spent = env.episode.campaign.outcome(), env.episode.driver.ledger.node_seconds
            scale, missing = env.episode.campaign.reward_scale, 1.0 - outcome.successes / 8.0
            assert outcome.cost == pytest.approx(spent + 10.0 * missing / scale)
            assert total == pytest.approx(1.0 - scale * outcome.cost)
        assert missing < 1.0
        assert returns[0] < returns[1], instance


def test_gymnasiums_checker_passes() -> None:
    gymnasium.utils.env_checker.check_env(CampaignEnv(Ensemble(HARD), UNEQUAL), skip_render_check=True)


@pytest.mark.parametrize("answer", [{"start": 99}, {"stop": 99}, {"resize": 0}, {}, {"wait": True}, np.array([31])])
def test_what_is_not_allowed_becomes_a_start_where_nothing_would_happen(answer: Action) -> None:
    campaign = Ensemble().campaign(0)
    campaign.begin(Capacity(nodes=32, cores=1))
    assert campaign.decision() is not None
    if not isinstance(answer, dict) and campaign.decision().mask[31]:
        pytest.skip("this choice is offered")
    commands = campaign.apply(answer)
    assert campaign.masked == 1
    assert len(campaign.state.running) == len(commands) == 1


def test_a_rule_is_marked_among_the_choices_and_can_be_followed_or_not() -> None:
    campaign = Ensemble().campaign(0)
    campaign.begin(Capacity(nodes=32, cores=1))
    decision = campaign.decision()
    proposal = rule("lpt").act(decision)
    around = decision.residual(proposal)
    from rlctl_envs.ensemble.features import CHOICE, GLOBALS

    marks = around.observation[GLOBALS : GLOBALS + 32 * CHOICE].reshape(32, CHOICE)[:, -1]
    assert marks.sum() == 1.0
    assert around.named(np.array([int(marks.argmax())])) == proposal
    other = next(i for i in np.flatnonzero(around.mask) if i != marks.argmax())
    assert around.named(np.array([other])) != proposal


def test_nothing_is_known_of_a_task_before_it_arrives() -> None:
    factory = Ensemble({"workload": {"load": 0.5}})
    campaign = factory.campaign(3)
    campaign.begin(Capacity(nodes=32, cores=1))
    assert len(campaign.state.tasks) <= 1
    assert not hasattr(campaign.state, "jobs")
    assert campaign.state.truth is None


def test_canceled_by_hand_is_stopped() -> None:
    factory = Ensemble({"workload": {"tasks": [2, 2], "spawn_probability": 0.0}, "ranks": [1]})
    executor = twin(factory, EQUAL, 0)
    driver = Driver(factory.campaign(0), executor)
    decision = driver.begin()
    lpt = rule("lpt")
    decision = driver.step(lpt.act(decision))
    executor.cancel(driver.started[0])
    while decision is not None:
        decision = driver.step(lpt.act(decision))
    assert driver.campaign.state.counts == {TaskPhase.DONE: 1, TaskPhase.FAILED: 0, TaskPhase.STOPPED: 1}
    canceled = [event.uid for event in executor.events() if event.state is TaskState.CANCELED]
    assert len(canceled) == 1


def test_where_all_tasks_have_to_end_stopping_one_does_not_end_it() -> None:
    exact = {"tasks": [2, 2], "spawn_probability": 0.0, "reports": 3, "error": [0, 0], "serial": [1.0, 1.0]}
    options = {"workload": exact, "ranks": [1], "stop": True}

    class StopsOnce:
        name = "stops_once"

        def __init__(self) -> None:
            self.stopped: set[int] = set()
            self.rule = rule("lpt")

        def reset(self, seed: int) -> None: ...

        def act(self, decision: Decision) -> Action:
            reported = decision.fields["state"].reported
            if reported is not None and reported.job.number not in self.stopped:
                self.stopped.add(reported.job.number)
                return {"stop": reported.job.number}
            return self.rule.act(decision)

    for goal, counts in ((None, (2, 0)), (2, (0, 2))):
        factory = Ensemble(options | {"objective": {"goal": goal}})
        driver, records, _ = played(factory, EQUAL, StopsOnce(), 2)
        state = driver.campaign.state
        assert (state.counts[TaskPhase.DONE], state.counts[TaskPhase.STOPPED]) == counts
        assert driver.outcome().reached is (goal is None)
        canceled = [r for r in records if r.kind == "event" and r.data["state"] == "canceled"]
        assert len(canceled) == 2


def test_the_price_of_waiting_does_not_depend_on_what_a_policy_has_measured() -> None:
    factory = Ensemble({"workload": {"tasks": [8, 8], "load": 0.5}, "ranks": [1, 2, 4, 8]})
    references = []
    for name in ("lpt", "any_allowed"):
        driver, _, _ = played(factory, EQUAL, policy(name), 4)
        references.append({task.job.number: task.reference_s for task in driver.campaign.state.ended})
    assert references[0] == references[1]


class Restless:
    """Starts a task, and in the same moment stops it again and again, or gives it two ranks instead of one."""

    name = "restless"

    def __init__(self, what: str, times: int) -> None:
        self.what, self.left = what, times
        self.ranks = 2 if what == "resize" and not times else 1

    def reset(self, seed: int) -> None: ...

    def act(self, decision: Decision) -> Action:
        state = decision.fields["state"]
        for task in state.running.values():
            if self.left > 0 and task.started_s == decision.time_s:
                self.left -= 1
                return {"stop": task.job.number} if self.what == "stop" else {"resize": task.job.number, "ranks": 2}
        return {"start": next(iter(state.waiting)), "ranks": self.ranks} if state.waiting else {"wait": True}


@pytest.mark.parametrize(("what", "times"), [("stop", 8), ("resize", 1)])
def test_what_did_not_happen_changes_nothing(what: str, times: int) -> None:
    """Attempts that are stopped or changed in the moment of their start have done no work and had no luck."""
    work = {"tasks": [1, 1], "spawn_probability": 0.0, "resizable": 1.0, "checkpoint_s": 1.0, "spread": [0.0, 0.0]}
    trouble = {"failures_per_rank_s": 2e-4, "scatter": 0.3}
    options = {"workload": work | {"trouble": trouble}, "ranks": [1, 2], "stop": True, "resize": True, "retries": 100}
    for instance in range(5):
        prices = []
        for count in (0, times):
            driver, _, _ = played(Ensemble(options), EQUAL, Restless(what, count), instance)
            assert driver.outcome().successes == 1
            prices.append(driver.ledger.node_seconds)
        assert prices[0] == pytest.approx(prices[1])


def test_a_task_that_is_stopped_again_and_again_does_not_stop_the_clock() -> None:
    driver, _, times = played(Ensemble(HARD), UNEQUAL, rule("renewal"), 1438311637)
    assert driver.outcome().ended
    assert len(times) < 5000


def test_one_that_comes_to_its_walltime_goes_on_from_its_checkpoint() -> None:
    work = {"tasks": [1, 1], "spawn_probability": 0.0, "resizable": 1.0, "work_s": 3000.0, "spread": [0.0, 0.0]}
    options = {"workload": work, "ranks": [1], "program": {"walltime_s": 700.0}, "retries": 9}
    driver, _, _ = played(Ensemble(options), EQUAL, rule("lpt"), 0)
    assert driver.outcome().successes == 1
    assert driver.campaign.tasks.failures == 4
    assert driver.executor.now() == pytest.approx(3000.0)


def test_one_that_lost_its_node_has_said_nothing_and_takes_no_gpu() -> None:
    options = {
        "workload": {"tasks": [1, 1], "work_s": 9000.0, "spawn_probability": 0.0, "gpus": {"need": 1.0}, "reports": 9},
        "nodes": {"losses_per_node_s": 5e-4, "repair_s": 10_000.0},
        "objective": {"node_second": 0.0, "gpu_second": 1.0},
        "ranks": [1],
        "allocation_s": 1e6,
    }
    lost = 0
    for instance in range(10):
        driver, records, _ = played(Ensemble(options), Capacity(1, 1, gpus=1), rule("lpt"), instance)
        states = [r.data["state"] for r in records if r.kind == "event"]
        lost += "preempted" in states
        ran_s, since_s = 0.0, None
        for record in (r for r in records if r.kind == "event" and "progress" not in r.data):
            if record.data["state"] == "running":
                since_s = record.time_s
            elif since_s is not None:
                ran_s, since_s = ran_s + record.time_s - since_s, None
        assert driver.outcome().cost == pytest.approx(ran_s)
    assert lost > 3


def test_one_that_runs_where_it_is_not_seen_and_is_lost_again_has_said_nothing() -> None:
    options = HARD | {"workload": HARD["workload"] | {"gpus": {}}}
    played(Ensemble(options), EQUAL, policy("any_allowed"), 28947)  # asserts at each decision


def test_the_next_task_may_come_after_the_end() -> None:
    options = {"workload": {"tasks": [6, 6], "load": 0.01}, "allocation_s": 3000.0}
    for instance in range(8):
        driver, _, _ = played(Ensemble(options), EQUAL, rule("lpt"), instance)
        assert driver.outcome().ended
        assert driver.executor.now() <= 3000.0
