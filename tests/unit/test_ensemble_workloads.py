"""Workloads of ensembles: the generator, the model of Lublin and Feitelson, logs, journals."""

from __future__ import annotations

import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity
from rlctl.executors.event_log import Journal
from rlctl_envs.ensemble.factory import Ensemble
from rlctl_envs.ensemble.program.hidden_parameters import HiddenParameters
from rlctl_envs.ensemble.program.scaling_law import loss
from rlctl_envs.ensemble.workload import bound_s
from rlctl_envs.ensemble.workloads import lublin
from rlctl_envs.ensemble.workloads.history import read_history
from rlctl_envs.ensemble.workloads.swf import read_swf

LINES = """; Version: 2.2
; Computer: a machine
1 0 5 100 4 -1 -1 4 200 -1 1 3 1 7 1 -1 -1 -1
2 60 0 -1 4 -1 -1 4 200 -1 0 3 1 7 1 -1 -1 -1
3 30 0 50.5 -1 -1 -1 16 -1 -1 1 5 1 -1 1 -1 -1 -1
"""


def test_a_log_is_read_and_what_did_not_run_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.swf").write_text(LINES)
    with gzip.open(tmp_path / "a.swf.gz", "wt") as file:
        file.write(LINES)
    jobs = read_swf(tmp_path / "a.swf")
    assert jobs == read_swf(tmp_path / "a.swf.gz")
    assert [(j.submit_s, j.run_s, j.ranks, j.estimate_s, j.kind) for j in jobs] == [
        (0.0, 100.0, 4, 200.0, 7),
        (30.0, 50.5, 16, None, 5),
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 3\n", "line 1: 3 fields"),
        (LINES + "x" + " 1" * 17 + "\n", "line 6: field 1 .job number. is 'x', which is no number"),
        ("; nothing\n", "no job in it has run"),
        (None, "cannot be read"),
    ],
)
def test_a_wrong_log_is_refused_in_one_line(tmp_path: Path, text: str | None, said: str) -> None:
    if text is not None:
        (tmp_path / "a.swf").write_text(text)
    with pytest.raises(ConfigError, match=said) as caught:
        read_swf(tmp_path / "a.swf")
    assert "\n" not in str(caught.value)


def test_tasks_of_a_log_take_on_its_processors_what_they_took(tmp_path: Path) -> None:
    (tmp_path / "a.swf").write_text(LINES)
    options = {
        "workload": {
            "source": "swf",
            "file": str(tmp_path / "a.swf"),
            "tasks": [2, 2],
            "kinds": [1, 1],
            "spawn_probability": 0.0,
        },
    }
    workload = Ensemble(options).workload(1)
    taken = sorted(workload.duration_s(job.number, job.requested_ranks) for job in workload.jobs)
    assert taken == pytest.approx([50.5, 100.0])
    asked = next(job for job in workload.jobs if job.requested_ranks == 4)
    assert asked.estimate_s == pytest.approx(2.0 * workload.truths[asked.number].work_s)


def test_sizes_are_distributed_as_published() -> None:
    rng = np.random.default_rng(1)
    sizes = np.array([lublin.size(rng, 128) for _ in range(40_000)])
    assert np.mean(sizes == 1) == pytest.approx(lublin.EITHER.serial, abs=0.01)
    powers = np.log2(sizes[sizes > 1]) % 1 == 0
    # Rounding makes some of the others powers of two as well.
    assert lublin.EITHER.power_of_two / (1 - lublin.EITHER.serial) < powers.mean() < 0.87
    assert sizes.max() <= 128
    small = np.mean(np.log2(sizes[sizes > 1]) < 4.5)
    assert small == pytest.approx(lublin.EITHER.first_stage, abs=0.05)


