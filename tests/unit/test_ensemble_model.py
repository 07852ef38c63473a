"""What the twin's tasks do: where they go on from, and what they say of themselves."""

from __future__ import annotations

from typing import Any

import pytest

from rlctl.core.simulation import Launch
from rlctl.core.task import TaskId, TaskSpec
from rlctl_envs.ensemble.factory import Ensemble


def test_a_task_that_was_stopped_before_it_would_have_died_goes_on_from_there() -> None:
    """It does not go on from the checkpoint that it would have written later."""
    options: dict[str, Any] = {
        "workload": {
            "tasks": [1, 1],
            "spawn_probability": 0.0,
            "resizable": 1.0,
            "checkpoint_s": 1e-3,
            "trouble": {"failures_per_rank_s": 1e-9},
        },
        "ranks": [1],
    }
    factory = Ensemble(options)
    # One that is lucky the second time; a rate at which it dies after nine tenths of its work the first time.
    lucks = ((n, factory.workload(n).truths[0].luck) for n in range(100))
    instance, luck = next((n, luck) for n, luck in lucks if luck[1] > luck[0])
    whole_s = factory.workload(instance).duration_s(0, 1)
    options["workload"]["trouble"] = {"failures_per_rank_s": luck[0] / (0.9 * whole_s)}
    model = Ensemble(options).task_model(instance)
    spec = TaskSpec(TaskId("a"), executable="true", parameters={"task": 0, "report_s": 0.0})
    (first,) = model.outcomes([Launch(spec, 1)])
    assert first.failure is not None
    assert first.duration_s == pytest.approx(0.9 * whole_s)
    model.stopped(Launch(spec, 1), 0.25 * whole_s, True)
    (second,) = model.outcomes([Launch(spec, 2)])
    assert second.failure is None
    assert second.duration_s == pytest.approx(0.75 * whole_s)


def test_a_task_that_died_goes_on_from_its_last_checkpoint() -> None:
    options: dict[str, Any] = {"workload": {"tasks": [1, 1], "spawn_probability": 0.0, "resizable": 1.0}, "ranks": [1]}
    factory = Ensemble(options)
    lucks = ((n, factory.workload(n).truths[0].luck) for n in range(100))
    instance, luck = next((n, luck) for n, luck in lucks if luck[1] > luck[0])
    whole_s = factory.workload(instance).duration_s(0, 1)
    trouble = {"failures_per_rank_s": luck[0] / (0.9 * whole_s)}
    options["workload"] |= {"trouble": trouble, "checkpoint_s": 0.4 * whole_s}
    model = Ensemble(options).task_model(instance)
    spec = TaskSpec(TaskId("a"), executable="true", parameters={"task": 0, "report_s": 0.0})
    assert model.outcomes([Launch(spec, 1)])[0].failure is not None
    assert model.outcomes([Launch(spec, 2)])[0].duration_s == pytest.approx(0.2 * whole_s)


def test_when_reports_come_does_not_tell_how_long_a_task_will_take() -> None:
    factory = Ensemble({"workload": {"tasks": [1, 1], "trouble": {"traps_per_work": [3, 3], "trap_work": [500, 500]}}})
    spec = TaskSpec(TaskId("a"), executable="true", parameters={"task": 0, "report_s": 10.0})
    counts = []
    for instance in range(5):
        (told,) = factory.task_model(instance).outcomes([Launch(spec, 1)])
        times = [time_s for time_s, _ in told.progress[:200]]
        assert times == pytest.approx([10.0 * (i + 1) for i in range(len(times))])
        counts.append(len(told.progress))
    assert 200 < max(counts) < 250
