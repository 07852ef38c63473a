"""Plays whole campaigns on their twins, all of them in step, so that tasks of many campaigns are computed together."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ContractError
from rlctl.core.machine import Capacity
from rlctl.core.plugin_calls import asking
from rlctl.core.policy import Policy
from rlctl.core.simulation import Launch, Simulated, TaskModel
from rlctl.environments.campaign_env import Episode, twin
from rlctl.executors.simulated.backend import SimulatedExecutor

Batch = Callable[[Sequence[tuple[TaskModel, Launch]]], list[Simulated]]
"""Computes tasks of many instances together."""


def compute_tasks(executors: Sequence[SimulatedExecutor], batch: Batch) -> None:
    """Compute all that these executors wait for in one call, and deliver it."""
    waiting = [(executor.simulated, launches) for executor in executors if (launches := executor.simulated.uncomputed)]
    wanted = [(backend.model, launch) for backend, launches in waiting for launch in launches]
    if not wanted:
        return
    with asking("the task model", f"outcomes() of {len(wanted)} tasks", len(wanted)):
        answers = iter(batch(wanted))
    for backend, launches in waiting:
        backend.deliver(list(itertools.islice(answers, len(launches))))


MOST_DECISIONS = 1_000_000
"""Of a campaign on its twin: one that has not ended then never does."""


def rollout_on_twin(
    factory: CampaignFactory,
    capacity: Capacity,
    players: Sequence[tuple[int, Policy]],
    watch: Callable[[int, Episode], None] | None = None,
) -> list[dict[str, float]]:
    """Play whole campaigns on simulated executors, all of them in step, so that their tasks are computed together.

    Args:
        factory: makes the campaigns.
        capacity: the allocation of each.
        players: (instance, policy) of each campaign; a policy that keeps memory plays one campaign at a time.
        watch: called with each campaign, by its position, at a decision and at its end.

    Returns:
        ``Episode.figures`` of each campaign, in order.

    Raises:
        ContractError: a campaign does not end, or its cost is not finite.
    """
    executors = [twin(factory, capacity, instance) for instance, _ in players]
    episodes = [Episode(factory.campaign(i), e, 1.0) for (i, _), e in zip(players, executors, strict=True)]
    for (instance, policy), episode in zip(players, episodes, strict=True):
        policy.reset(instance)
        episode.begin()
    if watch is not None:
        for n, episode in enumerate(episodes):
            watch(n, episode)
    live = [n for n, episode in enumerate(episodes) if episode.decision is not None]
    while live:
        for n in live:
            decision = episodes[n].decision
            assert decision is not None
            if decision.number == MOST_DECISIONS:
                raise ContractError(
                    f"campaign {factory.name}, instance {players[n][0]}: outcome() has not ended after "
                    f"{MOST_DECISIONS:,} decisions of policy {players[n][1].name}: does time pass, and does it end at "
                    "deadline_s?"
                )
            with asking(f"policy {players[n][1].name}", f"decision {decision.number} of instance {players[n][0]}"):
                action = players[n][1].act(decision)
            episodes[n].driver.answer(action)
        compute_tasks([executors[n] for n in live], factory.outcomes)
        for n in live:
            episodes[n].reward()
            if watch is not None:
                watch(n, episodes[n])
        live = [n for n in live if episodes[n].decision is not None]
    figures = [episode.figures() for episode in episodes]
    for (instance, _), of in zip(players, figures, strict=True):
        if not math.isfinite(of["cost"]):
            raise ContractError(f"campaign {factory.name}, instance {instance}: outcome().cost is {of['cost']}")
    return figures
