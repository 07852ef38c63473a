"""Jobs of fixed ranks: the modes of RLScheduler against a simulator that shares nothing with rlctl, to the digit."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlctl.core.driver import Driver
from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.core.records import RecordList
from rlctl.environments.campaign_env import Episode, twin
from rlctl.plugins.registry import policy_factory
from rlctl.testing import check_campaign
from rlctl_envs.ensemble.campaign import EnsembleCampaign
from rlctl_envs.ensemble.factory import Ensemble
from rlctl_envs.ensemble.schedule import bounded_slowdown, read_schedule
from rlctl_envs.ensemble.workloads.logged import LoggedJob
from rlctl_envs.ensemble.workloads.swf import read_swf

PROCESSORS = 8
MODES = ("next", "next_backfilled")
Row = tuple[int, int, int, int, int]
"""Submission after the job before, run time, processors had and requested, requested time."""


class Job(NamedTuple):
    number: int
    submit: int
    run: int
    procs: int
    request: int


def log10(x: float) -> float:
    return math.log10(max(x, 1.0))


KEYS: dict[str, Callable[[Job, int], float]] = {
    "fifo": lambda j, now: j.submit,
    "sjf": lambda j, now: j.request,
    "saf": lambda j, now: j.request * j.procs,
    "lxf": lambda j, now: -(now - j.submit + j.request) / j.request,
    "wfp3": lambda j, now: -(((now - j.submit) / j.request) ** 3) * j.procs,
    "f1": lambda j, now: log10(j.request) * j.procs + 870 * log10(j.submit),
    "f2": lambda j, now: math.sqrt(j.request) * j.procs + 25600 * log10(j.submit),
    "f3": lambda j, now: j.request * j.procs + 6860000 * log10(j.submit),
    "f4": lambda j, now: j.request * math.sqrt(j.procs) + 530000 * log10(j.submit),
}


def reference(jobs: Sequence[Job], key: Callable[[Job, int], float], backfill: bool) -> dict[int, int]:
    """Start of each job, as RLScheduler's HPCSimPickJobs moves time: one arrival or one end after the other."""
    coming, queue, running = list(jobs), list[Job](), list[tuple[int, int, Job]]()  # real and expected end
    now, free, starts = jobs[0].submit, PROCESSORS, dict[int, int]()

    def start(job: Job) -> None:
        nonlocal free
        queue.remove(job)
        starts[job.number] = now
        running.append((now + job.run, now + job.request, job))
        free -= job.procs

    def happen() -> bool:
        """Whether it was an arrival."""
        nonlocal now, free
        running.sort(key=lambda entry: entry[0])
        if coming and (not running or coming[0].submit <= running[0][0]):
            now = max(now, coming[0].submit)
            queue.append(coming.pop(0))
            return True
        now = max(now, running[0][0])
        free += running.pop(0)[2].procs
        return False

    while coming or queue:
        while not queue:
            happen()
        chosen = min(queue, key=lambda job: key(job, now))
        expected, room = float(now), free
        for _, end, other in sorted(running, key=lambda entry: entry[1]):
            if room >= chosen.procs:
                break
            room, expected = room + other.procs, end
        while chosen.procs > free:
            for job in list(queue) if backfill else ():
                if job.procs <= free and now + job.request < expected:
                    start(job)
            happen()
        start(chosen)
    return starts


def read(rows: Sequence[Row]) -> list[Job]:
    jobs, submit = [], 0
    for number, (gap, run, had, requested, request) in enumerate(rows):
        submit += gap
        took = 10 if run < 0 else run
        if took:
            jobs.append(Job(number, submit, took, max(had, requested), took if request <= 0 else request))
    return jobs


def write(path: Path, rows: Sequence[Row]) -> None:
    lines, submit = [], 0
    for number, (gap, run, had, requested, request) in enumerate(rows):
        submit += gap
        fields = [number + 1, submit, -1, run, had, -1, -1, requested, request, *[-1] * 9]
        lines.append(" ".join(map(str, fields)))
    path.write_text("\n".join(reversed(lines)) + "\n")  # what counts is the order of their numbers


def options(path: Path, count: int, mode: str, **more: Any) -> dict[str, Any]:
    return {
        "workload": {
            "source": "swf",
            "file": str(path),
            "starts": [0],
            "tasks": [count, count],
            "most_tasks": count,
        },
        "objective": {"node_second": 0.0, "slowdown": 1.0, "slowdown_over": "run"},
        "rigid": mode,
        "allocation_s": 1e9,
        **more,
    }


