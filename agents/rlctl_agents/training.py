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
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.utils import set_random_seed

from rlctl.bundle.manifest import MIN_PAIRS
from rlctl.core.campaign_factory import CampaignFactory
from rlctl.core.errors import ConfigError, EnvironmentFault, RanksLostError
from rlctl.distributed.actor.env_guard import BrokenEnvironmentError
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.distributed.learner.context import LearnerContext
from rlctl.environments.campaign_vector_env import CampaignVectorEnv
from rlctl.environments.residual import ResidualVectorActions
from rlctl.plugins.registry import configured_game, load_policy
from rlctl.system.interrupts import requested_by_signals
from rlctl_agents.algorithm import OPTIONS, LearnerOptions
from rlctl_agents.builders import Setting, make_model, model_class
from rlctl_agents.bundle_export import export_policy
from rlctl_agents.callback import TrainingCallback
from rlctl_agents.checkpoint_choice import Candidates
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.pull import Pull
from rlctl_agents.rule_start import start_as, started
from rlctl_agents.starting_policy import begin_as, starting_policy, starting_rule
from rlctl_agents.training_board import TrainingBoard
from rlctl_agents.training_checkpoint import Checkpoint, Checkpoints, CpuClock
from rlctl_agents.vec_env import RemoteEnvSpec, TrainingVecEnv

if TYPE_CHECKING:
    from rlctl.config.schema import Config
    from rlctl.core.policy import Policy
    from rlctl.environments.reward_env import Game
    from rlctl.monitoring.progress import Progress

log = logging.getLogger(__name__)

ROWS = 2048
"""That statistics and golden pairs are made of."""


def train(
    config: Config,
    options: LearnerOptions,
    out: Path,
    resume: bool,
    progress: Progress,
    ranks: LearnerContext | None = None,
) -> Path | None:
    """Train into the folder ``out``.

    It leaves ``out/tensorboard``, ``out/checkpoints`` and the saved policy ``out/policy`` with Stable-Baselines3's
    ``model.zip`` beside the weights, and ``model_plain.zip`` where that needs classes of rlctl's. SIGTERM and Ctrl-C
    write a checkpoint first. Where it starts as a rule, ``out/start`` is the policy that imitates it.

    Args:
        options: of the algorithm.
        resume: go on from the newest checkpoint in ``out``, if there is one, up to the same total of decisions.
        ranks: where a learner's rank calls this; None: everything happens in this process.

    Returns:
        The folder of the saved policy; on ranks None where the learner was asked to stop, or is not the first.

    Raises:
        ConfigError: the configuration cannot be used, or does not fit the checkpoint.
        KeyboardInterrupt: it was stopped; the checkpoint is written. Not raised on ranks.
    """
    section, context = config.training, LearnerContext() if ranks is None else ranks
    _require_device(options.device)
    before = starting_policy(config, options)
    torch.set_num_threads(options.threads)
    seed = config.seed if section.seed is None else section.seed
    checkpoints = Checkpoints(out / "checkpoints", config)
    if not resume:
        checkpoints.require_none()
    start = checkpoints.newest()
    done = start.decisions if start else 0
    checkpoints.clock = CpuClock(0 if ranks is None else ranks.ranks, start.cpu_seconds if start else 0.0)
    checkpoints.rule = start.rule if start else None

    factory = configured_game(config)
    # Where environments cannot be saved, a resumed training goes on in new ones.
    entropy = [seed, done] if ranks is None else [seed, done, ranks.agent, ranks.number]
    sequence = np.random.SeedSequence(entropy).generate_state(2)
    env, centre = _environments(options, config, factory, int(sequence[0]), ranks)
    played = factory if isinstance(factory, CampaignFactory) and factory.has_twin else None
    candidates = Candidates(out / "candidates", config, played if context.first else None)
    collector = context.collector
    kind = model_class(options, from_actors=collector is not None)
    try:
        set_random_seed(int(sequence[1]))
        if start:
            model = kind.load(start.model, env=env, device=options.device, force_reset=False)
        else:
            environments = env.num_envs if ranks is None else ranks.environments
            setting = Setting(env, centre, environments, context.count, factory, config.seed)
            model = make_model(kind, options, setting)
            model.action_space.seed(int(sequence[1]))
            if before is not None:
                begin_as(model, before)
            checkpoints.rule = starting_rule(config, options, factory) if context.first else None
            if checkpoints.rule is not None:
                with requested_by_signals(context.stop.request, once=True) if ranks is None else nullcontext():
                    start_as(model, checkpoints.rule, options, config, int(sequence[0]), progress, context.stop)
            if context.total(int(context.stop.asked)):
                if ranks is None:
                    raise KeyboardInterrupt
                return None
            model.num_timesteps = done = context.total(model.num_timesteps)
        if collector is not None:
            if start and context.number < len(start.actors):
                collector.restore(start.actors[context.number], env.layout)
            model.attach(context, options)
        pull = None
        if isinstance(options, OnPolicyOptions) and context.total(int(checkpoints.rule is not None)):
            pull = checkpoints.pull = Pull(model, options, section.decisions)
            if collector is not None:
                model.pull = pull
        if start:
            _go_on(model, start, env, pull)
        if start is None and checkpoints.rule is not None:
            out.mkdir(parents=True, exist_ok=True)
            # It may be of a training that was killed before its first checkpoint.
            shutil.rmtree(out / "start", ignore_errors=True)
            rows = None if ranks is None else _seen(model)
            export_policy(model, options, out / "start", factory, env, config, rows)
        resumed = start.decisions if start else 0
        board = TrainingBoard(out / "tensorboard", config, factory, resumed) if context.first else None
        model.set_logger(Logger(None, [board] if board else []))

        def deployed(model: Any) -> Policy:
            # The environments are in use: the policy is checked on what they show now.
            seen = _seen(model)
            rows = np.resize(seen, (max(len(seen), MIN_PAIRS), seen.shape[1]))
            with tempfile.TemporaryDirectory(prefix=".policy-", dir=out.resolve()) as folder:
                saved = export_policy(model, options, Path(folder) / "policy", factory, env, config, rows)
                return load_policy(config, str(saved))

        callback = TrainingCallback(
            checkpoints, section.checkpoint_decisions, progress, options.threads, board, deployed, context, candidates,
            None if collector is not None else pull, fresh=start is None,
        )  # fmt: skip
        if context.first:
            progress.start("training", section.decisions, "decisions", done)
        asked = False
        try:
            with requested_by_signals(context.stop.request, once=True) if ranks is None else nullcontext():
                model.learn(section.decisions - done, callback=callback, reset_num_timesteps=not done)
                asked = context.stop.asked and model.num_timesteps < section.decisions
        except (RanksLostError, BrokenEnvironmentError):
            callback.save_what_is_left()
            raise
        except EnvironmentFault as fault:
            raise EnvironmentFault(f"{fault}; {callback.keep_what_was_learned()}", fault.kind) from fault.__cause__
        except Exception:  # whatever is computed with weights that an update has made NaN
            checkpoints.require_finite(model)
            raise
        finally:
            if context.first:
                progress.stop()
            if board is not None:
                board.finish(succeeded=not asked)
            model.logger.close()
        callback.save()
        if asked and ranks is None:
            raise KeyboardInterrupt
        if asked or not context.first:
            return None
        chosen = candidates.choose(model, deployed, progress, lambda: context.stop.asked)
        more = {"cpu_seconds": checkpoints.clock.seconds(), "chosen": chosen}
        more |= started(config, factory, deployed, model, before, checkpoints.rule or options.rule)
        rows = None if ranks is None else _seen(model)  # elsewhere a step may take hours
        return export_policy(model, options, out / "policy", factory, env, config, rows, more)
    finally:
        env.close()
        torch.set_num_threads(options.threads)  # the twin may have set them, see TrainingCallback


