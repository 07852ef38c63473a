"""TensorBoard files of a training: Stable-Baselines3's log, and validation of the policy beside the rules."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3.common.logger import KVWriter

from rlctl.core.driver import Driver
from rlctl.core.plugin_calls import asking
from rlctl.core.records import RecordList
from rlctl.environments.reward_env import rewarded
from rlctl.evaluation.success_curves import (
    load_rules,
    replacing_writer,
    results_table,
    spread_instances,
    summary_scalars,
    twin_curves,
    write_rules,
    write_success_curve,
)
from rlctl.executors.simulated.backend import SimulatedExecutor
from rlctl.monitoring.occupancy import write_occupancy
from rlctl.monitoring.progress import Progress
from rlctl.monitoring.run_metadata import write_run_metadata
from rlctl.monitoring.summary_writer import SummaryWriter
from rlctl.monitoring.tags import POLICY, find
from rlctl.monitoring.timeline import Timeline

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.campaign_factory import CampaignFactory
    from rlctl.core.policy import Policy
    from rlctl.environments.reward_env import Game
    from rlctl.evaluation.success_curves import Curve

log = logging.getLogger(__name__)

SHARE = 0.05
"""Of the time of a training, what validations between its start and its end may take."""
_MINE = " the policy"  # no rule has such a name
_NAMES = {
    "rollout/ep_rew_mean": "learning/return_mean",
    "rollout/ep_len_mean": "learning/decisions_per_campaign",
    "train/policy_gradient_loss": "learning/policy_loss",
    "train/value_loss": "learning/value_loss",
    "train/actor_loss": "learning/policy_loss",
    "train/critic_loss": "learning/value_loss",
    "train/loss": "learning/loss",
    "train/entropy_loss": "learning/entropy",
    "train/approx_kl": "learning/approx_kl",
    "train/clip_fraction": "learning/clip_fraction",
    "train/clip_range": "learning/clip_range",
    "train/explained_variance": "learning/explained_variance",
    "train/learning_rate": "learning/learning_rate",
    "train/n_updates": "learning/updates",
}
"""Stable-Baselines3's keys; its ``time/`` keys are not kept."""


class _StoppedError(Exception):
    """A validation was given up."""


class _UntilAsked(Progress):
    """Gives a validation up, at its next decision, once the training is asked to stop."""

    def __init__(self, asked: Callable[[], bool]) -> None:
        self._asked = asked

    def advance(self, amount: float, note: str = "") -> None:
        """Raise ``_StoppedError`` if the training is asked to stop."""
        if self._asked():
            raise _StoppedError


