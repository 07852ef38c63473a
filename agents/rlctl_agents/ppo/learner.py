"""Trains a policy with Stable-Baselines3's PPO on many campaigns of the twin at once."""

from __future__ import annotations

import shutil
import tempfile
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
from rlctl.errors import ConfigError
from rlctl.registry import game_factory, load_policy, make_rule
from rlctl.vector import CampaignVectorEnv
from rlctl_agents.ppo.board import TrainingBoard
from rlctl_agents.ppo.callback import Stop, TrainingCallback
from rlctl_agents.ppo.checkpoint import Checkpoints
from rlctl_agents.ppo.export import actor_network, actor_weights, check_same_answers, played_rows
from rlctl_agents.ppo.network import PrivilegedPolicy
from rlctl_agents.ppo.options import RESIDUAL, Options, require_bias
from rlctl_agents.ppo.vec_env import SB3VecEnv

if TYPE_CHECKING:
    from rlctl.config import Config
    from rlctl.monitoring.progress import Progress
    from rlctl.policy import Policy
    from rlctl.rewarded import Game

FAVOUR = 4.0
"""Initial logit of "as the rule says", in each head, above that of every other choice."""
_UNFINISHED = ("_last_obs", "_last_episode_starts", "_last_original_obs", "ep_info_buffer", "ep_success_buffer")
"""What PPO was in the midst of; nobody who loads the model needs it."""


def train(config: Config, out: Path, resume: bool, progress: Progress) -> Path:
    """Train into the folder ``out``; what stands in ``rlctl.learners`` as ``ppo``.

    It leaves ``out/tensorboard``, ``out/checkpoints`` and the saved policy ``out/policy`` with Stable-Baselines3's
    ``model.zip`` beside the weights. SIGTERM and Ctrl-C write a checkpoint first.

    Args:
        resume: go on from the newest checkpoint in ``out``, if there is one, up to the same total of decisions.

    Returns:
        The folder of the saved policy.

    Raises:
        ConfigError: the configuration cannot be used, or does not fit the checkpoint.
        KeyboardInterrupt: it was stopped; the checkpoint is written.
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
    # A resumed training goes on in new campaigns: what was in progress in the old ones is lost.
    sequence = np.random.SeedSequence([seed, done]).generate_state(2)
    vector = factory.vector_env(section.num_envs, int(sequence[0]), config.machine.capacity())
    if hasattr(vector, "gamma"):
        vector.gamma = options.gamma
    if options.residual is not None:
        if not isinstance(vector, CampaignVectorEnv):
            raise ConfigError(f"campaign {factory.name!r} does not offer it: leave it out", RESIDUAL)
        vector.residual = make_rule(options.residual, "residual", RESIDUAL)
    env = SB3VecEnv(vector, options.bootstrap)
    try:
        set_random_seed(int(sequence[1]))
        model = PPO.load(start.model, env=env, device=options.device) if start else _new_model(env, options)
        board = TrainingBoard(out / "tensorboard", config, factory, done)
        model.set_logger(Logger(None, [board]))

        def deployed(model: PPO) -> Policy:
            # The environments are in use: the policy is checked on what they show now.
            seen = np.asarray(model._last_obs)
            rows = np.resize(seen, (max(len(seen), MIN_PAIRS), seen.shape[1]))
            with tempfile.TemporaryDirectory(prefix=".policy-", dir=out) as folder:
                saved = export(model, Path(folder) / "policy", factory, env, config, options, rows)
                return load_policy(config, str(saved))

        callback = TrainingCallback(
            checkpoints, section.checkpoint_decisions, progress, options.threads, board, deployed
        )
        progress.start("training", section.decisions, "decisions", done)
        try:
            with Stop() as stop:
                callback.stop = stop
                model.learn(section.decisions - done, callback=callback, reset_num_timesteps=not done)
        finally:
            progress.stop()
            board.finish(succeeded=not stop.asked)
            model.logger.close()
        if stop.asked:
            checkpoints.save(model)
            raise KeyboardInterrupt
        checkpoints.save(model)
        return export(model, out / "policy", factory, env, config, options)
    finally:
        env.close()
        torch.set_num_threads(options.threads)  # the twin may have set them, see TrainingCallback


def export(
    model: PPO,
    folder: Path,
    factory: Game,
    env: SB3VecEnv,
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
        "spaces": saved_policy.describe(env.env.single_observation_space, env.env.single_action_space),
        "network": actor_network(model, options.observation_clip),
        "deterministic": options.deterministic,
        "decisions": model.num_timesteps,
        "seed": config.seed,
        "config_hash": config_hash(config),
        **provenance(),
    }
    if options.residual is not None:
        manifest["residual"] = options.residual.model_dump()
    for left in folder.parent.glob(f".{folder.name}-*"):  # of a training that was killed while it wrote
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as temporary:
        zipped = Path(temporary) / "model.zip"
        model.save(zipped, exclude=_UNFINISHED)
        rows = played_rows(model, env, options.deterministic) if rows is None else rows
        masks = rows[:, env.n_obs : env.n_obs + env.n_mask] > 0.5
        saved_policy.save(folder, actor_weights(model), manifest, rows[:, : env.n_obs], masks, files=[zipped])
    policy = saved_policy.load(folder, deterministic=True)
    check_same_answers(model, policy)
    check_same_answers(model, policy, rows)
    return folder


def _new_model(env: SB3VecEnv, options: Options) -> PPO:
    require_bias(options, env.n_mask)
    bias = options.logit_bias or _favoured(env)
    rate = options.learning_rate
    return PPO(
        PrivilegedPolicy,
        env,
        learning_rate=LinearSchedule(rate, rate * options.final_learning_rate, 1.0),
        n_steps=options.n_steps,
        batch_size=min(options.batch_size, options.n_steps * env.num_envs),
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


def _favoured(env: SB3VecEnv) -> list[float]:
    """Biases that make a policy around a rule begin mostly as the rule; none for other policies."""
    vector = env.env
    if not isinstance(vector, CampaignVectorEnv) or not vector.centre:
        return []
    return [FAVOUR if i == c else 0.0 for n, c in zip(env.heads, vector.centre, strict=True) for i in range(n)]