def _environments(
    options: LearnerOptions, config: Config, factory: Game, seed: int, ranks: LearnerContext | None
) -> tuple[RemoteEnvSpec, tuple[int, ...]]:
    """What the algorithm learns from, and the choices that mean "as the rule says"; none without a rule."""
    vector: Any = None
    centre: tuple[int, ...] = ()
    if ranks is None or options.rule is not None:
        count, capacity = config.training.num_envs if ranks is None else 1, config.machine.capacity()
        if isinstance(factory, CampaignFactory):
            vector = CampaignVectorEnv(factory, count, seed, capacity)
        else:
            vector = factory.vector_env(count, seed, capacity)
        vector = options.env_setup(vector, factory.name)
    if isinstance(vector, ResidualVectorActions):
        vector.reset()  # only a decision tells
        centre = vector.centre
    if ranks is None:
        parts = {"with_mask": options.with_mask, "with_privileged": options.with_privileged}
        environments = GymnasiumVectorEnv(vector, name=f"campaign {factory.name}", **parts)
        return TrainingVecEnv(environments, options.values_truncated, options.mask_in_row), centre
    if ranks.lockstep is not None:
        return TrainingVecEnv(ranks.lockstep, options.values_truncated, options.mask_in_row), centre
    assert ranks.collector is not None
    assert ranks.spaces is not None
    return RemoteEnvSpec(ranks.collector.transition_spec, *ranks.spaces, options.mask_in_row), centre


def _go_on(model: Any, start: Checkpoint, env: RemoteEnvSpec, pull: Pull | None) -> None:
    """Restore what the checkpoint holds besides the model."""
    if isinstance(env, TrainingVecEnv):
        saved = start.environments()
        rows = None if saved is None else env.restore(saved)
        if rows is None:
            log.warning("the environments could not be saved: they begin new episodes")
            rows = env.reset()
            model._last_episode_starts = np.ones(env.num_envs, np.bool_)
        model._last_obs = rows
    start.restore(model, pull)


def _seen(model: Any) -> NDArray[np.float32]:
    """Rows that the model has seen; random ones if there are none yet."""
    buffer: Any = model.replay_buffer if isinstance(model, OffPolicyAlgorithm) else model.rollout_buffer
    env = model.get_env()
    if isinstance(env, TrainingVecEnv) and isinstance(env.environments, GymnasiumVectorEnv):
        return np.asarray(model._last_obs, np.float32)
    count = buffer.size()
    rows = np.reshape(buffer.observations, (-1, buffer.observations.shape[-1]))[max(0, count - ROWS) : count]
    if len(rows) >= MIN_PAIRS and (isinstance(buffer, ReplayBuffer) or buffer.full):
        return np.asarray(rows, np.float32)
    shape = (MIN_PAIRS, *(model.observation_space.shape or ()))
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _require_device(name: str) -> None:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name.partition(":")[0], True):
        raise ConfigError(f"{name!r} is asked for, but PyTorch sees none here: set it to cpu", (*OPTIONS, "device"))
