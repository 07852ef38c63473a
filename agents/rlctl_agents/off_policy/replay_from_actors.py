"""SAC, TD3 and DQN from the chunks of asynchronous actors, which all go into the replay buffer, however old.

Only the collection is exchanged. As many updates follow as transitions came, times the configured ratio: the learner
never runs ahead of its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.type_aliases import RolloutReturn
from torch.optim import Optimizer

from rlctl.distributed.comm.chunk import lag_metrics
from rlctl_agents.gradient_averaging import average_gradients, same_weights
from rlctl_agents.off_policy.options import ReplayOptions
from rlctl_agents.policy_export import policy_spec, policy_weights
from rlctl_agents.vec_env import ended_infos

if TYPE_CHECKING:
    from rlctl.distributed.learner.collector import Collector
    from rlctl.distributed.learner.context import LearnerContext

_OVER = RolloutReturn(0, 0, continue_training=False)


class OffPolicyFromActors:
    """Mixed into an off-policy algorithm of Stable-Baselines3, whose buffer is a ``TimedReplayBuffer``.

    Attributes:
        context: of actors and fellow learners.
        updates_per_transition: gradient steps, on average.
    """

    context: LearnerContext
    collector: Collector
    updates_per_transition = 1.0
    _owed = 0.0

    def attach(self, context: LearnerContext, options: ReplayOptions) -> None:
        """Learn from these actors, with the weights of the first learner; after construction and after ``load``."""
        model = cast(Any, self)
        assert context.collector is not None
        self.context, self.collector = context, context.collector
        self.updates_per_transition = options.updates_per_decision
        model.gradient_steps = -1
        self._spec = policy_spec(self)
        if context.learners is not None:
            same_weights(model.policy.parameters(), context.learners)
            for optimizer in self.optimizers():
                average_gradients(optimizer, context.learners)

    def optimizers(self) -> Sequence[Optimizer]:
        """Those that an update steps."""
        model = cast(Any, self)
        return [model.actor.optimizer, model.critic.optimizer]

    def publish(self, at_random: bool) -> None:
        """Send actors the policy as it is now."""
        self.collector.publish(self._spec, policy_weights(self), self.exploration(), at_random)

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
        model, context = cast(Any, self), self.context
        model.policy.set_training_mode(False)
        callback.on_rollout_start()
        if context.total(int(context.stop.asked)):
            return _OVER
        self.publish(at_random=model.num_timesteps < learning_starts)
        chunks = self.collector.next_batch(train_freq.frequency, context.stop)
        if context.total(int(not chunks)):
            return _OVER
        episodes = sum(len(chunk.episode_ends) for chunk in chunks)
        count = sum(chunk.size for chunk in chunks)
        together = context.total(count)
        for chunk in chunks:
            replay_buffer.extend(chunk)
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
            for name, value in lag_metrics(chunks, self.collector.version).items():
                model.logger.record(name, value)
            model.dump_logs()
        callback.on_rollout_end()
        # Updates before the buffer holds enough are not made up for.
        if model.num_timesteps <= model.learning_starts:
            return RolloutReturn(0, episodes, continue_training=True)
        self._owed += self.updates_per_transition * together / context.count
        updates = int(self._owed)
        self._owed -= updates
        return RolloutReturn(updates, episodes, continue_training=True)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "context", "collector", "_spec"]  # type: ignore[misc]


class ActorSAC(OffPolicyFromActors, SAC):
    """SAC from the chunks of actors."""

    def optimizers(self) -> Sequence[Optimizer]:
        """That of the entropy's weight too, where it is learned."""
        entropy = self.ent_coef_optimizer
        return [*super().optimizers(), *([] if entropy is None else [entropy])]


class ActorTD3(OffPolicyFromActors, TD3):
    """TD3 from the chunks of actors."""

    def exploration(self) -> float:
        """The standard deviation of the noise."""
        return 0.0 if self.action_noise is None else float(np.mean(cast(Any, self.action_noise)._sigma))


class ActorDQN(OffPolicyFromActors, DQN):
    """DQN from the chunks of actors."""

    def optimizers(self) -> Sequence[Optimizer]:
        """That of the one network."""
        return [self.policy.optimizer]

    def exploration(self) -> float:
        """The probability of a random action."""
        return float(self.exploration_rate)
