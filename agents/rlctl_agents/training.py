"""Trains a policy with an algorithm of Stable-Baselines3, in this process or among MPI ranks."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import set_random_seed

from rlctl.bundle import saved_policy
from rlctl.bundle.manifest import MIN_PAIRS
from rlctl.config.load import config_hash, game_hash
from rlctl.config.provenance import provenance
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, EnvironmentFault, RanksLostError
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.distributed.modes.lockstep import LockstepVectorEnv
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualVectorActions
from rlctl.environments.reward_env import rewarded
from rlctl.plugins.registry import game_factory, load_policy
from rlctl_agents import plain
from rlctl_agents.board import TrainingBoard
from rlctl_agents.callback import Stop, TrainingCallback
from rlctl_agents.checkpoint import Checkpoint, Checkpoints
from rlctl_agents.export import (
    actor_network,
    actor_weights,
    check_plain_answers,
    check_same_answers,
    played_rows,
)
from rlctl_agents.ppo.options import layout
from rlctl_agents.recipe import How, Recipe, Setting
from rlctl_agents.start import begin_as, starting_policy
from rlctl_agents.vec_env import RowsSpec, WorldsVecEnv

if TYPE_CHECKING:
    from rlctl.bundle.network import NumpyPolicy
    from rlctl.config.schema import Config, TrainSection
    from rlctl.core.machine import Capacity
    from rlctl.core.policy import Policy
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.environments.reward_env import Game
    from rlctl.monitoring.progress import Progress

log = logging.getLogger(__name__)

ROWS = 2048
"""That statistics and golden pairs are made of."""


def train(
    recipe: Recipe, config: Config, out: Path, resume: bool, progress: Progress, ranks: LearnerContext | None = None
) -> Path | None:
    """Train into the folder ``out``.

    It leaves ``out/tensorboard``, ``out/checkpoints`` and the saved policy ``out/policy`` with Stable-Baselines3's
    ``model.zip`` beside the weights, and ``model_plain.zip`` where that needs classes of rlctl's. SIGTERM and Ctrl-C
    write a checkpoint first.

    Args:
        recipe: of the algorithm.
        resume: go on from the newest checkpoint in ``out``, if there is one, up to the same total of decisions.
        ranks: where a learner's rank calls this; None: everything happens in this process.

    Returns:
        The folder of the saved policy; on ranks None where the learner was asked to stop, or is not the first.

    Raises:
        ConfigError: the configuration cannot be used, or does not fit the checkpoint.
        KeyboardInterrupt: it was stopped; the checkpoint is written. Not raised on ranks.
    """
    section, options = _section(config), recipe.options(config)
    _require_device(options.device)
    before = starting_policy(config, options)
    torch.set_num_threads(options.threads)
    seed = config.seed if section.seed is None else section.seed
    checkpoints = Checkpoints(out / "checkpoints", config)
    if not resume:
        checkpoints.require_none()
    start = checkpoints.newest()
    done = start.decisions if start else 0

    factory = game_factory(config.campaign.name, config.campaign.options)
    # Where environments cannot be saved, a resumed training goes on in new ones.
    entropy = [seed, done] if ranks is None else [seed, done, ranks.agent, ranks.number]
    sequence = np.random.SeedSequence(entropy).generate_state(2)
    env, centre = _environments(recipe, config, factory, options, int(sequence[0]), ranks)
    how = How.TOGETHER
    if ranks is not None and ranks.collector is not None:
        how = How.ASYNCHRONOUS if ranks.learners is None else How.SEVERAL
    try:
        set_random_seed(int(sequence[1]))
        if start:
            model = recipe.kind(how).load(start.model, env=env, device=options.device, force_reset=False)
        else:
            environments = env.num_envs if ranks is None else ranks.environments
            learners = 1 if ranks is None or ranks.learners is None else ranks.learners.size
            attends = getattr(options, "network", None) == "attention"
            sets = layout(factory, config.seed) if attends else None
            setting = Setting(env, centre, environments, learners, sets)
            model = recipe.make(how, setting, options)
            model.action_space.seed(int(sequence[1]))
            if before is not None:
                begin_as(model, before)
        if ranks is not None and ranks.collector is not None:
            if start and ranks.number < len(start.actors):
                ranks.collector.restore(start.actors[ranks.number], env.layout)
            recipe.attach(model, ranks, options)
        if start:
            _go_on(model, start, env)
        first = ranks is None or ranks.first
        board = TrainingBoard(out / "tensorboard", config, factory, done) if first else None
        model.set_logger(Logger(None, [board] if board else []))

        def deployed(model: Any) -> Policy:
            # The environments are in use: the policy is checked on what they show now.
            seen = _seen(model)
            rows = np.resize(seen, (max(len(seen), MIN_PAIRS), seen.shape[1]))
            with tempfile.TemporaryDirectory(prefix=".policy-", dir=out.resolve()) as folder:
                saved = export(model, recipe, Path(folder) / "policy", factory, env, config, options, rows, before)
                return load_policy(config, str(saved))

        callback = TrainingCallback(
            checkpoints, section.checkpoint_decisions, progress, options.threads, board, deployed, ranks
        )
        if first:
            progress.start("training", section.decisions, "decisions", done)
        asked = False
        try:
            with Stop() if ranks is None else nullcontext(ranks.stop) as stop:
                callback.stop = stop
                model.learn(section.decisions - done, callback=callback, reset_num_timesteps=not done)
                asked = stop.asked and model.num_timesteps < section.decisions
        except (RanksLostError, BrokenEnvironmentError):
            callback.save_what_is_left()
            raise
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"{fault}; {callback.keep_what_was_learned()}", fault.kind) from fault.__cause__
        except Exception:  # whatever is computed with weights that an update has made NaN
            checkpoints.require_finite(model)
            raise
        finally:
            if first:
                progress.stop()
            if board is not None:
                board.finish(succeeded=not asked)
            model.logger.close()
        callback.save()
        if asked and ranks is None:
            raise KeyboardInterrupt
        if asked or not first:
            return None
        rows = None if ranks is None else _seen(model)  # elsewhere a step may take hours
        return export(model, recipe, out / "policy", factory, env, config, options, rows, before)
    finally:
        env.close()
        torch.set_num_threads(options.threads)  # the twin may have set them, see TrainingCallback


def _section(config: Config) -> TrainSection:
    if config.train is None:
        raise ConfigError("the configuration has no section 'train'")
    return config.train


def _environments(
    recipe: Recipe, config: Config, factory: Game, options: Any, seed: int, ranks: LearnerContext | None
) -> tuple[WorldsVecEnv | RowsSpec, tuple[int, ...]]:
    """What the algorithm learns from, and the choices that mean "as the rule says", if there is a rule."""
    prepare, capacity = recipe.prepare(options), config.machine.capacity()
    bootstrap = getattr(options, "bootstrap", True)
    centre: tuple[int, ...] = ()
    if ranks is None:
        vector = prepare(_vector_env(factory, _section(config).num_envs, seed, capacity), factory.name)
        centre = _centre(vector)
        name, told = (
            f"campaign {factory.name}",
            {"with_mask": recipe.with_mask, "with_privileged": recipe.with_privileged},
        )
        worlds = GymnasiumVectorEnv(vector, name=name, **told)
        return WorldsVecEnv(worlds, bootstrap, recipe.mask_in_row), centre
    if not rewarded(factory):
        vector = prepare(_vector_env(factory, 1, seed, capacity), factory.name)
        centre = _centre(vector)
    if ranks.collector is None:
        remote = LockstepVectorEnv(ranks.comm, ranks.workers, ranks.limit_s)
        return WorldsVecEnv(remote, bootstrap, recipe.mask_in_row), centre
    assert ranks.spaces is not None
    return RowsSpec(ranks.collector.transition_spec, *ranks.spaces, recipe.mask_in_row), centre


def _centre(vector: Any) -> tuple[int, ...]:
    """The choices that mean "as the rule says"; empty without a rule."""
    if not isinstance(vector, ResidualVectorActions):
        return ()
    vector.reset()  # only a decision tells
    return vector.centre


def _vector_env(factory: Game, count: int, seed: int, capacity: Capacity) -> VectorEnv[Any, Any, Any]:
    if isinstance(factory, CampaignFactory):
        return CampaignVectorEnv(factory, count, seed, capacity)
    return factory.vector_env(count, seed, capacity)


def _go_on(model: Any, start: Checkpoint, env: WorldsVecEnv | RowsSpec) -> None:
    """Take up what the checkpoint holds besides the model."""
    if isinstance(env, WorldsVecEnv):
        saved = start.environments()
        rows = None if saved is None else env.restore(saved)
        if rows is None:
            log.warning("the environments could not be saved: they begin new episodes")
            rows = env.reset()
            model._last_episode_starts = np.ones(env.num_envs, np.bool_)
        model._last_obs = rows
    start.restore(model)


def _seen(model: Any) -> NDArray[np.float32]:
    """Some rows that the model has seen; none yet: random ones."""
    buffer = getattr(model, "replay_buffer", None) or model.rollout_buffer
    env = model.get_env()
    if isinstance(env, WorldsVecEnv) and isinstance(env.worlds, GymnasiumVectorEnv):
        return np.asarray(model._last_obs, np.float32)
    count = buffer.size()
    rows = np.reshape(buffer.observations, (-1, buffer.observations.shape[-1]))[max(0, count - ROWS) : count]
    if len(rows) >= MIN_PAIRS and (isinstance(buffer, ReplayBuffer) or buffer.full):
        return np.asarray(rows, np.float32)
    shape = (MIN_PAIRS, *(model.observation_space.shape or ()))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def export(
    model: Any,
    recipe: Recipe,
    folder: Path,
    factory: Game,
    env: WorldsVecEnv | RowsSpec,
    config: Config,
    options: Any,
    rows: NDArray[np.float32] | None = None,
    before: NumpyPolicy | None = None,
) -> Path:
    """Write the saved policy and check that it answers as the model does.

    Args:
        rows: what the model sees, for statistics and golden pairs; None: it plays on in ``env`` for them.
        before: the saved policy that the learning went on with.
    """
    manifest: dict[str, Any] = {
        "name": config.train.algorithm if config.train else "ppo",
        "campaign": {"name": factory.name, "version": factory.version},
        "spaces": saved_policy.describe(*env.world_spaces),
        "network": actor_network(model),
        "deterministic": options.deterministic,
        "decisions": model.num_timesteps,
        "seed": config.seed,
        "config_hash": config_hash(config),
        "game_hash": game_hash(config, factory),
        **provenance(),
    }
    manifest |= recipe.manifest(options)
    if before is not None:
        manifest["start"] = {"digest": before.digest, "decisions": (before.manifest.model_extra or {}).get("decisions")}
    _remove_unfinished(folder)  # of a training that was killed while it wrote
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent.resolve()) as temporary:
            own, action = _own_spaces(factory, env)
            made = plain.plain(model, own, action)
            files = [Path(temporary) / (plain.MODEL if plain.own_policy(model) else plain.PLAIN)]
            plain.save(made, files[0])
            if not plain.own_policy(model):
                files.append(Path(temporary) / plain.MODEL)
                model.save(files[1], exclude=plain.UNFINISHED)
            if rows is None:
                assert isinstance(env, WorldsVecEnv)
                rows = played_rows(model, env, options.deterministic)
            masks = rows[:, env.n_obs : env.n_obs + env.n_mask] > 0.5 if recipe.mask_in_row and env.n_mask else None
            saved_policy.save(folder, actor_weights(model), manifest, rows[:, : env.n_obs], masks, files=files)
    except KeyboardInterrupt:
        _remove_unfinished(folder)  # it may have struck while that was being removed
        raise
    policy = saved_policy.load(folder, deterministic=True)
    check_same_answers(model, policy)
    check_same_answers(model, policy, rows)
    check_plain_answers(made, policy, own, rows[:, : env.n_obs])
    return folder


def _own_spaces(factory: Game, env: WorldsVecEnv | RowsSpec) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
    """Of the environment, before its observations are put in a row."""
    if not rewarded(factory):
        return env.world_spaces
    return factory.own_observation_space or factory.observation_space, factory.action_space


def _remove_unfinished(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left)


def _require_device(name: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0], True):
        raise ConfigError(
            f"{name!r} is asked for, but PyTorch sees none here: set it to cpu", ("train", "options", "device")
        )
