"""What may change while a run goes on, how its journal is read then, and results from elsewhere."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rlctl.config.load import config_data, load_config
from rlctl.config.schema import Config
from rlctl.core.campaign import Decision
from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.records import Record, RecordList
from rlctl.core.runner import NoRunner
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.ledger import allocation_ledger
from rlctl.monitoring.timeline import Timeline
from rlctl.plugins.registry import configured_campaign, load_policy
from rlctl.steering.config_changes import config_changes, require_changeable
from rlctl.steering.config_history import begun_with, last_state, newest_config, newest_start
from rlctl.steering.hand_results import parse_results, read_told
from rlctl.steering.run_folder import has_ended, portable
from rlctl_envs.segments.factory import Segments

pytestmark = pytest.mark.quick

SEARCH = """
program:
  command: echo {x} {y}
  results: {loss: {regex: 'loss = (\\S+)'}}
  walltime_s: 60
campaign:
  options:
    parameters: {x: {low: 0, high: 1}, y: {choices: ["1", b]}}
    objective: {minimize: loss}
    until: {evaluations: 5}
"""


def written(folder: Path, text: str = SEARCH, *overrides: str) -> Config:
    (folder / "scan.yaml").write_text(text)
    return load_config(folder / "scan.yaml", overrides)


def record(kind: str, time_s: float = 0.0, **data: Any) -> Record:
    return Record(1, time_s, kind, data)


def extension(before: Config, after: Config, time_s: float = 0.0, **more: Any) -> Record:
    both = {"before": config_data(portable(before)), "after": config_data(portable(after))}
    return record("config", time_s, **both, extends=True, config_hash="new", **{"policy": {}, **more})


def test_changes_are_named_by_key_and_those_of_null_are_none(tmp_path: Path) -> None:
    one = written(tmp_path)
    other = written(tmp_path, SEARCH, "campaign.options.until.evaluations=9", "steer.fallback=null", "seed=4")
    assert [str(change) for change in config_changes(one, other)] == [
        "seed 4 instead of 0",
        "campaign.options.until.evaluations 9 instead of 5",
    ]


@pytest.mark.parametrize(
    ("override", "extends"),
    [
        ("steer.stop_after_failures=3", False),
        ("executor.options.lease_s=5", False),
        ("policies.mine={rule: sobol}", False),
        ("campaign.options.until.value=0.1", True),
        ("program.walltime_s=90", True),
        ("program.resources.ranks=[1, 2]", True),
        ("machine.nodes=4", True),
    ],
)
def test_what_ties_no_evaluations_together_may_change(tmp_path: Path, override: str, extends: bool) -> None:
    one, other = written(tmp_path), written(tmp_path, SEARCH, override)
    changes = config_changes(one, other)
    assert changes
    assert require_changeable(Path("run"), changes, configured_campaign(other).changeable) is extends


def test_what_levels_of_segments_depend_on_may_not_change(tmp_path: Path) -> None:
    one = written(tmp_path, SEGMENTS)
    for override in ("campaign.options.until.value=3", "campaign.options.controls.T=[0, 2]", "program.command=other"):
        changed = written(tmp_path, SEGMENTS.replace("find: q > 1", "minimize: q"), override)
        with pytest.raises(ConfigError, match="would not belong together"):
            require_changeable(Path("run"), config_changes(one, changed), Segments.changeable)


def test_the_executor_may_change_once_no_task_is_left_there(tmp_path: Path) -> None:
    changes = config_changes(written(tmp_path), written(tmp_path, SEARCH, "executor.name=slurm"))
    assert not require_changeable(Path("run"), changes, ())
    with pytest.raises(ConfigError, match="2 of its tasks may still run there") as raised:
        require_changeable(Path("run"), changes, (), unfinished=2)
    assert raised.value.key == ("executor", "name")


def test_the_journal_says_which_configuration_was_first_and_which_is_last(tmp_path: Path) -> None:
    first, second = written(tmp_path), written(tmp_path, SEARCH, "campaign.options.until.evaluations=9")
    third = written(tmp_path, SEARCH, "campaign.options.until.evaluations=12")
    records = [extension(first, second), extension(second, third)]
    assert begun_with(third, records).campaign.options["until"] == {"evaluations": 5}
    assert newest_config(second, records).campaign.options["until"] == {
        "evaluations": 12
    }  # killed before it was written
    assert newest_config(first, []) is first


def test_another_policy_counts_from_its_record_on(tmp_path: Path) -> None:
    config = written(tmp_path)
    header = {"policy": "old", "policy_digest": "1", "policy_reason": "judged", "instance": 3}
    records = [
        record("policy", number=0, state={"policy": {"n": 1}}),
        record("decision", number=0),
        record("policy", number=1, state={"policy": {"n": 2}}),  # its decision was not recorded
    ]
    assert last_state(records) == {"policy": {"n": 1}}
    records.append(extension(config, config, policy={"policy": "new", "policy_source": "new"}))
    assert last_state(records) is None
    started = {"policy": "new", "policy_source": "new", "instance": 3, "config_hash": "new"}
    assert newest_start(header, records) == started


def test_a_run_that_is_asked_for_more_has_not_ended() -> None:
    ended, epoch, again = record("ended"), record("epoch"), record("rerun")
    assert has_ended([epoch, ended])
    assert has_ended([epoch, ended, record("event")])
    assert not has_ended([epoch, ended, again])
    assert not has_ended([epoch, ended, epoch])
    assert has_ended([epoch, ended, epoch, ended])


def test_the_timeline_knows_how_many_nodes_there_were(tmp_path: Path) -> None:
    one = written(tmp_path, SEARCH, "machine.nodes=2", "machine.cores=4")
    four = written(tmp_path, SEARCH, "machine.nodes=4", "machine.cores=4")
    records = RecordList()
    records.append("epoch", 0.0, {})
    records.append("time", 10.0, {})
    changed = extension(one, four, 10.0)
    records.append("config", 10.0, changed.data)
    records.append("time", 15.0, {})
    timeline = Timeline.read(records, Capacity(nodes=4, cores=4))
    assert timeline.node_seconds(15.0) == 2 * 10.0 + 4 * 5.0
    assert timeline.elapsed_s(40.0) == 15.0
    assert timeline.elapsed_s(10.0) == 5.0
    assert math.isinf(timeline.elapsed_s(math.inf))
    ledger = allocation_ledger(timeline)
    assert ledger.allocated_cores == 4 * 40.0
    assert math.isclose(sum(ledger.cores.values()), 4 * 40.0)


SEGMENTS = """
program:
  command: echo {T} {restart_in}
  results: {q: {regex: 'q = (\\S+)'}}
  walltime_s: 60
  resources: {ranks: [1, 2]}
