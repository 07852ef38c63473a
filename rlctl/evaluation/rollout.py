"""Rolls out policies on whole campaigns of the twin, many at once, in this process or in worker processes."""

from __future__ import annotations

import copy
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass

import numpy as np

from rlctl.config.schema import Config
from rlctl.core.campaign import Action, Decision
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, NoAnswerError
from rlctl.core.machine import Capacity
from rlctl.core.policy import Policy
from rlctl.environments import twin_rollouts
from rlctl.environments.campaign_env import Episode
from rlctl.system import watchdog
from rlctl.system.crash_report import remember_origin

EVALUATION, TUNING, VALIDATION, JUDGEMENT, STARTING = 1, 2, 3, 5, 6
"""Purposes of instances; each purpose has its own instances. 4 is in ``rlctl.evaluation.success_curves``."""

TOGETHER = 128
"""Largest number of campaigns in step; twins run many campaigns several times as fast as one by one."""

Entry = tuple[Policy, int]
"""A policy and an instance."""

Watch = Callable[[int, Episode], None]


@dataclass(frozen=True, slots=True)
class Rollout:
    """Result of one policy on one instance.

    Attributes:
        successes: units of the goal.
        node_seconds: allocated from the start until everything had stopped.
        core_seconds: held by tasks.
        latency_s: median wall time of the policy for a decision.
        cost: cost as the campaign defines it; by default node-seconds.
        success_costs: cost at each success, in order; a success counts at the next decision, or at the end.
    """

    instance: int
    successes: int
    reached: bool
    node_seconds: float
    core_seconds: float
    decisions: int
    latency_s: float
    cost: float
    success_costs: tuple[float, ...] = ()


def draw_instances(seed: int, purpose: int, count: int, batch: int = 0) -> list[int]:
    """Draw instances for a purpose.

    Those of ``EVALUATION`` lie above 32 bits, all others below: they are held out for every choice of seeds.
    """
    held_out = 2**32 if purpose == EVALUATION else 0
    sequences = (np.random.SeedSequence([seed, purpose, batch], spawn_key=(i,)) for i in range(count))
    return [held_out + int(sequence.generate_state(1)[0]) for sequence in sequences]


def evaluation_instances(config: Config, count: int | None = None, seed: int | None = None) -> list[int]:
    """The instances that policies are evaluated on: those of ``evaluate.given``, or else drawn ones.

    Args:
        count: how many; None: as many as the configuration gives or ``evaluate.instances`` says.
        seed: of those that are drawn; None: ``evaluate.seed``.

    Raises:
        ConfigError: ``evaluate.given`` has fewer than ``count``.
    """
    section = config.evaluate
    if section.given is None:
        seed, count = section.seed if seed is None else seed, section.instances if count is None else count
        return draw_instances(seed, EVALUATION, count)
    if count is not None and count > len(section.given):
        with config.source.located():
            raise ConfigError(f"gives {len(section.given)} instances, not {count}", ("evaluate", "given"))
    return section.given[:count]


def roll_out(
    factory: CampaignFactory, capacity: Capacity, entries: Sequence[Entry], watch: Watch | None = None
) -> list[Rollout]:
    """Run all entries in step, each with a copy of its policy, which may have a memory.

    Args:
        watch: called with each campaign, by its position, at a decision and at its end.
    """
    timed = [_Timed(copy.deepcopy(policy)) for policy, _ in entries]
    instances = [instance for _, instance in entries]
    rises: list[list[float]] = [[] for _ in entries]

    def note(n: int, episode: Episode) -> None:
        outcome = episode.campaign.outcome()
        if (new := outcome.successes - len(rises[n])) > 0:
            rises[n] += [episode.driver.ledger.node_seconds if outcome.cost is None else outcome.cost] * new
        if watch is not None:
            watch(n, episode)

    figures = twin_rollouts.rollout_on_twin(factory, capacity, list(zip(instances, timed, strict=True)), note)
    return [_result(*one, capacity) for one in zip(instances, figures, timed, rises, strict=True)]


class RolloutPool:
    """Runs rollouts in ``workers`` processes, or in this process if ``workers`` is 1. A context manager."""

    def __init__(self, factory: CampaignFactory, capacity: Capacity, workers: int = 1) -> None:
        self._factory = factory
        self._capacity = capacity
        self._timeout_s = watchdog.limit_s()
        self._workers = max(workers, 1)
        self._pool: ProcessPoolExecutor | None = None
        if workers > 1:
            # Spawned, not forked: a fork would copy locked mutexes of threaded libraries.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker)

    def __enter__(self) -> RolloutPool:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._pool is None:
            return
        if exception[0] is not None:  # their results are not needed any more
            for process in list(self._pool._processes.values()):
                process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def run(self, entries: Sequence[Entry]) -> Iterator[dict[int, Rollout]]:
        """Run all entries; yields results by position, part by part."""
        size = max(1, min(TOGETHER, -(-len(entries) // self._workers)))
        spans = [range(at, min(at + size, len(entries))) for at in range(0, len(entries), size)]
        if self._pool is None:
            for span in spans:
                yield dict(zip(span, roll_out(self._factory, self._capacity, [entries[i] for i in span]), strict=True))
            return
        submit, common = self._pool.submit, (self._timeout_s, self._factory, self._capacity)
        futures = {submit(_roll_out_in_worker, *common, [entries[i] for i in span]): span for span in spans}
        try:
            for future in as_completed(futures):
                yield dict(zip(futures[future], future.result(), strict=True))
        except BrokenProcessPool as error:
            raise NoAnswerError(
                "a worker process died: it was killed, ran out of memory (fewer --workers need less), or exited for "
                "the reason above"
            ) from error


class _Timed:
    """A policy that measures its latencies."""

    def __init__(self, policy: Policy) -> None:
        self.name = policy.name
        self.latencies_s: list[float] = []
        self._policy = policy
        self.reset, self.state, self.restore = policy.reset, policy.state, policy.restore

    def act(self, decision: Decision) -> Action:
        began_s = time.perf_counter()
        action = self._policy.act(decision)
        self.latencies_s.append(time.perf_counter() - began_s)
        return action


def _result(
    instance: int, figures: Mapping[str, float], timed: _Timed, rises: Sequence[float], capacity: Capacity
) -> Rollout:
    node_seconds = figures["node_seconds"]
    return Rollout(
        instance=instance,
        successes=int(figures["successes"]),
        reached=bool(figures["reached"]),
        node_seconds=node_seconds,
        core_seconds=figures["utilisation"] * node_seconds * capacity.total_cores / capacity.nodes,
        decisions=int(figures["decisions"]),
        latency_s=float(np.median(timed.latencies_s)) if timed.latencies_s else 0.0,
        cost=figures["cost"],
        success_costs=tuple(rises),
    )


def _roll_out_in_worker(
    timeout_s: float | None, factory: CampaignFactory, capacity: Capacity, entries: Sequence[Entry]
) -> list[Rollout]:
    watchdog.allow_exit()
    try:
        with watchdog.watching(timeout_s, watchdog.TIMEOUT):
            return roll_out(factory, capacity, entries)
    except Exception as error:
        remember_origin(error)
        raise


def _begin_worker() -> None:
    """Leave interrupts to the parent, and exit with it, however it dies."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
