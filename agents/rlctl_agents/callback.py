"""Stable-Baselines3 callback: figures for TensorBoard, progress, checkpoints, and stopping on request."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from rlctl_agents.training_board import TrainingBoard, campaign_figures, write_choices
from rlctl_agents.vec_env import TrainingVecEnv

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from rlctl.core.policy import Policy
    from rlctl.distributed.comm.transition_spec import VectorEnvironment
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.monitoring.progress import Progress
    from rlctl_agents.checkpoint_choice import Candidates
    from rlctl_agents.on_policy.pull import Pull
    from rlctl_agents.training_checkpoint import Checkpoints

EPISODES = 200  # the figures are over the last so many campaigns
HISTOGRAMS = 50  # of choices and returns, over a whole training
FIGURES = 500  # decisions between two looks at an algorithm that learns all the time
NEWEST = 2048  # decisions of a replay buffer that a histogram is made of
PATIENCE_S = 20.0
"""In which a rollout that has begun may come to its end, when the training is asked to stop."""


class TrainingCallback(BaseCallback):
    """Stable-Baselines3 calls it after each decision of all environments and around each update.

    Args:
        every: decisions between two checkpoints.
        board: None: another learner has it.
        make_policy: of the model, the policy as it would be deployed, for validation.
        context: of the learner; with neither a collector nor lock-step environments, all is in this process.
        candidates: for the policy that is saved in the end.
        pull: for rollouts that Stable-Baselines3 collects itself; None: nothing pulls.
        fresh: whether the training begins, and was not resumed.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        every: int,
        progress: Progress,
        threads: int,
        board: TrainingBoard | None,
        make_policy: Callable[[PPO], Policy],
        context: LearnerContext,
        candidates: Candidates,
        pull: Pull | None,
        fresh: bool,
    ) -> None:
        super().__init__()
        self._candidates, self._pull, self._fresh = candidates, pull, fresh
        self._threads = threads
        self._context, self._collector, self._stop = context, context.collector, context.stop
        self._checkpoints = checkpoints
        self._every = every
        self._progress = progress
        self._board = board
        self._make_policy = make_policy
        self._figures: deque[dict[str, float]] = deque(maxlen=EPISODES)
        self._in_first_campaign: set[int] = set()  # environments
        self._returns: deque[float] = deque(maxlen=EPISODES)
        self._updated_s = 0.0
        self._drawn = -1
        self._learned = 0
        self._saved = 0
        self._shown = 0
        self._note = ""
        self._over = False
        self._asked_s = 0.0

    @property
    def _environments(self) -> VectorEnvironment | None:
        env = self.model.get_env()
        return env.environments if isinstance(env, TrainingVecEnv) else None

    @property
    def _buffer(self) -> ReplayBuffer | None:
        """The replay buffer of an off-policy algorithm."""
        return self.model.replay_buffer if isinstance(self.model, OffPolicyAlgorithm) else None

    def _on_training_start(self) -> None:
        self._learned = self._saved = self._shown = self.model.num_timesteps
        if self._fresh:
            if self._learned:
                self.save()  # what imitation has taught
                self._candidates.keep(self.model)
            if self._collector is None:
                count = self.training_env.num_envs
                self._in_first_campaign = set(range(count))
                self._figures = deque(maxlen=max(EPISODES, count))
            self._validate(required=True)
        self._updated_s = time.monotonic()

    def _on_rollout_start(self) -> None:
        """An update is over: the model is whole."""
        torch.set_num_threads(self._threads)
        self._checkpoints.require_finite(self.model)
        self._advance()
        before, self._learned = self._learned, self.model.num_timesteps
        if before // self._every < self._learned // self._every:
            self._candidates.keep(self.model)  # at the same decisions, however often it was stopped
        if self._stop.asked and self._collector is None:
            self.save()
            self._over = True
        elif self._learned - self._saved >= self._every:
            self.save()
            self._saved = self._learned
            self._validate()

    def save(self) -> None:
        """Write a checkpoint; all learners do this together."""
        if self._collector is None:
            if not self._over:  # then it is saved already, before what was gathered since
                self._checkpoints.save(
                    self.model, self._environments.save() if self._environments is not None else None
                )
            return
        learners, state = self._context.learners, self._collector.state()
        states = [state] if learners is None else learners.gather(state)
        if self._context.first:
            self._checkpoints.save(self.model, None, states or ())
        if learners is not None:
            learners.barrier()
        self._collector.saved(state)

    def save_what_is_left(self) -> None:
        """Save after the loss of ranks; in lock-step only where no checkpoint is: those hold the environments too."""
        if self._collector is not None:
            self.save()
        elif self._checkpoints.none and self._learned:
            self.model.num_timesteps = self._learned
            self._checkpoints.save(self.model)

    def keep_what_was_learned(self) -> str:
        """Save what the last update left, as an environment has failed; return advice for the message."""
        if self._collector is None and self._learned > self._saved:
            self.model.num_timesteps = self._learned
            self._checkpoints.save(self.model)
        if self._checkpoints.none:
            return "correct it; nothing was learned yet"
        return "correct it, then go on with --resume: the newest checkpoint is whole"

    def _on_step(self) -> bool:
        # A twin that shares the OpenMP runtime (Numba's parallel loops do) sets its number of threads for PyTorch too;
        # operations as small as ours are several times slower on more than one.
        torch.set_num_threads(self._threads)
        if self.locals["dones"].any():
            infos = self.locals["infos"]
            ended = np.flatnonzero(self.locals["dones"])
            self._figures += [infos[i]["campaign"] for i in ended]
            self._in_first_campaign.difference_update(ended.tolist())
            self._returns += [infos[i]["episode"]["r"] for i in ended]
        if self._collector is None and self._stop.asked and not self._goes_on():
            # What this rollout has gathered is not learned from any more.
            self.model.num_timesteps = self._learned
            return False
        return True

    def _goes_on(self) -> bool:
        """Whether a rollout is gathered to its end, now that the training is to stop: then nothing of it is lost."""
        now_s = time.monotonic()
        self._asked_s = self._asked_s or now_s
        return not self._over and now_s - self._asked_s < PATIENCE_S

    def _on_rollout_end(self) -> None:
        if self._pull is not None:
            self._pull.charge(self.model)
        now_s, step = time.monotonic(), self.model.num_timesteps
        if self._buffer is not None and step - self._shown < FIGURES:
            return
        # All began together, and those that end first are the cheap ones: alone they would flatter.
        figures: dict[str, float] = {} if self._in_first_campaign else dict(campaign_figures(self._figures))
        figures["learning/decisions_per_s"] = (step - self._shown) / (now_s - self._updated_s)
        self._shown = step
        if self._collector is None:
            figures["learning/lag"] = 0.0  # what an update learns from, its own policy has decided
        else:
            figures |= self._collector.metrics()
        self._updated_s = now_s
        if self._board is None:
            return
        board = self._board.board
        if self._returns:
            figures["learning/return_std"] = float(np.std(self._returns))
        board.scalars(figures, step)
        for name in ("node_seconds", "cost"):  # its own cost, if the campaign has one
            if f"learning/{name}_per_success" in figures:
                self._note = f"{figures[f'learning/{name}_per_success']:.4g} {name.replace('_', '-')} per success"
        part = HISTOGRAMS * step // max(self.locals["total_timesteps"], 1)
        if part > self._drawn:
            self._drawn = part
            self._histograms(step)

    def _on_training_end(self) -> None:
        self._checkpoints.require_finite(self.model)
        self._advance()
        if not self._stop.asked:
            self._candidates.keep(self.model)
            self._validate(required=True)

    def _advance(self) -> None:
        if self._context.first:
            self._progress.advance(self.model.num_timesteps - self._learned, self._note)

    def _histograms(self, step: int) -> None:
        env = cast(Any, self.model.env)
        buffer = self._buffer or cast(Any, self.model).rollout_buffer
        newest = slice(max(0, buffer.pos - NEWEST), buffer.pos) if self._buffer else slice(None)
        rows = buffer.observations[newest].reshape(-1, buffer.observations.shape[-1])
        actions = buffer.actions[newest].reshape(len(rows), -1)
        assert self._board is not None
        write_choices(self._board.board, actions, rows[:, env.n_obs : env.n_obs + env.n_mask], step)
        self._board.board.histogram("learning/returns", list(self._returns), step)

    def _validate(self, required: bool = False) -> None:
        if self._board is None:
            return
        model = cast("PPO", self.model)
        decisions = model.num_timesteps
        self._board.validate(lambda: self._make_policy(model), decisions, required, lambda: self._stop.asked)
