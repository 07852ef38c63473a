"""Checkpoints of a training: what it needs to go on as if nothing had happened."""

from __future__ import annotations

import json
import os
import pickle
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlctl.config.load import config_data, config_hash
from rlctl.config.provenance import provenance
from rlctl.config.schema import RuleEntry
from rlctl.core.errors import ConfigError, LearningDiverged
from rlctl.core.json_values import differences, plain
from rlctl.distributed.learner.checkpoint_folder import CheckpointFolder
from rlctl_agents.on_policy.pull import Pull

if TYPE_CHECKING:
    from rlctl.config.schema import Config

SCHEMA = 5
KEPT = 2
START = "start.pt"
MODEL, STATE, RANDOM, ENVIRONMENTS, REPLAY = (
    "model.zip",
    "state.json",
    "random.pickle",
    "environments.pickle",
    "replay.npz",
)
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts", "durations")
"""Arrays of a replay buffer."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint on disk.

    Attributes:
        folder: of its files.
        decisions: learned from until then.
        actors: of each learner, what it knew of its actors; empty where there were none.
        cpu_seconds: spent until then; None: an earlier version did not record it.
        rule: that the training started from, if it did.
    """

    folder: Path
    decisions: int
    actors: Sequence[Mapping[str, Any]] = ()
    cpu_seconds: float | None = None
    rule: RuleEntry | None = None

    @property
    def model(self) -> Path:
        """Stable-Baselines3's zip, with the optimiser."""
        return self.folder / MODEL

    def environments(self) -> bytes | None:
        """What ``VectorEnvironment.save`` gave; None if there is nothing to go on with."""
        path = self.folder / ENVIRONMENTS
        return path.read_bytes() if path.exists() else None

    def restore(self, model: Any, pull: Pull | None) -> None:
        """Give a model that was loaded from here its replay buffer and its start, and all that is random its state.

        To be called last: loading a model seeds everything anew.
        """
        if pull is not None:
            pull.restore(self.folder / START)
        if (self.folder / REPLAY).exists():
            _fill(model.replay_buffer, self.folder / REPLAY)
        states = pickle.loads((self.folder / RANDOM).read_bytes())
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["torch"])
        if states["cuda"] and torch.cuda.is_available():
            torch.cuda.set_rng_state_all(states["cuda"])
        model.action_space._np_random = states["actions"]


class CpuClock:
    """CPU seconds of a training, over all its processes: of the first and its children, where there are no ranks.

    Args:
        ranks: number of MPI ranks, each of which holds a core all the time; 0: there are none.
        before_s: spent in earlier processes of the same training; None: unknown.
    """

    def __init__(self, ranks: int = 0, before_s: float | None = 0.0) -> None:
        self._ranks, self._before_s = ranks, before_s
        self._began_s = self._now_s()

    def seconds(self) -> float | None:
        """So far; None: unknown."""
        return None if self._before_s is None else self._before_s + self._now_s() - self._began_s

    def _now_s(self) -> float:
        return self._ranks * time.monotonic() if self._ranks else sum(os.times()[:4])


