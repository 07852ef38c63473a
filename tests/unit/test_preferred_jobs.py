"""Policies that correct a rule for rigid jobs choose among the jobs that it prefers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlctl.core.driver import Driver
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments.campaign_env import twin
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualVectorActions, residual_choices
from rlctl.plugins.registry import policy_factory
from rlctl_envs.ensemble.choices import LEAST_PRIOR
from rlctl_envs.ensemble.factory import Ensemble

CAPACITY = Capacity(nodes=1, cores=64)


def ensemble(mode: str) -> Ensemble:
    workload = {"source": "lublin", "processors": 64, "tasks": [60, 60], "most_tasks": 60, "faster": [200.0, 200.0]}
    objective = {"node_second": 0.0, "slowdown": 1.0, "slowdown_over": "run"}
    return Ensemble({"workload": workload, "rigid": mode, "objective": objective, "allocation_s": 1e9, "slots": 12})


def rule(name: str = "weighted", **parameters: float) -> Policy:
    return policy_factory(name)(parameters)


@pytest.mark.parametrize("mode", ["any", "next", "next_backfilled"])
def test_the_rules_own_choice_has_the_greatest_prior(mode: str) -> None:
    factory, weighted = ensemble(mode), rule()
    campaign: Any = factory.campaign(3)
    driver = Driver(campaign, twin(factory, CAPACITY, 3))
    decision, priors, waits = driver.begin(), [], 0
    while decision is not None:
        choices = residual_choices(decision, weighted)
        layout = campaign.layout
        assert choices.observation is not None
        rows = choices.observation[layout.once :][: layout.choices * layout.sets[0][1]].reshape(layout.choices, -1)
        prior = np.where(choices.mask, rows[:, layout.prior], -np.inf)
        best = choices.named(np.array([prior.argmax()]))
        answer: Any = weighted.act(decision)
        assert best.get("start") == answer.get("start")
        assert prior.max() == 1.0
        assert prior[choices.mask].min() >= LEAST_PRIOR
        waiting = campaign.state.queue
        fit = len(waiting) if mode != "any" else int((waiting.ranks <= campaign.state.free_cores).sum())
        assert choices.mask[1:].sum() == min(fit, layout.choices - 1)
        starts = [choices.named(np.array([i]))["start"] for i in np.flatnonzero(choices.mask[1:]) + 1]
        assert len(set(starts)) == len(starts)
        priors += prior[choices.mask].tolist()
        waits += "wait" in answer
        decision = driver.step(answer)
    assert any(LEAST_PRIOR < prior < 1.0 for prior in priors)  # of jobs that are nearly as good
    assert (waits > 0) == (mode == "any")


def test_a_vector_of_environments_sees_the_rules_choices() -> None:
    factory = ensemble("next_backfilled")
    env = ResidualVectorActions(CampaignVectorEnv(factory, 2, 0, CAPACITY), rule())
    observations, infos = env.reset(seed=0)
    layout: Any = factory.campaign(0).layout
    ended = 0
    while ended < 3:
        at = layout.once + layout.prior
        assert observations[:, at + layout.sets[0][1]].tolist() == [1.0, 1.0]  # the second row: there is no waiting
        before = observations
        observations, _, terminated, truncated, infos = env.step(np.ones((2, 1), np.int64))
        for i in np.flatnonzero(terminated | truncated):
            assert infos["final_obs"][i].tolist() == before[i].tolist()
            ended += 1
    env.close()
