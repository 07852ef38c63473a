"""SAC, TD3 and DQN from asynchronous actors: what they send goes into the replay buffer, however old.

Only the collection is exchanged. As many updates follow as transitions came, times the configured ratio: the learner
never runs ahead of its data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutReturn

from rlctl.distributed.learner.metrics import lag_metrics
from rlctl_agents.asynchronous.episodes import ended_infos
from rlctl_agents.asynchronous.on_policy import ATTACHED, alone
from rlctl_agents.asynchronous.several import Reducer, average_gradients, same_weights
from rlctl_agents.snapshot import snapshot_spec, snapshot_weights

if TYPE_CHECKING:
    from rlctl.distributed.learner.experience_source import ExperienceSource

_OVER = RolloutReturn(0, 0, continue_training=False)


class ReplayedFromActors:
    """Mixed into an off-policy algorithm of Stable-Baselines3, whose buffer is a ``TimedReplayBuffer``.

    Attributes:
        updates_per_transition: gradient steps, on average.
    """

    source: ExperienceSource
    asked_to_stop: Callable[[], bool]
    total: Callable[[int], int]
    updates_per_transition = 1.0
    learners = 1
    _owed = 0.0

    def attach(
        self,
        source: ExperienceSource,
        asked_to_stop: Callable[[], bool] = lambda: False,
        total: Callable[[int], int] = alone,
        updates_per_transition: float = 1.0,
    ) -> None:
        """Learn from these actors; needed after construction and after ``load``.

        Args:
            total: of a number, over all learners.
        """
        self.source, self.asked_to_stop, self.total = source, asked_to_stop, total
        self.updates_per_transition = updates_per_transition
        cast(Any, self).gradient_steps = -1
        self._spec = snapshot_spec(self)

    def join(self, reducer: Reducer) -> None:
        """Learn together with others; all begin with the weights of the first."""
        model = cast(Any, self)
        self.learners = reducer.size
        same_weights(model.policy.parameters(), reducer)
        optimizers = {
            id(o): o
            for o in (
                getattr(model.policy, "optimizer", None),
                getattr(getattr(model, "actor", None), "optimizer", None),
                getattr(getattr(model, "critic", None), "optimizer", None),
                getattr(model, "ent_coef_optimizer", None),
            )
            if o is not None
        }
        for optimizer in optimizers.values():
            average_gradients(optimizer, reducer)

    def publish(self, at_random: bool) -> None:
        """Actors act by the policy as it is now."""
        self.source.publish(self._spec, snapshot_weights(self), self.exploration(), at_random)

    def exploration(self) -> float:
        """A probability of a random action, or a standard deviation; see ``rlctl.distributed.actor.numpy_policies``."""
        return 0.0

    def collect_rollouts(
        self,
        env: Any,
        callback: BaseCallback,
        train_freq: Any,
        replay_buffer: Any,
        action_noise: Any = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Take what has come, at least as much as the algorithm wants between two updates."""
        model = cast(Any, self)
        model.policy.set_training_mode(False)
        callback.on_rollout_start()
        if self.total(int(self.asked_to_stop())):
            return _OVER
        self.publish(at_random=model.num_timesteps < learning_starts)
        chunks = self.source.next_batch(train_freq.frequency, self.asked_to_stop)
        if self.total(int(not chunks)):
            return _OVER
        episodes = 0
        count = sum(chunk.size for chunk in chunks)
        together = self.total(count)
        for chunk in chunks:
            replay_buffer.extend(chunk)
            episodes += len(chunk.episode_ends)
        model.num_timesteps += together
        infos, dones = ended_infos(chunks)
        model._update_info_buffer(infos, dones)
        callback.update_locals(locals())
        if not callback.on_step():
            return _OVER
        model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
        for _ in range(count):
            model._on_step()
        before = model._episode_num
        model._episode_num += episodes
        if log_interval is not None and model._episode_num // log_interval > before // log_interval:
            for name, value in lag_metrics(chunks, self.source.version).items():
                model.logger.record(name, value)
            model.dump_logs()
        callback.on_rollout_end()
        # Updates before the buffer holds enough are not made up for.
        if model.num_timesteps <= model.learning_starts:
            return RolloutReturn(0, episodes, continue_training=True)
        self._owed += self.updates_per_transition * together / self.learners
        updates = int(self._owed)
        self._owed -= updates
        return RolloutReturn(updates, episodes, continue_training=True)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *ATTACHED]  # type: ignore[misc]


class AsyncSAC(ReplayedFromActors, SAC):
    """SAC from the chunks of actors."""


class AsyncTD3(ReplayedFromActors, TD3):
    """TD3 from the chunks of actors."""

    def exploration(self) -> float:
        """The standard deviation of the noise."""
        return 0.0 if self.action_noise is None else float(np.mean(cast(Any, self.action_noise)._sigma))


class AsyncDQN(ReplayedFromActors, DQN):
    """DQN from the chunks of actors."""

    def exploration(self) -> float:
        """The probability of a random action."""
        return float(self.exploration_rate)