class Checkpoints:
    """The checkpoints of one training, ``FOLDER/<decisions>/``; the newest two are kept.

    Attributes:
        clock: of the training.
        rule: that it started from.
        pull: to that.
    """

    def __init__(self, folder: Path, config: Config) -> None:
        self.folder = folder
        self.clock = CpuClock()
        self.rule: RuleEntry | None = None
        self.pull: Pull | None = None
        self._settings, self._hash = _settings(config), config_hash(config)
        self._kept = CheckpointFolder(folder, KEPT)

    @property
    def none(self) -> bool:
        """Whether there is no checkpoint yet."""
        return not self._kept.names()

    def require_none(self) -> None:
        """Raise ConfigError if a training has begun here already."""
        if not self.none:
            raise ConfigError(f"{self.folder.parent} already holds a training: resume it, or give another folder")

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole, if any; raise ConfigError if none is, or it is of another training."""
        folder = self._kept.newest()
        if folder is None:
            if self._kept.names():
                raise ConfigError(f"{self.folder}: no checkpoint there is whole: train into another folder")
            return None
        state = json.loads((folder / STATE).read_text())
        if state.get("schema") != SCHEMA:
            raise ConfigError(
                f"{folder}: checkpoint schema {state.get('schema')!r}, this rlctl reads {SCHEMA}: train anew, into "
                "another folder"
            )
        for key, began, now in differences(state["settings"], self._settings):
            raise ConfigError(
                f"{folder} was trained with {key} {began!r}, not {now!r}: resume it unchanged, or train into another "
                "folder"
            )
        return Checkpoint(folder, int(state["decisions"]), state["actors"], state.get("cpu_seconds"), _rule(state))

    def require_finite(self, model: Any) -> None:
        """Raise LearningDiverged if a weight is not finite, before actors or a checkpoint take it."""
        numbers = [*model.policy.parameters()]
        if isinstance(model, SAC) and model.log_ent_coef is not None:
            numbers.append(model.log_ent_coef)
        with torch.no_grad():
            if torch.isfinite(torch.nn.utils.get_total_norm(numbers)):
                return
        kept = "there is no checkpoint" if self.none else "the newest checkpoint is from before"
        raise LearningDiverged(
            f"the network's weights are not finite any more after {model.num_timesteps} decisions ({kept}): lower "
            "train.options.learning_rate, or scale rewards and observations down, and train into another folder"
        )

    def save(self, model: Any, environments: bytes | None = None, actors: Sequence[Mapping[str, Any]] = ()) -> None:
        """Write a checkpoint of the model as it stands between two updates.

        Args:
            environments: what ``VectorEnvironment.save`` gives, where the learner has it.
            actors: of each learner, what ``Collector.state`` gives.
        """
        self.require_finite(model)
        name = f"{model.num_timesteps:012d}"
        state = {
            "schema": SCHEMA,
            "decisions": model.num_timesteps,
            "settings": self._settings,
            "config_hash": self._hash,
            "actors": list(actors),
            "cpu_seconds": self.clock.seconds(),
            "rule": None if self.rule is None else self.rule.model_dump(mode="json", fallback=plain),
            **provenance(),
        }

        def fill(folder: Path) -> None:
            model.save(folder / MODEL)
            (folder / STATE).write_text(json.dumps(state, indent=2))
            (folder / RANDOM).write_bytes(pickle.dumps(_random_states(model)))
            if self.pull is not None:
                self.pull.save(folder / START)
            if environments is not None:
                (folder / ENVIRONMENTS).write_bytes(environments)
            if isinstance(model, OffPolicyAlgorithm) and model.replay_buffer is not None:
                _write(model.replay_buffer, folder / REPLAY)

        self._kept.write(name, fill)


def _rule(state: Mapping[str, Any]) -> RuleEntry | None:
    return None if state.get("rule") is None else RuleEntry.model_validate(state["rule"])


def _random_states(model: Any) -> dict[str, Any]:
    """The state of all that is random."""
    return {
        "python": random.getstate(),
        "numpy": np.random.get_state(),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "actions": model.action_space._np_random,
    }


def _write(buffer: ReplayBuffer, path: Path) -> None:
    """The part of a replay buffer that is filled."""
    count = buffer.buffer_size if buffer.full else buffer.pos
    arrays = {name: getattr(buffer, name)[:count] for name in _ARRAYS if hasattr(buffer, name)}
    with path.open("wb") as file:
        np.savez(file, where=np.array([buffer.pos, buffer.full]), **arrays)


def _fill(buffer: ReplayBuffer, path: Path) -> None:
    with np.load(path, allow_pickle=False) as arrays:
        for name in arrays.files:
            if name != "where":
                getattr(buffer, name)[: len(arrays[name])] = arrays[name]
        buffer.pos, buffer.full = int(arrays["where"][0]), bool(arrays["where"][1])


def _settings(config: Config) -> dict[str, Any]:
    """What must be the same for a checkpoint to go on; the total, the interval and what is only shown may change."""
    data = config_data(config)
    may_change = ("decisions", "checkpoint_decisions", "validation_instances", "judgement_instances", "distributed")
    train = {k: v for k, v in data["train"].items() if k not in may_change}
    return {"seed": data["seed"], "campaign": data["campaign"], "machine": data["machine"], "train": train}