def played(factory: Ensemble, policy: Policy, processors: int = PROCESSORS) -> Episode:
    capacity = Capacity(nodes=1, cores=processors)
    episode = Episode(factory.campaign(0), twin(factory, capacity, 0), 1.0)
    episode.begin()
    while episode.decision is not None:
        episode.driver.answer(policy.act(episode.decision))
        episode.reward()
    return episode


def rule(name: str, **parameters: Any) -> Policy:
    return policy_factory(name)(parameters)


rows = st.lists(
    st.tuples(
        st.integers(0, 6), st.integers(-1, 12), st.sampled_from([-1, 1, 2, 3, 5, 8]), st.integers(1, 8),
        st.sampled_from([-1, 1, 4, 12, 30]),
    ),
    min_size=2,
    max_size=30,
)  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=40, deadline=None)
@given(rows=rows, order=st.sampled_from(sorted(KEYS)))
def test_jobs_start_when_a_simulator_says_that_shares_nothing(
    tmp_path_factory: pytest.TempPathFactory, mode: str, rows: list[Row], order: str
) -> None:
    path = tmp_path_factory.mktemp("log") / "a.swf"
    write(path, rows)
    jobs = read(rows)
    if len(jobs) < 2:
        return
    want = reference(jobs, KEYS[order], mode == "next_backfilled")
    episode = played(Ensemble(options(path, len(jobs), mode)), rule(order))
    first = jobs[0].submit
    ended = {jobs[task.job.number]: task for task in episode.campaign.state.ended}  # type: ignore[attr-defined]
    assert {job.number: task.started_s + first for job, task in ended.items()} == want
    slowdowns = [max(1.0, (want[job.number] - job.submit + job.run) / max(job.run, 10)) for job in jobs]
    outcome = episode.campaign.outcome()
    assert outcome.successes == len(jobs)
    assert outcome.cost == pytest.approx(sum(slowdowns), rel=1e-9)
    assert episode.driver.commands["start"] == len(jobs)


def drawn(mode: str, **workload: Any) -> dict[str, Any]:
    """Twenty jobs of the model of Lublin and Feitelson on 32 processors, which soon fill them."""
    drawn = {"source": "lublin", "processors": 32, "tasks": [20, 20], "error": [0.0, 0.0]}
    jobs = {**drawn, "faster": [20.0, 20.0], "begins_s": [5e4, 5e4], **workload}
    objective = {"node_second": 0.0, "slowdown": 1.0, "slowdown_over": "run"}
    return {"workload": jobs, "objective": objective, "rigid": mode, "allocation_s": 1e7}


CAPACITY = Capacity(nodes=4, cores=8)


@pytest.mark.parametrize("mode", ["any", *MODES])
def test_the_contract_of_campaigns_is_kept_with_failures(mode: str) -> None:
    checked = check_campaign(
        Ensemble(drawn(mode, trouble={"failures_per_rank_s": 1e-5})), CAPACITY, [rule("f1")], seed=1
    )
    assert checked.tasks > 60


@pytest.mark.parametrize("mode", ["any", *MODES])
def test_jobs_that_lose_their_nodes_run_again_before_others(mode: str) -> None:
    losses = {"losses_per_node_s": 2e-5, "repair_s": 20_000.0}
    factory, lost = Ensemble(drawn(mode) | {"nodes": losses}), 0
    for instance in range(4):
        driver = Driver(factory.campaign(instance), twin(factory, CAPACITY, instance))
        policy, decision = rule("saf"), driver.begin()
        while decision is not None:
            decision = driver.step(policy.act(decision))
        state = driver.campaign.state  # type: ignore[attr-defined]
        assert driver.outcome().successes == 20
        assert state.free_cores == state.total_cores
        lost += len(factory.outages(instance, CAPACITY)) > 0
    assert lost == 4


@pytest.mark.parametrize("mode", MODES)
def test_a_journal_rebuilds_the_committed_job_and_what_has_started_before_it(mode: str) -> None:
    factory, whole = Ensemble(drawn(mode)), RecordList()
    first = Driver(factory.campaign(5), twin(factory, CAPACITY, 5, whole), whole)
    policy, decision = rule("sjf"), first.begin()
    committed = 0
    while decision is not None:
        decision = first.step(policy.act(decision))
        committed += not first.started
        again = Driver(factory.campaign(5), twin(factory, CAPACITY, 5))
        again.fold(list(whole))
        assert repr(again.campaign.state) == repr(first.campaign.state)  # type: ignore[attr-defined]
        assert again.outcome() == first.outcome()
    assert committed > 2  # some did not fit when they were chosen


@pytest.mark.parametrize("name", ["lpt", "due", "critical", "tetris", "uni", "malleable"])
def test_rules_for_moldable_tasks_order_rigid_jobs_too(name: str) -> None:
    for mode in ("any", "next_backfilled"):
        assert played(Ensemble(drawn(mode)), rule(name), 32).campaign.outcome().successes == 20


