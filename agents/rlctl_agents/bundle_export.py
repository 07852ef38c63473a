"""Writes the trained model as a saved policy: plain arrays, and files for Stable-Baselines3."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import MIN_PAIRS
from rlctl.bundle.network import NumpyPolicy
from rlctl.config.load import config_hash, game_hash
from rlctl.config.provenance import provenance
from rlctl.core.errors import EnvironmentFault
from rlctl.environments.reward_env import rewarded
from rlctl_agents import plain_model
from rlctl_agents.algorithm import LearnerOptions
from rlctl_agents.policy_export import actor_network, actor_weights
from rlctl_agents.vec_env import RemoteEnvSpec, TrainingVecEnv

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.environments.reward_env import Game

log = logging.getLogger(__name__)

MOST_NUMBERS = 1 << 24
"""In the rows that a saved policy is checked with."""


def export_policy(
    model: Any,
    options: LearnerOptions,
    folder: Path,
    factory: Game,
    env: RemoteEnvSpec,
    config: Config,
    rows: NDArray[np.float32] | None = None,
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Write the saved policy and check that it answers as the model does.

    Args:
        rows: what the model sees, for statistics and golden pairs; None: it plays on in ``env`` for them.
        more: what else the manifest says.
    """
    manifest: dict[str, Any] = {
        "name": config.training.algorithm,
        "campaign": {"name": factory.name, "version": factory.version},
        "spaces": saved_policy.describe(*env.env_spaces),
        "network": actor_network(model),
        "deterministic": options.deterministic,
        "decisions": model.num_timesteps,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "game_hash": game_hash(config, factory),
        **provenance(),
        **(more or {}),
    }
    if options.rule is not None:
        manifest["advice" if options.advised else "residual"] = options.rule.model_dump()
    own, action = env.env_spaces
    if rewarded(factory):  # before its observations are put in a row
        own, action = factory.own_observation_space or factory.observation_space, factory.action_space
    _remove_unfinished(folder)  # of a training that was killed while it wrote
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent.resolve()) as temporary:
            made = plain_model.plain(model, own, action)
            own_policy = plain_model.own_policy(model)
            files = [Path(temporary) / (plain_model.MODEL if own_policy else plain_model.PLAIN)]
            plain_model.save(made, files[0])
            if not own_policy:
                files.append(Path(temporary) / plain_model.MODEL)
                model.save(files[1], exclude=plain_model.UNFINISHED)
            if rows is None:
                assert isinstance(env, TrainingVecEnv)
                rows = played_rows(model, env, options.deterministic)
            masks = rows[:, env.n_obs : env.n_obs + env.n_mask] > 0.5 if options.mask_in_row and env.n_mask else None
            saved_policy.save(folder, actor_weights(model), manifest, rows[:, : env.n_obs], masks, files=files)
    except KeyboardInterrupt:
        _remove_unfinished(folder)  # it may have struck while that was being removed
        raise
    policy = saved_policy.load(folder, deterministic=True)
    check_same_answers(model, policy)
    check_same_answers(model, policy, rows)
    plain_model.check_plain_answers(made, policy, own, rows[:, : env.n_obs])
    return folder


def most_rows(numbers: int) -> int:
    """How many rows of so many numbers are looked at, at most: pictures are long."""
    return max(MIN_PAIRS, MOST_NUMBERS // numbers)


def played_rows(model: Any, env: TrainingVecEnv, deterministic: bool, count: int = 2048) -> NDArray[np.float32]:
    """What the model sees while it plays on for ``count`` decisions or more, in rows as it reads them.

    No more than it was trained with: where an environment is slow, they would take longer than the training.

    Where an environment fails meanwhile, what was seen before is enough: the training is over.
    """
    rows = env.reset() if model._last_obs is None else model._last_obs
    seen = [rows]
    state, starts = None, np.ones(len(rows), np.bool_)
    count = min(count, most_rows(rows.shape[1]), max(model.num_timesteps, MIN_PAIRS))
    while len(seen) * len(rows) < count:
        more = {"action_masks": env.action_masks()} if isinstance(model, MaskablePPO) else {}
        actions, state = model.predict(rows, state, starts, deterministic=deterministic, **more)
        try:
            rows, _, starts, _ = env.step(actions)
        except EnvironmentFault as fault:
            log.warning("%s: after the training, so the policy is saved all the same", fault)
            break
        seen.append(rows)
    found: NDArray[np.float32] = np.concatenate(seen, axis=0)
    return np.resize(found, (max(len(found), MIN_PAIRS), found.shape[1]))


def check_same_answers(model: Any, policy: NumpyPolicy, rows: NDArray[np.float32] | None = None) -> None:
    """Compare ``policy``, which must be deterministic, with ``model.predict``; recurrent ones at a first step.

    Args:
        rows: as the model reads them; None: random ones.
    """
    width = int(np.prod(model.observation_space.shape))
    n_obs = policy.observation_length
    n_mask = sum(policy.heads) if width > n_obs else 0
    rows = _random_rows(policy, width, n_mask) if rows is None else rows
    expected, _ = model.predict(rows, deterministic=True)
    masks = rows[:, n_obs : n_obs + n_mask] > 0.5 if n_mask else None
    plain_model.require_same(model, expected, policy, rows[:, :n_obs], masks)


def _random_rows(policy: NumpyPolicy, width: int, n_mask: int, count: int = 256, seed: int = 0) -> NDArray[np.float32]:
    random, count = np.random.default_rng(seed), min(count, most_rows(width))
    observations = random.normal(size=(count, policy.observation_length)).astype(np.float32)
    masks = random.random((count, n_mask)) < 0.6
    if n_mask:
        first = np.cumsum((0, *policy.heads[:-1]))
        masks[:, first + random.integers(policy.heads)] = True  # every head keeps a choice
    privileged = random.normal(size=(count, width - policy.observation_length - n_mask)).astype(np.float32)
    return np.concatenate([observations, masks, privileged], axis=1, dtype=np.float32)


def _remove_unfinished(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left)
