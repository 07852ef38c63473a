"""Results that the twin Implausible results are named in the report, and nothing else is."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_folders import queue_config, simulated_run
from test_report import page

from rlctl.config.load import load_config
from rlctl.config.schema import Config
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.records import Record
from rlctl.core.simulation import Launch
from rlctl.core.task import TaskId, TaskSpec
from rlctl.executors.event_log import Journal
from rlctl.monitoring.progress import Silent
from rlctl.monitoring.timeline import TaskAttempt
from rlctl.plugins.registry import campaign_factory
from rlctl.steering.plausibility import ImplausibleValue, Plausibility, implausible_values, plausibility
from rlctl.steering.run_folder import JOURNAL, read_run
from rlctl_envs.block_copolymer.factory import BlockCopolymer
from rlctl_envs.block_copolymer.material import Material
from rlctl_envs.block_copolymer.twin import FilmTwin

ANNEALING = """
schema: 1
seed: 3
campaign: {name: block_copolymer, options: {films: 2, allocation_s: 8.0, steps: [160], ranks: [1]}}
machine: {nodes: 1, cores: 2}
policies: {feedback: {rule: feedback}}
"""

Change = Callable[[str, dict[str, Any]], None]


def annealing(folder: Path) -> Config:
    (folder / "experiment.yaml").write_text(ANNEALING)
    return load_config(folder / "experiment.yaml")


def edited(run: Path, change: Change) -> Path:
    """The same run with other results; ``change`` is given the task and its values."""
    with Journal.open(run / JOURNAL, read_only=True) as journal:
        header, records = journal.header, journal.records()
    for path in run.glob(f"{JOURNAL}*"):
        path.unlink()
    with Journal.create(run / JOURNAL, header) as journal:
        for record in records:
            data = json.loads(json.dumps(record.data))
            if record.kind == "event" and data["state"] == "done":
                change(data["uid"], data["result"]["values"])
            journal.append(record.kind, record.time_s, data)
    return run


def asked(run: Path) -> Plausibility:
    return plausibility(read_run(run), Silent())


def false_film(uid: str, values: dict[str, Any]) -> None:
    """What a solver once measured that had let rounding errors grow."""
    if uid == "film000-001":
        values |= {"q": 1.0, "amplitude": 5e5, "good": True}


def test_the_twin_finds_nothing_impossible_in_what_it_has_computed_itself(tmp_path: Path) -> None:
    """Nor was there any among 12,656 numbers of 16 campaigns of 100 s."""
    run = simulated_run(tmp_path / "run", annealing(tmp_path), "feedback")
    found = asked(run)
    assert (len(found.implausible), found.problem, found.repeated) == (0, "", True)
    assert found.checked == found.results > 10
    shown = page(run, instances=0)
    assert shown.says(f"For all {found.results} results the twin repeated")
    assert shown.says("with new random numbers")
    assert not shown.says("contain implausible values")


def test_a_false_film_is_named_with_what_the_twin_gives_instead(tmp_path: Path) -> None:
    run = edited(simulated_run(tmp_path / "run", annealing(tmp_path), "feedback"), false_film)
    found = asked(run)
    assert {(row.uid, row.quantity) for row in found.implausible} >= {("film000-001", "amplitude")}
    assert found.tasks == 1
    amplitude = next(row for row in found.implausible if row.quantity == "amplitude")
    assert amplitude.value == 5e5
    assert 0.0 < amplitude.low < amplitude.high < 3.0
    shown = page(run, instances=0)
    assert shown.says(f"1 of {found.results} results contain implausible values.")
    assert shown.says("film000-001")
    assert shown.says("5e+05")
    assert not page(run, rules=False).says("Implausible results")


def test_order_that_a_frozen_film_cannot_have_is_impossible_by_itself() -> None:
    """The film of the audit: T_odt 1.8, steepness 2.4, held at T = 1 for 160 steps: the program said Q 1.0."""
    factory = BlockCopolymer({})
    twins = factory.repetitions(0, 32)
    for twin in twins:
        twin.material = Material(1.8, 1.5, 0.25, 2.4, 0.03, 0.05, 1.0)
    parameters = {"temperature": 1.0, "steps": 160, "seed": 7, "restart_in": None, "restart_out": "film000.1.npz"}
    launch = Launch(TaskSpec(TaskId("film000-000"), executable="-", parameters=parameters), 1)
    answers = [told.values for told in factory.outcomes([(twin, launch) for twin in twins])]
    assert len({answer["q"] for answer in answers}) == 32
    right = attempt(answers[0])
    assert implausible_values(right, answers[1:]) == []
    (order,) = implausible_values(attempt({**answers[0], "q": 1.0}), answers[1:])
    assert (order.quantity, order.value) == ("q", 1.0)
    assert order.high < 0.5


def attempt(values: dict[str, Any]) -> TaskAttempt:
    return TaskAttempt(TaskId("a"), 1, 0.0, values=values)


def test_numbers_far_beyond_all_answers_are_impossible_whatever_holds_them() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(1.0, 2.0, 32)
    answers = [{"x": x, "many": [x, 0.0], "flat": 3, "yes": x > 1.5, "name": "a", "deep": {"x": x}} for x in drawn]
    low, high = drawn.min(), drawn.max()

    def names(**values: Any) -> list[str]:
        return [row.quantity for row in implausible_values(attempt(values), answers)]

    assert implausible_values(attempt({"x": 9}), answers) == [ImplausibleValue("a", "x", 9.0, low, high)]
    assert names(x=high + 1.4 * (high - low), many=[low - 1.4 * (high - low)]) == []
    assert names(x=high + 1.6 * (high - low)) == ["x"]
    assert names(many=[low - 1.6 * (high - low), 7.0]) == ["many[0]"]
    assert names(x=math.nan) == names(x=-math.inf) == ["x"]
    assert names(deep={"x": 10**400}) == ["deep.x"]
    assert names(flat=4, yes=True, name="b", deep=99.0, unknown=5.0, x="9", many=None) == []
    assert implausible_values(attempt({"x": 9.0}), answers[:7]) == []


def test_a_campaign_without_repetitions_is_compared_with_other_instances(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Plain(BlockCopolymer):
        repetitions = CampaignFactory.repetitions

    monkeypatch.setattr(
        "rlctl.steering.plausibility.configured_campaign", lambda config: Plain(config.campaign.options)
    )
    run = simulated_run(tmp_path / "run", annealing(tmp_path), "feedback")
    assert (asked(run).tasks, asked(run).repeated) == (0, False)
    assert asked(edited(run, false_film)).tasks == 1
    assert page(run, instances=0).says("as other instances")


def test_a_twin_that_cannot_follow_leaves_the_answer_to_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = edited(simulated_run(tmp_path / "run", annealing(tmp_path), "feedback"), false_film)
    made = BlockCopolymer.repetitions

    def forgetful(self: BlockCopolymer, seed: int, count: int) -> list[FilmTwin]:
        twins = made(self, seed, count)
        for twin in twins[::3]:  # their films fail at once, so that no restart file is there for the second segment
            twin.material = dataclasses.replace(twin.material, steepness=40.0)
        return twins

    monkeypatch.setattr(BlockCopolymer, "repetitions", forgetful)
    found = asked(run)
    assert found.tasks == 1
    assert found.checked == found.results


def test_a_result_of_a_repeated_attempt_is_looked_at_with_the_parameters_of_the_first(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", annealing(tmp_path), "feedback", decisions=12)
    with Journal.open(run / JOURNAL, read_only=True) as journal:
        header, records = journal.header, journal.records()
    for path in run.glob(f"{JOURNAL}*"):
        path.unlink()
    with Journal.create(run / JOURNAL, header) as journal:
        for record in records:
            data = dict(record.data)
            if record.kind == "event" and data["state"] == "done" and data["uid"] == "film000-000":
                again = {"uid": data["uid"], "attempt": 2}
                journal.append("event", record.time_s, again | {"time_s": record.time_s, "state": "queued"})
                journal.append("launching", record.time_s, again | {"cores": [0]})
                data |= again
            journal.append(record.kind, record.time_s, data)
    found = asked(edited(run, false_film))
    assert found.checked == found.results > 8
    assert found.tasks == 1


def test_a_campaign_that_is_gone_is_complained_about(tmp_path: Path) -> None:
    run = simulated_run(tmp_path / "run", queue_config(tmp_path), "equal")
    config = run / "config.yaml"
    config.write_text(config.read_text().replace("name: ensemble", "name: gone_queue"))
    assert "unknown campaign 'gone_queue'" in asked(run).problem
    assert page(run).says("The twin could not run: ")


def test_results_of_unknown_tasks_are_passed_over(tmp_path: Path) -> None:
    """A journal may hold what no twin can be asked: here a task without parameters, before all others."""
    result = {"values": {"q": 7.0}, "failure": None, "message": "", "started_s": 1.0, "ended_s": 2.0, "cores": 1}
    data = {"time_s": 0.0, "uid": "odd", "state": "done", "attempt": 1, "result": result}
    plus = [Record(0, 0.0, "submitted", {"uid": "odd", "attempt": 1}), Record(0, 0.0, "event", data)]
    run = simulated_run(tmp_path / "run", annealing(tmp_path), "feedback", decisions=12, plus=plus)
    found = asked(edited(run, false_film))
    assert {row.uid for row in found.implausible} == {"film000-001"}
    assert found.checked == found.results - 1
    assert page(run, instances=0).says(f"For {found.checked} of {found.results} results")


def test_chance_drawn_anew_leaves_the_hidden_quantities_as_they_are() -> None:
    factory = campaign_factory("block_copolymer", {"program": {"failure_probability": 0.5}})
    assert isinstance(factory, BlockCopolymer)
    twins = [factory.task_model(4), *factory.repetitions(4, 2)]
    assert len({twin.material for twin in twins}) == 1
    assert [twin.durations.failure_probability for twin in twins] == [0.5, 0.0, 0.0]
    assert len({twin.rng.random() for twin in twins}) == 3
