"""Trains a policy with Stable-Baselines3's PPO on many campaigns of the twin at once."""

from __future__ import annotations

import logging
import shutil
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.utils import LinearSchedule, set_random_seed

from rlctl import saved_policy
from rlctl.bundle.manifest import MIN_PAIRS
from rlctl.config import check_options, config_hash, provenance
from rlctl.distributed.lockstep import RemoteWorlds
from rlctl.distributed.roster import ActorsLostError
from rlctl.distributed.worlds import VectorWorlds
from rlctl.errors import ConfigError
from rlctl.registry import game_factory, load_policy
from rlctl_agents.asynchronous.on_policy import AsyncPPO, alone
from rlctl_agents.asynchronous.several import ParallelPPO
from rlctl_agents.checkpoint import Checkpoint, Checkpoints
from rlctl_agents.ppo.board import TrainingBoard
from rlctl_agents.ppo.callback import Stop, TrainingCallback
from rlctl_agents.ppo.export import actor_network, actor_weights, check_same_answers, played_rows
from rlctl_agents.ppo.network import PrivilegedPolicy
from rlctl_agents.ppo.options import Options, require_bias
from rlctl_agents.ppo.preparation import preparation
from rlctl_agents.ppo.vec_env import RowsSpec, WorldsVecEnv

if TYPE_CHECKING:
    from rlctl.config import Config
    from rlctl.distributed.layout import Layout
    from rlctl.distributed.ranks import Ranks
    from rlctl.monitoring.progress import Progress
    from rlctl.policy import Policy
    from rlctl.rewarded import Game

log = logging.getLogger(__name__)

FAVOUR = 4.0
"""Initial logit of "as the rule says", in each head, above that of every other choice."""
_UNFINISHED = ("_last_obs", "_last_episode_starts", "_last_original_obs", "ep_info_buffer", "ep_success_buffer")
"""What PPO was in the midst of; nobody who loads the model needs it."""


def train(config: Config, out: Path, resume: bool, progress: Progress, ranks: Ranks | None = None) -> Path | None:
    """Train into the folder ``out``; what stands in ``rlctl.learners`` as ``ppo``.

    It leaves ``out/tensorboard``, ``out/checkpoints`` and the saved policy ``out/policy`` with Stable-Baselines3's
    ``model.zip`` beside the weights. SIGTERM and Ctrl-C write a checkpoint first.

    Args:
        resume: go on from the newest checkpoint in ``out``, if there is one, up to the same total of decisions.
        ranks: where a learner's rank calls this; None: everything happens in this process.

    Returns:
        The folder of the saved policy; on ranks None where the learner was asked to stop, or is not the first.

    Raises:
        ConfigError: the configuration cannot be used, or does not fit the checkpoint.
        KeyboardInterrupt: it was stopped; the checkpoint is written. Not raised on ranks.
    """
    if config.train is None:
        raise ConfigError("the configuration has no section 'train'")
    section, options = config.train, check_options(Options, config.train.options, "train.options")
    _require_device(options.device)
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
    env, centre = _environments(config, factory, options, int(sequence[0]), ranks)
    try:
        set_random_seed(int(sequence[1]))
        kind = PPO if ranks is None or ranks.collector is None else AsyncPPO if ranks.learners is None else ParallelPPO
        if start:
            model = kind.load(start.model, env=env, device=options.device, force_reset=False)
        else:
            model = _new_model(kind, env, options, centre, ranks)
        if isinstance(model, AsyncPPO) and ranks is not None:
            _attach(model, ranks, start, env.layout, options)
        if start:
            _go_on(model, start, env)
        first = ranks is None or ranks.first
        board = TrainingBoard(out / "tensorboard", config, factory, done) if first else None
        model.set_logger(Logger(None, [board] if board else []))

        def deployed(model: PPO) -> Policy:
            # The environments are in use: the policy is checked on what they show now.
            seen = _seen(model)
            rows = np.resize(seen, (max(len(seen), MIN_PAIRS), seen.shape[1]))
            with tempfile.TemporaryDirectory(prefix=".policy-", dir=out) as folder:
                saved = export(model, Path(folder) / "policy", factory, env, config, options, rows)
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
        except ActorsLostError:
            callback.save()
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
        rows = _seen(model) if isinstance(model, AsyncPPO) else None
        return export(model, out / "policy", factory, env, config, options, rows)
    finally:
        env.close()
        torch.set_num_threads(options.threads)  # the twin may have set them, see TrainingCallback


def _environments(
    config: Config, factory: Game, options: Options, seed: int, ranks: Ranks | None
) -> tuple[WorldsVecEnv | RowsSpec, tuple[int, ...]]:
    """What the algorithm learns from, and the choices that mean "as the rule says", if there is a rule."""
    prepare = preparation(options)
    if ranks is None:
        section = config.train
        assert section is not None
        vector = factory.vector_env(section.num_envs, seed, config.machine.capacity())
        centre = prepare(vector, factory.name)
        return WorldsVecEnv(VectorWorlds(vector), options.bootstrap), centre
    centre = ()
    if options.residual is not None:
        centre = prepare(factory.vector_env(1, seed, config.machine.capacity()), factory.name)
    if ranks.collector is None:
        return WorldsVecEnv(RemoteWorlds(ranks.comm, ranks.workers, ranks.limit_s), options.bootstrap), centre
    assert ranks.spaces is not None
    return RowsSpec(ranks.collector.layout, *ranks.spaces), centre