@pytest.mark.parametrize("ranks", [1, 16, 128])
def test_run_times_are_hyper_gamma(ranks: int) -> None:
    rng = np.random.default_rng(2)
    logs = np.log([lublin.run_time(rng, ranks) for _ in range(8_000)])
    short = lublin.EITHER.slope * ranks + lublin.EITHER.intercept

    def cdf(x: np.ndarray) -> np.ndarray:
        parts = [stats.gamma.cdf(x, shape, scale=scale) for shape, scale in (lublin.EITHER.short, lublin.EITHER.long)]
        whole = [
            stats.gamma.cdf(lublin.LONGEST, shape, scale=scale)
            for shape, scale in (lublin.EITHER.short, lublin.EITHER.long)
        ]
        mixed = short * parts[0] + (1 - short) * parts[1]
        return mixed / (short * whole[0] + (1 - short) * whole[1])

    assert stats.kstest(logs, cdf).pvalue > 1e-3


def test_most_jobs_arrive_in_the_afternoon_and_few_at_night() -> None:
    weights = lublin.day()
    assert weights.mean() == pytest.approx(1.0)
    assert 12 <= weights.argmax() / 2 <= 16
    assert weights[2 * 4 : 2 * 6].max() < 0.35
    rng = np.random.default_rng(3)
    jobs = lublin.lublin(rng, 6_000, 128)
    hours = np.array([job.submit_s / 3600.0 % 24.0 for job in jobs])
    day, night = np.mean((hours >= 12) & (hours < 18)), np.mean(hours < 6)
    assert day > 2.0 * night
    assert all(a.submit_s <= b.submit_s for a, b in itertools.pairwise(jobs))


def test_ones_own_campaign_is_a_workload(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "journal.db", {})
    with journal.batch():
        journal.append("submitted", 3.0, {"uid": "a", "attempt": 1, "parameters": {"estimate_s": 20.0, "ranks": 2}})
        result = {"values": {}, "failure": None, "message": "", "started_s": 4.0, "ended_s": 12.5, "cores": 2}
        event = {"time_s": 12.5, "uid": "a", "state": "done", "attempt": 1, "result": result}
        journal.append("event", 12.5, event)
    journal.close()
    (job,) = read_history(tmp_path)
    assert (job.submit_s, job.run_s, job.ranks, job.estimate_s) == (3.0, 8.5, 2, 20.0)
    with pytest.raises(ConfigError, match="no journal of a campaign"):
        read_history(tmp_path / "elsewhere")


def test_instances_are_the_same_whoever_asks_and_differ() -> None:
    factory = Ensemble()
    assert factory.workload(3) == Ensemble().workload(3)
    assert factory.workload(3) != factory.workload(4)
    children = [c for truth in factory.workload(3).truths for c in truth.children]
    assert all(factory.workload(3).jobs[c].parent is not None for c in children)


def test_being_stuck_is_the_inverse_of_how_far_one_gets() -> None:
    truth = HiddenParameters(10.0, (), ((0.25, 0.5), (0.5, 1.0)), 1.0, (1.0,), (1.0,))
    assert truth.time_at(0.0, 1.0) == pytest.approx(2.5)
    assert truth.reached(0.0, 0.5) == pytest.approx(0.25)
    assert truth.reached(0.0, 0.8) == pytest.approx(0.3)
    assert truth.reached(0.0, 9.0) == 1.0
    for done in (0.0, 0.3, 0.6):
        for upto in (0.61, 0.8, 1.0):
            assert truth.reached(done, truth.time_at(done, upto)) == pytest.approx(upto)


def test_no_schedule_beats_the_bound() -> None:
    factory = Ensemble()
    workload = factory.workload(5)
    bound = bound_s(workload, factory.options.ranks, Capacity(32, 1).total_cores)
    area = sum(t.work_s for t in workload.truths) / 32
    longest = max(
        min(t.work_s * loss(n, k.serial, k.kappa) / n for n in factory.options.ranks)
        for t, k in ((workload.truths[j.number], workload.kinds[j.kind]) for j in workload.jobs)
    )
    assert bound >= max(area, longest) - 1e-9
    assert math.isfinite(bound)