campaign:
  name: segments
  options: {controls: {T: [0, 1]}, objective: {find: q > 1}, until: {found: 1}}
machine: {cores: 4}
"""
ANNEALING = "campaign: {name: block_copolymer, options: {films: 1, allocation_s: 900}}\nmachine: {cores: 2}\n"


def played(before: Config, after: Config, policy: str, seed: int) -> tuple[RecordList, Driver]:
    """A campaign on the twin that has ended, was extended, and has ended again."""
    factory, other, capacity = configured_campaign(before), configured_campaign(after), before.machine.capacity()
    records = RecordList()
    executor = SimulatedExecutor(capacity, factory.task_model(seed), records)
    driver = Driver(
        factory.campaign(seed),
        executor,
        records,
        changed=lambda data: (other.campaign(seed), after.machine.capacity()),
    )
    decider = load_policy(after, policy)
    decider.reset(seed)

    def finish(decision: Decision | None) -> None:
        while decision is not None:
            decision = driver.step(decider.act(decision))

    finish(driver.begin())
    assert driver.outcome().ended
    driver.amend("config", {"extends": True})
    assert not driver.outcome().ended
    finish(driver.go_on({}))
    return records, driver


@pytest.mark.parametrize(
    ("text", "key", "policy"),
    [
        (SEARCH, "campaign.options.until.evaluations=12", "sobol"),
        (SEARCH, "campaign.options.until={evaluations: 9, value: -1e9}", "random_search"),
        (ANNEALING, "campaign.options.films=2", "feedback"),
        (SEGMENTS, "campaign.options.until.found=3", "renewal_give_up"),
        (
            SEGMENTS,
            "campaign.options.until.found=3; campaign.options.simulations=2; program.resources.ranks=3",
            "renewal_give_up",
        ),
        (
            SEGMENTS.replace("found: 1", "found: 3, node_seconds: 100"),
            "campaign.options.until.node_seconds=130",
            "schedule_ramp",
        ),
        (SEGMENTS, "campaign.options.until.found=3; machine.nodes=2; machine.cores=6", "renewal_give_up"),
        (
            ANNEALING.replace("1, allocation_s: 900", "20, allocation_s: 60"),
            "campaign.options.allocation_s=120",
            "feedback",
        ),
    ],
)
@pytest.mark.parametrize("seed", [1])
def test_an_extended_campaign_is_folded_as_it_was_played(
    tmp_path: Path, text: str, key: str, policy: str, seed: int
) -> None:
    keys = key.split("; ")
    before, after = written(tmp_path, text), written(tmp_path, text, *keys)
    records, live = played(before, after, policy, seed)
    factory, other = configured_campaign(before), configured_campaign(after)
    again = Driver(
        factory.campaign(seed),
        NoRunner(before.machine.capacity()),
        changed=lambda data: (other.campaign(seed), after.machine.capacity()),
    )
    again.fold(records)
    assert again.outcome() == live.outcome()
    assert again.outcome().ended
    assert list(again.campaign.evaluations()) == list(live.campaign.evaluations())
    assert again.decisions == live.decisions
    assert math.isclose(again.ledger.node_seconds, live.ledger.node_seconds)
    assert not again.open


def test_nodes_that_were_down_are_there_when_a_search_is_extended(tmp_path: Path) -> None:
    before = written(tmp_path, SEARCH, "machine.nodes=2")
    after = written(tmp_path, SEARCH, "machine.nodes=2", "campaign.options.until.evaluations=9")
    factory, other, capacity = configured_campaign(before), configured_campaign(after), before.machine.capacity()
    driver = Driver(
        factory.campaign(1), NoRunner(capacity), changed=lambda data: (other.campaign(1), after.machine.capacity())
    )
    records = RecordList()
    records.append("epoch", 0.0, {})
    records.append("machine", 1.0, {"nodes": 2, "down": [0, 1], "paid": 2})
    driver.fold(records)
    assert driver.campaign.state.pool.absent == {0, 1}
    driver.amend("config", {"extends": True})
    assert not driver.campaign.state.pool.absent


# Results from elsewhere


def known(folder: Path, text: str) -> list[Mapping[str, Any]]:
    (folder / "earlier.csv").write_text(text)
    config = written(folder, SEARCH.replace("until:", "known: earlier.csv\n    until:"))
    with config.source.located():
        return list(configured_campaign(config).known())


def test_known_rows_are_read_with_what_belongs_to_the_search(tmp_path: Path) -> None:
    text = "x,y,loss,remark,status\n0.5,1,2.5,good,\n0.25,b,,,infeasible\n0.1,b,,,failed\n0.125,b,-1,,done\n"
    assert known(tmp_path, text) == [
        {"parameters": {"x": 0.5, "y": "1"}, "results": {"loss": 2.5}, "stage": 0, "infeasible": False},
        {"parameters": {"x": 0.25, "y": "b"}, "results": {}, "stage": 0, "infeasible": True},
        {"parameters": {"x": 0.125, "y": "b"}, "results": {"loss": -1.0}, "stage": 0, "infeasible": False},
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x,y,loss\n0.5,b,1\n7,b,2\n", r"earlier.csv:3: x: 7 is not a number from 0 to 1"),
        ("x,y,loss\n0.5,c,1\n", r"earlier.csv:2: y: 'c' is none of '1', 'b'"),
        ("x,y,loss\n0.5,b,low\n", r"earlier.csv:2: loss: 'low' is not a number"),
        ("x,y,loss\n0.5,b,\n", r"earlier.csv:2: .*loss"),
        ("x,y,loss\n0.5,b\n", r"earlier.csv:2: 2 cells, the first line 3"),
        ("x,loss\n0.5,1\n", r"earlier.csv:2: give a value for each of x, y"),
        ("x,y,loss,status\n0.5,b,1,dne\n", r"earlier.csv:2: status 'dne' is not known; .*did you mean 'done'"),
        ("a,b\n1,2\n", r"earlier.csv:1: no column is named after a parameter"),
        ("x,y\n0.5,b\n", r"earlier.csv:1: no column is named after a result; known: loss"),
        ("x,x,y,loss\n0.5,1,b,1\n", r"earlier.csv:1: two columns are named 'x'"),
        ("", r"earlier.csv:1: no column"),
    ],
)
def test_a_wrong_row_is_named_by_file_and_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=r"scan.yaml:\d+: campaign.options.known: .*" + said) as raised:
        known(tmp_path, text)
    assert "\n" not in str(raised.value)


def test_results_that_are_told_are_checked(tmp_path: Path) -> None:
    assert parse_results(["a=1", "b=-2e3"]) == {"a": 1.0, "b": -2000.0}
    for wrong in (["a"], ["=1"], ["a=nan"], ["a=1", "a=2"]):
        with pytest.raises(ConfigError):
            parse_results(wrong)
    file = tmp_path / "told.csv"
    file.write_text("evaluation,loss,status\n1,0.5,\n2,,failed\n3,1.5,done\n")
    assert [(told.number, dict(told.results), told.status) for told in read_told(file, ["loss"])] == [
        (1, {"loss": 0.5}, ""),
        (2, {}, "failed"),
        (3, {"loss": 1.5}, ""),
    ]
    for text, said in [
        ("number,loss\n1,2\n", r"told.csv:1: there is no column evaluation"),
        ("evaluation,loss\n1,2\nx,2\n", r"told.csv:3: evaluation 'x' is not a number"),
        ("evaluation,loss\n1,2\n2\n", r"told.csv:3: not as many cells"),
        ("evaluation,loss\n1,two\n", r"told.csv:2: loss: 'two' is not a finite number"),
        ("evaluation,loss,status\n1,2,odd\n", r"told.csv:2: status 'odd' is not known"),
        ("evaluation,loss\n1,2\n1,3\n", r"told.csv:3: evaluation 1 is there twice"),
    ]:
        file.write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_told(file, ["loss"])