def test_easy_keeps_the_first_jobs_reservation_under_any_order(tmp_path: Path) -> None:
    # Job 0 holds 6 of 8 for 10 s. By area job 1 (4 ranks, 5 s) is the first and waits for it until 10; job 2 (2 ranks,
    # 12 s) would not delay it, for 8 - 4 ranks are left; job 3 (2 ranks, 40 s) then has no place.
    rows = [(0, 10, 6, 6, -1), (1, 5, 4, 4, -1), (0, 12, 2, 2, -1), (0, 40, 2, 2, -1)]
    write(tmp_path / "a.swf", rows)
    factory = Ensemble(options(tmp_path / "a.swf", 4, "any"))

    def starts(policy: Policy) -> list[float]:
        ended = played(factory, policy).campaign.state.ended  # type: ignore[attr-defined]
        return [task.started_s for task in sorted(ended, key=lambda task: task.job.number)]

    assert starts(rule("easy", order="saf")) == [0.0, 10.0, 1.0, 10.0]
    assert starts(rule("lxf")) == [0.0, 10.0, 1.0, 10.0]
    assert starts(rule("saf", backfill=0)) == [0.0, 10.0, 10.0, 10.0]
    with pytest.raises(ConfigError, match="no order 'fiffo': one of fifo, sjf"):
        rule("easy", order="fiffo")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"rigid": "any", "workload": {}}, "rigid: only jobs of lublin, swf or journal have ranks of their own"),
        ({"rigid": "any", "stop": True}, "rigid: leave out stop, resize and gpus"),
        ({"rigid": "some"}, "rigid: should be 'any', 'next' or 'next_backfilled'"),
        ({"workload": {"starts": [0]}}, "workload: source has no file: leave out starts and part"),
        ({"workload": {"starts": [3]}}, "workload.starts: up to job 5 with 2 tasks: there are 4 jobs"),
        ({"workload": {"part": [2, 9]}}, "workload.part: from 2 to 9: there are 4 jobs"),
        ({"workload": {"starts": []}}, "workload.starts: Tuple should have at least 1 item"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    write(tmp_path / "a.swf", [(1, 5, 1, 1, -1)] * 4)
    good = options(tmp_path / "a.swf", 2, "next")
    workload = {**good["workload"], **wrong.get("workload", {})} if wrong.get("workload") else {}
    if "no file" in said:
        workload = wrong["workload"]
    elif "workload" not in wrong:
        workload = good["workload"]
    with pytest.raises(ConfigError) as caught:
        Ensemble({**good, **wrong, "workload": workload})
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_jobs_that_the_machine_has_no_room_for_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.swf", [(1, 5, 1, 1, -1)] * 3 + [(1, 5, 8, 9, -1)])
    with pytest.raises(ConfigError, match=r"workload\.file: jobs of up to 9 processors, and the machine has 8 cores"):
        Ensemble(options(tmp_path / "a.swf", 2, "next")).check(Capacity(nodes=1, cores=8), real=False)
    with pytest.raises(ConfigError, match=r"workload\.processors: jobs of up to 32"):
        Ensemble(drawn("next")).check(Capacity(nodes=1, cores=8), real=False)


def test_a_weighted_order_can_be_any_of_area_length_and_age() -> None:
    factory = Ensemble(drawn("next_backfilled", tasks=[40, 40]))

    def ends(policy: Policy) -> list[float]:
        return [task.ended_s for task in played(factory, policy, 32).campaign.state.ended]  # type: ignore[attr-defined]

    plain = {"harmless": 0.0, "small": 0.0}
    assert ends(rule("weighted", ranks=0.0, **plain)) == ends(rule("sjf"))
    assert ends(rule("weighted", run=0.0, ranks=0.0, wait=-1.0, **plain)) == ends(rule("fifo"))
    assert ends(rule("weighted", run=5.0, ranks=4.0 * math.log(2.0), **plain)) == ends(rule("saf"))
    assert ends(rule("weighted", small=-3.0)) != ends(rule("weighted", **plain))
    with pytest.raises(ConfigError, match="unknown parameter 'weigth'"):
        rule("weighted", weigth=1.0)


def test_observations_hide_run_times_and_tell_what_fits() -> None:
    """Two instances that differ in true run times only look the same until a job has ended."""
    factory = Ensemble(drawn("next_backfilled", error=[0.5, 0.5]))
    campaign = factory.campaign(3)
    other = EnsembleCampaign(factory.options, factory.workload(3).jobs, factory._spec, runs_s=[1.0] * 20)
    for each in (campaign, other):
        each.begin(CAPACITY)
    decisions = [each.decision() for each in (campaign, other)]
    assert decisions[0] is not None
    assert decisions[1] is not None
    assert np.array_equal(decisions[0].observation, decisions[1].observation)
    assert decisions[0].mask.sum() == len(campaign.state.waiting)
    assert not decisions[0].mask[0]  # waiting is no choice there


def jobs_of_three() -> list[LoggedJob]:
    return [LoggedJob(10.0, 20.0, 3, number=4), LoggedJob(15.0, 10.0, 2, number=5), LoggedJob(15.0, 5.0, 1, number=6)]


def test_a_schedule_of_another_scheduler_is_scored(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("window,job,start\n0,4,10\n0,5,30\n0,6,15.0\n1,4,10\n")
    starts = read_schedule(tmp_path / "a.csv")
    assert bounded_slowdown(jobs_of_three(), starts[0], 4) == pytest.approx((1.0 + 2.5 + 1.0) / 3.0)


@pytest.mark.parametrize(
    ("starts", "said"),
    [
        ({4: 10.0, 5: 30.0}, "job 6 has no start"),
        ({4: 10.0, 5: 30.0, 6: 15.0, 7: 1.0}, "job 7 has a start, and is not one of the 3 jobs"),
        ({4: 9.0, 5: 30.0, 6: 15.0}, "job 4 starts at 9 s, and is submitted at 10 s"),
        ({4: math.nan, 5: 30.0, 6: 15.0}, "job 4 starts at nan s"),
        ({4: 10.0, 5: 29.0, 6: 15.0}, "at 29 s, with job 5, 5 processors are in use of 4"),
    ],
)
def test_a_schedule_that_is_not_possible_is_refused(starts: dict[int, float], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        bounded_slowdown(jobs_of_three(), starts, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("window,job\n", "line 1: should be window,job,start, got 'window,job'"),
        ("window,job,start\n0,4\n", "line 2: should be two whole numbers and seconds, got"),
        ("window,job,start\n0,4,1\n0,4,2\n", "line 3: job 4 of window 0 has a start already"),
    ],
)
def test_a_file_that_is_no_schedule_is_refused_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ConfigError, match=said):
        read_schedule(tmp_path / "a.csv")


def test_what_a_campaign_does_is_a_possible_schedule_of_the_same_score(tmp_path: Path) -> None:
    rows = [(1, 10 + 7 * i % 40, 1 + i % 8, 1, -1) for i in range(60)]
    write(tmp_path / "a.swf", rows)
    episode = played(Ensemble(options(tmp_path / "a.swf", 60, "any")), rule("easy", order="f4"))
    jobs = read_swf(tmp_path / "a.swf", as_requested=True)
    ended = episode.campaign.state.ended  # type: ignore[attr-defined]
    starts = {jobs[task.job.number].number: task.started_s + jobs[0].submit_s for task in ended}
    assert bounded_slowdown(jobs, starts, PROCESSORS) == pytest.approx((episode.campaign.outcome().cost or 0.0) / 60)


def test_the_rule_of_the_guide_schedules_in_every_mode() -> None:
    page = (Path(__file__).parents[2] / "docs/guides/scheduling-benchmark.md").read_text()
    names: dict[str, Any] = {}
    exec(page.split("```python")[1].split("```")[0], names)
    for mode in ("any", *MODES):
        episode = played(Ensemble(drawn(mode, tasks=[40, 40])), names["ShortAndOld"](), 32)
        assert episode.campaign.outcome().successes == 40
        assert episode.campaign.masked == 0  # type: ignore[attr-defined]


def test_a_rules_job_is_offered_and_marked_though_no_order_puts_it_first() -> None:
    factory = Ensemble(drawn("next_backfilled", tasks=[60, 60], most_tasks=60, faster=[200.0, 200.0]) | {"slots": 12})
    campaign = factory.campaign(5)
    driver = Driver(campaign, twin(factory, CAPACITY, 5))
    decision, inserted = driver.begin(), 0
    while decision is not None:
        newest = max(campaign.state.waiting)
        choices = decision.residual({"start": newest})  # type: ignore[misc]
        layout = campaign.layout
        assert layout is not None
        assert layout.prior is not None
        assert choices.observation is not None
        rows = choices.observation[layout.once :][: layout.choices * layout.sets[0][1]].reshape(layout.choices, -1)
        (marked,) = np.flatnonzero(rows[:, layout.prior])
        assert choices.mask[marked]
        assert choices.named(np.array([marked]))["start"] == newest
        inserted += not np.array_equal(
            rows[:, :-1], decision.observation[layout.once :][: rows.size].reshape(rows.shape)[:, :-1]
        )
        decision = driver.step(rule("fifo").act(decision))
    assert inserted > 0