class TrainingBoard(KVWriter):
    """Writes the board of one training; a ``KVWriter`` of Stable-Baselines3's logger.

    Args:
        folder: for the event files.
        done: decisions learned from before; what was written after them is dropped.
    """

    def __init__(self, folder: Path, config: Config, factory: Game, done: int) -> None:
        self._folder, self._config = folder, config
        self._factory = None if rewarded(factory) else cast("CampaignFactory", factory)
        self._count = config.training.validation_instances
        self._rules: dict[str, list[Curve]] = {}
        self._began_s = time.monotonic()
        self._spent_s = 0.0
        self._validated = -1
        self.board = SummaryWriter(folder, since=done + 1 if done else 0)
        if not done:
            name = config.training.algorithm
            command = "rlctl train experiment.yaml --out NEW-FOLDER"
            write_run_metadata(self.board, config, factory, {"run": "train", "policy": name}, command)

    def write(self, key_values: dict[str, Any], key_excluded: dict[str, tuple[str, ...]], step: int = 0) -> None:
        """What Stable-Baselines3's logger has gathered."""
        figures: dict[str, float] = {}
        for key, value in key_values.items():
            if not key.startswith("time/"):
                tag = _NAMES.get(key) or (key if find(key) else None) or f"learning/other/{key.replace('/', '_')}"
                figures[tag] = -value if key == "train/entropy_loss" else value
        self.board.scalars(figures, step)

    def validate(
        self, make_policy: Callable[[], Policy], decisions: int, required: bool, asked: Callable[[], bool]
    ) -> None:
        """Let the policy as it stands after ``decisions`` play the instances that the rules play.

        Args:
            required: do so even if validations have taken their share of the time already.
            asked: whether the training is to stop; then this does, too.
        """
        began_s = time.monotonic()
        too_expensive = self._spent_s > SHARE * (began_s - self._began_s)
        if not self._count or self._validated == decisions or (too_expensive and not required):
            return
        if self._factory is None:
            return  # an environment with rewards has no costs to compare
        try:
            self._validate(self._factory, make_policy(), decisions, _UntilAsked(asked))
        except _StoppedError:
            return
        except OSError as error:  # whatever must be written reports a full disk
            log.info("no validation: %s", error)
        except Exception as error:  # a rule, a twin or a campaign's pictures may fail in any way; learning goes on
            log.warning("no validation: %s", error)
        self._validated = decisions
        if not required:
            self._spent_s += time.monotonic() - began_s

    def finish(self, succeeded: bool) -> None:
        """The training is over."""
        self.board.end_session(succeeded)

    def close(self) -> None:
        """Write everything out; may be called twice."""
        self.board.close()

    def _validate(self, factory: CampaignFactory, policy: Policy, decisions: int, until: _UntilAsked) -> None:
        capacity = self._config.machine.capacity()
        instances = spread_instances(self._config.seed, self._count)
        players = {_MINE: policy}
        if not self._rules:
            loaded, complaints = load_rules(self._config)
            for complaint in complaints:
                log.warning("%s", complaint)
            players |= loaded
        # All in step, since a twin is much faster on many campaigns than on few.
        played = twin_curves(factory, capacity, players, instances, until)
        curves = played.pop(_MINE)
        self._rules = self._rules or played
        self.board.scalars(summary_scalars(curves), decisions)
        with replacing_writer(self._folder / POLICY) as board:
            write_success_curve(board, curves)
        write_rules(self._folder, self._rules, (0, max(decisions, 1)))
        self.board.text(
            "about/result", results_table({f"policy, {decisions} decisions": curves, **self._rules}), decisions
        )
        self._one_campaign(factory, policy, instances[0], decisions, until)

    def _one_campaign(
        self, factory: CampaignFactory, policy: Policy, instance: int, decisions: int, until: _UntilAsked
    ) -> None:
        """One campaign in detail: its machine, its latencies, its pictures."""
        capacity, records = self._config.machine.capacity(), RecordList()
        model = factory.task_model(instance)
        driver = Driver(factory.campaign(instance), SimulatedExecutor(capacity, model, records), records)
        policy.reset(instance)
        latencies_ms = []
        decision = driver.begin()
        while decision is not None:
            until.advance(0.0)
            began_s = time.perf_counter()
            with asking(f"policy {policy.name}", f"decision {decision.number}"):
                action = policy.act(decision)
            latencies_ms.append(1e3 * (time.perf_counter() - began_s))
            decision = driver.step(action)
        write_occupancy(self.board, Timeline.read(records, capacity), decisions)
        p50, p99 = np.quantile(latencies_ms, (0.5, 0.99), method="higher")
        figures = {"machine/latency_p50_ms": p50, "machine/latency_p99_ms": p99}
        self.board.scalars(figures | {"machine/node_seconds": driver.ledger.node_seconds}, decisions)
        # Beside the policy, where a later life removes what a killed one has left.
        with tempfile.TemporaryDirectory(prefix=".policy-", dir=self._folder.parent.resolve()) as work:
            if factory.write_twin_files(model, Path(work)):
                for name, png in factory.pictures(Path(work), records).items():
                    self.board.image(f"pictures/{name}", png, decisions)


def write_choices(board: SummaryWriter, actions: np.ndarray[Any, Any], masks: np.ndarray[Any, Any], step: int) -> None:
    """How choices and masks are distributed.

    Args:
        actions: [decision, head].
        masks: [decision, choice], above 0.5 where a choice was allowed.
    """
    whole = np.array_equal(actions, np.rint(actions))
    for head, column in enumerate(actions.astype(np.int64 if whole else np.float64).T):
        board.histogram(f"learning/actions/head_{head}", column, step)
    if not masks.shape[1]:
        return
    shares = (masks <= 0.5).mean(axis=1)
    board.histogram("learning/masked_shares", shares, step)
    board.scalars({"learning/masked_share": float(shares.mean())}, step)


def campaign_figures(campaigns: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Of the last campaigns, played while exploring: the campaign's own figures, and what a success cost."""
    keys = sorted({key for of in campaigns for key in of})
    means = {key: float(np.mean([of[key] for of in campaigns if key in of])) for key in keys}
    figures = {f"campaign/{key}": value for key, value in means.items()}
    if "utilisation" in means:
        figures["machine/utilisation"] = means["utilisation"]
    if {"node_seconds", "successes"} <= means.keys() and means["successes"] > 0.0:
        figures["learning/node_seconds_per_success"] = means["node_seconds"] / means["successes"]
        if means.get("cost", means["node_seconds"]) != means["node_seconds"]:
            figures["learning/cost_per_success"] = means["cost"] / means["successes"]
    return figures
