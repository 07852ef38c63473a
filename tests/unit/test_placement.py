"""Placement that is learned, in place of the default packing: on the twin and in the executor alike."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlctl.core.errors import ConfigError
from rlctl.core.machine import Capacity, NodeGroup, NodeState
from rlctl.core.task import Resources, TaskId, TaskSpec
from rlctl.environments.campaign_env import twin
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl_agents.placement import LinearPlacement
from rlctl_envs.ensemble.factory import Ensemble

CONFIGS = Path(__file__).parents[2] / "configs"


def spread_out() -> LinearPlacement:
    return LinearPlacement({"cores": 5.0, "spoiled": 0.0, "gpus": 0.0})


def test_tight_packing_keeps_gpus_and_spreading_does_not() -> None:
    cpu, gpu = NodeState(0, 8, 8, 0, 0.0, None), NodeState(1, 8, 2, 4, 4.0, None)
    one = Resources()
    assert LinearPlacement({}).score(one, cpu) > LinearPlacement({}).score(one, gpu)
    assert spread_out().score(one, cpu) > spread_out().score(one, gpu)
    tight = LinearPlacement({"spoiled": 0.0, "gpus": 0.0})
    assert tight.score(one, gpu) > tight.score(one, cpu)


def test_executor_and_campaign_place_alike() -> None:
    parameters = {"cores": 5.0, "spoiled": 0.0, "gpus": 0.0}
    factory = Ensemble({"placement": {"rule": "linear", "parameters": parameters}, "workload": {"tasks": [6, 6]}})
    capacity = Capacity.of([NodeGroup(2, 4), NodeGroup(2, 4, gpus=2)])
    executor, campaign = twin(factory, capacity, 3), factory.campaign(3)
    campaign.begin(capacity)
    for _ in range(4):
        decision = campaign.decision()
        assert decision is not None
        number = next(iter(campaign.state.waiting))
        (start,) = campaign.apply({"start": number, "ranks": 1})
        executor.submit_task(start.spec)
    executor.wait()
    real = {status.uid: next(iter(status.nodes)) for status in executor.status().running}
    mirrored = {task.uid: task.placement[0].node for task in campaign.state.running.values()}
    assert real == mirrored
    assert sorted(real.values()) == [0, 1, 2, 3]


def test_an_executor_is_told_at_any_time() -> None:
    class Long:
        def outcomes(self, launches: list[object]) -> list[object]:
            from rlctl.core.simulation import Simulated

            return [Simulated(1.0) for _ in launches]

    executor = SimulatedExecutor(Capacity(3, 2), Long())  # type: ignore[arg-type]
    executor.place_by(spread_out())
    for uid in ("a", "b", "c"):
        executor.submit_task(TaskSpec(TaskId(uid), executable="true"))
    executor.wait()
    assert sorted(next(iter(task.nodes)) for task in executor.status().running) == [0, 1, 2]


def test_unknown_placements_and_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="near"):
        Ensemble({"placement": {"rule": "linear", "parameters": {"near": 1.0}}})
    with pytest.raises(ConfigError, match="placement"):
        Ensemble({"placement": {"rule": "nearest"}})
