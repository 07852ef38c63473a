"""Campaigns of segments: what a segment begins with, what follows from its end, and what may be chosen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from segmented import HOLD, OPTIONS, PROGRAM, Answers, SteppedModel, segments, steered

from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.random_policy import Chance
from rlctl.core.records import RecordList
from rlctl.core.simulation import Simulated
from rlctl.core.task import Event, Failure, TaskResult, TaskState
from rlctl.environments.campaign_env import twin
from rlctl.plugins.registry import policy_factory
from rlctl.testing.checks import check_campaign, check_policy
from rlctl_envs.segments.chains import SegmentStatus, SimulationEnd

pytestmark = pytest.mark.quick

RULES = [
    "schedule_constant", "schedule_ramp", "schedule_exponential", "schedule_cycle", "schedule_piecewise",
    "proportional_feedback", "restart_best", "renewal_give_up",
]  # fmt: skip


def rise(q: float, asked: Mapping[str, Any]) -> float:
    """A fifth of the way in each segment."""
    return q + 0.2


# Chains.


def test_a_segment_begins_with_the_restart_file_of_the_one_before() -> None:
    found = steered(segments(), rise)
    assert [(s.simulation, s.index, s.parent) for s in found.state.segments] == [
        (0, 0, None),
        (0, 1, 0),
        (0, 2, 1),
        (0, 3, 2),
        (0, 4, 3),
    ]
    assert found.outcome().reached
    assert found.state.memory.lengths == [1000]


def test_its_program_gets_the_files_and_the_values() -> None:
    command = "python {here}/sim.py {T} {steps} {simulation} {segment} {restart_in} {restart_out}"
    factory = segments(program={"command": command.replace("{here}/", "")})
    model = SteppedModel(rise)
    steered(factory, rise, model=model)
    told = [launch.spec.arguments[1:] for launch in model.launches]
    assert told[0] == ("0.5", "200", "0", "0", "", "../../restarts/0000")
    assert told[1] == ("0.5", "200", "0", "1", "../../restarts/0000", "../../restarts/0001")


def test_simulations_run_side_by_side_and_are_replaced_when_they_have_succeeded() -> None:
    found = steered(segments(simulations=2, until={"found": 3, "node_seconds": 1e6}), rise, cores=2)
    assert found.outcome().successes >= 3
    firsts = [segment for segment in found.state.segments if segment.parent is None]
    assert [segment.simulation for segment in firsts] == list(range(len(firsts)))
    assert len(firsts) >= 3
    by_number = {segment.number: segment for segment in found.state.segments}
    assert all(by_number[s.parent].simulation == s.simulation for s in found.state.segments if s.parent is not None)


def test_after_a_failure_of_the_machine_a_segment_is_run_again_from_the_last_restart_file() -> None:
    lives: list[Any] = []

    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        lives.append(asked["from"])
        return Simulated(1.0, failure=Failure.SIGNAL) if len(lives) == 3 else q + 0.2

    found = steered(segments(), step)
    assert lives == [None, 0, 1, 1, 3, 4]  # number 2 was lost: 3 begins where it began
    assert found.state.segments[2].status is SegmentStatus.FAILED
    assert [s.index for s in found.state.segments] == [0, 1, 2, 2, 3, 4]
    assert found.outcome().extra["simulations_found"] == 1


def test_a_machine_that_fails_too_often_ends_the_simulation() -> None:
    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        return Simulated(1.0, failure=Failure.SIGNAL) if asked["simulation"] == 0 and asked["from"] == 0 else q + 0.5

    found = steered(segments(retries=2), step)
    assert [s.parent for s in found.state.segments if s.simulation == 0] == [None, 0, 0, 0]
    assert found.state.memory.ended[SimulationEnd.LOST] == 1
    assert found.outcome().reached


@pytest.mark.parametrize("failure", [Failure.EXIT, Failure.GARBAGE])
def test_a_blow_up_ends_the_simulation(failure: Failure) -> None:
    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        return Simulated(1.0, failure=failure) if asked["simulation"] == 0 and q > 0.3 else q + 0.2

    found = steered(segments(), step)
    assert found.state.memory.ended[SimulationEnd.BLEW_UP] == 1
    assert [s.simulation for s in found.state.segments] == [0, 0, 0, 1, 1, 1, 1, 1]
    assert found.state.segments[3].parent is None


def test_values_that_blow_up_count_as_a_loss_of_what_was_gained() -> None:
    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        lost = asked["simulation"] == 0 and q > 0.3
        return Simulated(1.0, failure=Failure.EXIT) if lost else q + 0.2

    found = steered(segments(), step).state
    assert [segment.status for segment in found.segments].count(SegmentStatus.FAILED) == 1
    cells = [cell for phase in found.memory.bins for cell in phase[0]]
    assert sum(cell.length for cell in cells) == 200 * len(found.segments)
    # The first simulation gained 0.2 after its first segment and lost it, the second went from 0.2 to 1.
    assert sum(cell.gain for cell in cells) == pytest.approx(0.2 - 0.2 + 0.8)


def test_values_at_which_the_machine_fails_count_for_nothing() -> None:
    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        return Simulated(1.0, failure=Failure.SIGNAL) if asked["evaluation"] == 1 else q + 0.2

    memory = steered(segments(until={"found": 1, "evaluations": 2}), step).state.memory
    assert sum(cell.length for row in memory.bins for cell in row[0]) == 2 * 200


def test_a_declared_blow_up_is_no_failure() -> None:
    said = {"kind": "melted", "then": "infeasible", "message": "exit code 3", "attempts": 1}

    def step(q: float, asked: Mapping[str, Any]) -> float | Simulated:
        return Simulated(1.0, said) if asked["evaluation"] == 0 else q + 0.5

    journal = RecordList()
    found = steered(segments(), step, journal=journal)
    first = found.state.segments[0]
    assert (first.status, first.kind, first.message) == (SegmentStatus.INFEASIBLE, "melted", "exit code 3")
    campaign = segments().campaign(0)
    campaign.begin(Capacity(1, 1))
    campaign.decision()
    command = campaign.apply({"T": 0.5, "steps": 200})[0]
    uid = command.spec.uid  # type: ignore[union-attr]
    done = TaskResult(uid, TaskState.DONE, 1, said)
    assert campaign.excuses(Event(1.0, uid, TaskState.DONE, 1, done))


def test_the_program_may_stop_the_campaign() -> None:
    said = {"kind": "licence", "then": "stop", "message": "none left", "attempts": 1}
    found = steered(segments(), lambda q, asked: Simulated(1.0, said))
    assert found.outcome().reason == "stopped by evaluation 0 (licence): none left"


# Choices.


def test_giving_up_costs_nothing_and_the_next_simulation_is_asked_about_at_once() -> None:
    asked: list[tuple[int, bool]] = []

    def answer(state: Any) -> Mapping[str, Any]:
        asked.append((state.subject.number, state.subject.fresh))
        return {"next": "start_anew"} if len(asked) == 2 else {"T": 0.5, "steps": 200}

    found = steered(segments(), rise, Answers(answer))
    assert asked[:3] == [(0, True), (0, False), (1, True)]
    assert found.state.memory.ended[SimulationEnd.GIVEN_UP] == 1


def test_a_fresh_simulation_cannot_be_given_up() -> None:
    campaign = segments().campaign(0)
    campaign.begin(Capacity(1, 1))
    decision = campaign.decision()
    assert decision is not None
    assert decision.mask[-2:].tolist() == [True, False]
    assert campaign.refuses({"next": "start_anew"}) == "start_anew is not possible here"
    campaign.apply(np.array([5, 1, 0, 1]))
    assert campaign.masked == 1
    assert campaign.state.begun == 1


def test_the_best_one_is_copied_where_that_is_allowed() -> None:
    def answer(state: Any) -> Mapping[str, Any]:
        worse = state.subject.own and state.best and state.best[-1].simulation != state.subject.number
        return {"next": "restart_best"} if worse else {"T": 0.5, "steps": 200}

    def step(q: float, asked: Mapping[str, Any]) -> float:
        return q + (0.2 if asked["simulation"] == 0 else 0.01)

    def play(allowed: bool) -> Any:
        changes: dict[str, Any] = {"simulations": 2, "restart_best": allowed}
        return steered(segments(**changes), step, Answers(answer), cores=2).state

    copied = [s for s in play(True).segments if s.parent is not None and s.index > 0]
    assert any(play(True).segments[s.parent].simulation != s.simulation for s in copied)
    alone = play(False).segments
    assert all(alone[s.parent].simulation == s.simulation for s in alone if s.parent is not None)


def test_changes_are_relative_and_limited() -> None:
    controls = {"T": {"low": 10.0, "high": 20.0, "change": 1.0, "bins": 5}}
    campaign = segments(controls=controls).campaign(0)
    driver = Driver(campaign, twin(segments(controls=controls), Capacity(1, 1), 0, None, SteppedModel(rise)))
    driver.begin()
    seen = []
    for action in ([4, 0, 0, 0], [0, 0, 0, 0], [3, 0, 0, 0], {"T": 12.0, "steps": 100}):
        seen.append(campaign.named(action if isinstance(action, dict) else np.array(action))["T"])
        driver.step(action if isinstance(action, dict) else np.array(action))
    # Any value at first, then 1 less, 0.5 more, and no nearer to 12 than 1.
    assert seen == pytest.approx([20.0, 19.0, 19.5, 18.5])


def test_a_box_means_what_indices_mean() -> None:
    box, bins = segments(actions="box").campaign(0), segments().campaign(0)
    for campaign in (box, bins):
        campaign.begin(Capacity(1, 1))
        campaign.decision()
    assert box.action_space.shape == (4,)
    assert box.named(np.array([0.0, 1.0, 0.0, 0.0])) == bins.named(np.array([5, 2, 0, 0])) == {"T": 0.5, "steps": 400}
    assert box.named(np.array([5.0, np.nan, -9.0, 0.9]))["T"] == 1.0  # and not given up, as it is fresh


def test_resources_that_do_not_fit_are_masked() -> None:
    program = {"resources": {"ranks": [1, 2, 64]}}
    campaign = segments(program=program).campaign(0)
    campaign.begin(Capacity(1, 2))
    decision = campaign.decision()
    assert decision is not None
    assert decision.mask[11 + 3 : 11 + 6].tolist() == [True, True, False]
    refused = campaign.refuses({"T": 0.5, "steps": 200, "ranks": 64})
    assert refused == "there are no such resources on this machine"
    assert campaign.refuses({"T": "hot", "steps": 200}) == "T is 'hot', it should be a number"
    assert campaign.refuses({"T": 0.5, "steps": 150}) == "steps is 150, it should be one of [100, 200, 400]"


def test_choices_around_a_rule_begin_with_what_it_says() -> None:
    campaign = segments(program={"resources": {"ranks": [1, 2]}}).campaign(0)
    driver = Driver(campaign, twin(segments(), Capacity(1, 2), 0, None, SteppedModel(rise)))
    decision = driver.begin()
    for said in ({"T": 0.31, "steps": 400, "ranks": 2}, {"next": "start_anew"}):
        assert decision is not None
        assert decision.residual is not None
        around = decision.residual(said)
        assert around.named(np.array(around.centre)) == said
        sizes = np.cumsum(campaign.choices.heads)[:-1]
        assert all(head[c] for head, c in zip(np.split(around.mask, sizes), around.centre, strict=True))
        decision = driver.step(said)


# Goals.


def test_it_reaches_a_value_or_ends_with_the_best() -> None:
    aim = {"objective": {"minimize": "-q"}, "until": {"value": -0.8}}
    found = steered(segments(**aim), rise)
    assert (found.outcome().reached, found.outcome().successes) == (True, 1)
    assert found.outcome().extra["best"] == pytest.approx(-0.8)
    free = {"objective": {"maximize": "q"}, "until": {"evaluations": 7}}
    found = steered(segments(**free), rise)
    assert (found.outcome().reached, found.outcome().reason) == (False, "7 segments")
    assert found.outcome().extra["best"] == pytest.approx(1.4)
    assert found.findings().best == (6,)


def test_it_ends_without_improvement() -> None:
    free = {"objective": {"maximize": "q"}, "until": {"no_improvement": 3}}
    found = steered(segments(**free), lambda q, asked: min(q + 0.2, 0.4))
    assert found.outcome().reason == "no improvement in 3 segments"
    assert len(found.state.segments) == 5


def test_progress_is_the_share_of_the_way_to_the_goal() -> None:
    seen: list[float] = []

    def answer(state: Any) -> Mapping[str, Any]:
        seen.append(state.progress(state.subject))
        return {"T": 0.5, "steps": 200}

    steered(segments(), rise, Answers(answer))
    assert seen == pytest.approx([0.0, 0.0, 0.25, 0.5, 0.75])


def test_the_potential_rises_with_progress_and_is_none_at_the_goal() -> None:
    potentials: list[float] = []
    campaign = segments().campaign(0)
    driver = Driver(campaign, twin(segments(), Capacity(1, 1), 0, None, SteppedModel(rise)))
    decision = driver.begin()
    while decision is not None:
        potentials.append(campaign.outcome().potential)
        decision = driver.step(HOLD.act(decision))
    assert potentials == sorted(potentials)
    assert len(set(potentials)) == len(potentials) - 1  # the first segment only says where the way begins
    assert campaign.outcome().potential == 0.0


# The table.


def test_rows_tell_where_each_segment_began_and_what_came_out() -> None:
    rows = steered(segments(), rise).evaluations()
    assert rows[3] == {
        "evaluation": 3, "simulation": 0, "segment": 3, "from": 2, "T": 0.5, "steps": 200,
        "ranks": 1, "cores": 1, "gpus": 0.0, "status": "done", "q": pytest.approx(0.8), "feasible": False,
        "queued_s": 6.0, "started_s": 6.0, "ended_s": 8.0, "node_seconds": 2.0, "kind": "", "message": "",
    }  # fmt: skip
    json.dumps(rows)


# Contracts.


def test_a_replay_gives_the_same() -> None:
    journal = RecordList()
    first = steered(segments(simulations=2), rise, policy_factory("renewal_give_up")(), 2, journal)
    again = segments(simulations=2).campaign(0)
    driver = Driver(again, twin(segments(), Capacity(1, 2), 0, None, SteppedModel(rise)))
    driver.replay(list(journal), {})
    assert again.evaluations() == first.evaluations()


@pytest.mark.parametrize("actions", ["discrete", "box"])
def test_it_keeps_what_campaigns_promise(actions: str) -> None:
    factory = segments(
        program={"results": {"q": {"regex": "(.*)"}, "energy": {"regex": "(.*)"}}, "resources": {"ranks": [1, 2]}},
        controls={"T": [0.0, 1.0], "p": {"low": 1.0, "high": 2.0, "change": 0.2}},
        actions=actions,
        restart_best=True,
        simulations=2,
        until={"found": 1, "node_seconds": 200, "evaluations": 120},
    )
    check_campaign(factory, Capacity(1, 2), [policy_factory("renewal_give_up")()], instances=3)


@pytest.mark.parametrize("rule", RULES)
def test_rules_keep_what_policies_promise(rule: str) -> None:
    factory = segments(restart_best=True, simulations=2, until={"found": 1, "node_seconds": 200})
    check_policy(factory, policy_factory(rule)(), Capacity(1, 2))


def test_the_twin_is_of_its_seed_and_reaches_the_goal_sooner_by_rule_than_by_chance() -> None:
    from rlctl.environments.twin_rollouts import rollout_on_twin

    factory = segments(until={"found": 1, "node_seconds": 100})

    def cost(make: Any) -> tuple[float, float]:
        figures = rollout_on_twin(factory, Capacity(1, 1), [(seed, make()) for seed in range(16)])
        return sum(f["cost"] for f in figures), sum(f["successes"] for f in figures)

    rule = cost(policy_factory("renewal_give_up"))
    assert rule == cost(policy_factory("renewal_give_up"))
    chance = cost(lambda: Chance(factory.campaign(0).action_space))
    assert rule[0] / rule[1] < 0.5 * chance[0] / (chance[1] + 0.5)


# Wrong options.


@pytest.mark.parametrize(
    ("changes", "key", "problem"),
    [
        ({"controls": {"T": [1.0, 0.0]}}, "controls.T", "low is 1, high 0: low should be less"),
        ({"controls": {"ranks": [0.0, 1.0]}}, None, "'ranks' cannot name a control: rlctl uses it"),
        ({"controls": {"T": {"low": 0, "high": 1, "bins": 4, "change": 0.1}}}, "controls.T", "bins is 4: with change"),
        ({"controls": {}}, "controls", "at least 1 item"),
        ({"lengths": {"steps": [5, 5]}}, None, "give different numbers"),
        ({"lengths": {"T": [5]}}, None, "'T' names a control and a length"),
        ({"lengths": {"steps": [0]}}, "lengths.steps.0", "greater than or equal to 1"),
        ({"objective": {"find": "energy > 1"}}, "objective", "unknown name energy"),
        ({"objective": {"minimize": ["q", "T"]}}, None, "give one to minimize or maximize"),
        ({"until": {"evaluations": 5}}, "until.found", "say how many simulations"),
        ({"objective": {"minimize": "q"}}, "until.found", "counts simulations that fulfil objective.find"),
        ({"until": {"value": 1.0, "found": 1}}, "until.value", "is of an objective, and there is none"),
        ({"control": {}}, "control", "unknown key"),
    ],
)
def test_wrong_options_are_refused_with_their_key(changes: dict[str, Any], key: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem.replace("(", r"\(")) as error:
        segments(**changes)
    if key is not None:
        assert error.value.key == ("campaign", "options", *key.split("."))


def test_a_result_may_not_have_the_name_of_a_control() -> None:
    with pytest.raises(ConfigError, match="a control or length has this name") as error:
        segments(program={"results": {"T": {"regex": "(.*)"}}})
    assert error.value.key == ("program", "results", "T")
    assert OPTIONS["controls"]
    assert PROGRAM["results"]