def _attach(model: AsyncPPO, ranks: Ranks, start: Checkpoint | None, layout: Layout, options: Options) -> None:
    assert ranks.collector is not None
    if start is not None:
        states = start.actors
        if ranks.number < len(states):
            ranks.collector.restore(states[ranks.number], layout)
    total = alone if ranks.learners is None else ranks.learners.total
    model.attach(ranks.collector, ranks.stop, total, options.bootstrap)
    if isinstance(model, ParallelPPO) and ranks.learners is not None:
        model.join(ranks.learners)


def _go_on(model: PPO, start: Checkpoint, env: WorldsVecEnv | RowsSpec) -> None:
    """Take up what the checkpoint holds besides the model."""
    if isinstance(env, WorldsVecEnv):
        saved = start.environments()
        rows = None if saved is None else env.worlds.restore(saved)
        if rows is None:
            log.warning("the environments could not be saved: they begin new episodes")
            rows = env.reset()
            model._last_episode_starts = np.ones(env.num_envs, np.bool_)
        model._last_obs = rows
    start.restore(model)


def _seen(model: PPO) -> NDArray[np.float32]:
    """Some rows that the model has seen."""
    if not isinstance(model, AsyncPPO):
        return np.asarray(model._last_obs)
    buffer = model.rollout_buffer
    if buffer.full and len(buffer.observations) >= MIN_PAIRS:
        return np.asarray(buffer.observations[-2048:], np.float32)
    # Nothing yet: ``model`` is as it was made.
    shape = (MIN_PAIRS, *(model.observation_space.shape or ()))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def export(
    model: PPO,
    folder: Path,
    factory: Game,
    env: WorldsVecEnv | RowsSpec,
    config: Config,
    options: Options,
    rows: NDArray[np.float32] | None = None,
) -> Path:
    """Write the saved policy and check that it answers as the model does.

    Args:
        rows: what the model sees, for statistics and golden pairs; None: it plays on in ``env`` for them.
    """
    manifest: dict[str, Any] = {
        "name": config.train.algorithm if config.train else "ppo",
        "campaign": {"name": factory.name, "version": factory.version},
        "spaces": saved_policy.describe(*env.world_spaces),
        "network": actor_network(model, options.observation_clip),
        "deterministic": options.deterministic,
        "decisions": model.num_timesteps,
        "seed": config.seed,
        "config_hash": config_hash(config),
        **provenance(),
    }
    if options.residual is not None:
        manifest["residual"] = options.residual.model_dump()
    _remove_unfinished(folder)  # of a training that was killed while it wrote
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
            zipped = Path(temporary) / "model.zip"
            model.save(zipped, exclude=_UNFINISHED)
            rows = played_rows(model, env, options.deterministic) if rows is None else rows
            masks = rows[:, env.n_obs : env.n_obs + env.n_mask] > 0.5
            saved_policy.save(folder, actor_weights(model), manifest, rows[:, : env.n_obs], masks, files=[zipped])
    except KeyboardInterrupt:
        _remove_unfinished(folder)  # it may have struck while that was being removed
        raise
    policy = saved_policy.load(folder, deterministic=True)
    check_same_answers(model, policy)
    check_same_answers(model, policy, rows)
    return folder


def _remove_unfinished(folder: Path) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):
        shutil.rmtree(left)


def _new_model(
    kind: type[PPO], env: WorldsVecEnv | RowsSpec, options: Options, centre: tuple[int, ...], ranks: Ranks | None
) -> PPO:
    require_bias(options, env.n_mask)
    bias = options.logit_bias or _favoured(env, centre)
    rate = options.learning_rate
    environments = env.num_envs if ranks is None else ranks.environments
    learners = 1 if ranks is None or ranks.learners is None else ranks.learners.size
    n_steps = options.n_steps * environments // env.num_envs
    return kind(
        PrivilegedPolicy,
        env,
        learning_rate=LinearSchedule(rate, rate * options.final_learning_rate, 1.0),
        n_steps=n_steps,
        batch_size=max(2, min(options.batch_size // learners, n_steps * env.num_envs)),
        n_epochs=options.n_epochs,
        gamma=options.gamma,
        gae_lambda=options.gae_lambda,
        clip_range=options.clip,
        ent_coef=options.ent_coef,
        vf_coef=options.vf_coef,
        max_grad_norm=options.max_grad_norm,
        policy_kwargs={
            "n_obs": env.n_obs,
            "n_mask": env.n_mask,
            "net_arch": options.net_arch,
            "logit_bias": bias or None,
            "observation_clip": options.observation_clip,
            "optimizer_kwargs": {"eps": 1e-5, "fused": True},
        },
        device=options.device,
    )


def _require_device(name: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0], True):
        raise ConfigError(
            f"{name!r} is asked for, but PyTorch sees none here: set it to cpu", ("train", "options", "device")
        )


def _favoured(env: WorldsVecEnv | RowsSpec, centre: tuple[int, ...]) -> list[float]:
    """Biases that make a policy around a rule begin mostly as the rule; none for other policies."""
    if not centre:
        return []
    return [FAVOUR if i == c else 0.0 for n, c in zip(env.heads, centre, strict=True) for i in range(n)]
