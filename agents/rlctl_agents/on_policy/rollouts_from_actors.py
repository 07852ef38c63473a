"""PPO from the chunks of asynchronous actors; V-trace corrects for the older policies that they acted by.

Only the collection of rollouts is exchanged. The update is Stable-Baselines3's own, on the current policy's
probabilities: the proximal policy is not the one that acted (Hilton et al., arXiv:2110.00641).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from rlctl.distributed.comm.chunk import lag_metrics
from rlctl_agents.gradient_averaging import average_gradients, same_weights
from rlctl_agents.on_policy.chunk_batch import ChunkBatch
from rlctl_agents.on_policy.options import OnPolicyOptions
from rlctl_agents.on_policy.pull import Pull
from rlctl_agents.on_policy.rollout_buffers import FilledRolloutBuffer
from rlctl_agents.on_policy.vtrace import vtrace
from rlctl_agents.policy_export import policy_spec, policy_weights
from rlctl_agents.vec_env import ended_infos

if TYPE_CHECKING:
    from rlctl.distributed.learner.collector import Collector
    from rlctl.distributed.learner.context import LearnerContext

Arrays = dict[str, NDArray[Any]]
_ATTACHED = ("context", "collector", "bootstrap", "pull", "_spec", "_memory", "_memory_of_start")
"""Attributes that are not saved with a model."""
FIGURES = (
    *("train/policy_gradient_loss", "train/value_loss", "train/entropy_loss", "train/loss", "train/approx_kl"),
    "train/clip_fraction",
)
"""Of an update, which several learners log the mean of."""


@dataclass(slots=True)
class Evaluation:
    """What the current policy makes of a batch.

    Attributes:
        values, log_probs: [N].
        last, cut: values of the last and of the cut observations.
        more: further arrays [N, ...] for the buffer, by its names for them.
    """

    values: NDArray[np.float32]
    log_probs: NDArray[np.float32]
    last: NDArray[np.float32]
    cut: NDArray[np.float32]
    more: Arrays = field(default_factory=dict)


class OnPolicyFromActors:
    """Mixed into an on-policy algorithm of Stable-Baselines3, whose buffer is one of ``rollout_buffers``.

    Attributes:
        context: of actors and fellow learners.
        waited_s: for chunks, in the last rollout.
        pull: to the rule that the training started from, if it did.
    """

    context: LearnerContext
    collector: Collector
    waited_s = 0.0
    bootstrap = True
    pull: Pull | None = None

    def attach(self, context: LearnerContext, options: OnPolicyOptions) -> None:
        """Learn from these actors, with the weights of the first learner; after construction and after ``load``."""
        assert context.collector is not None
        self.context, self.collector, self.bootstrap = context, context.collector, options.bootstrap
        self._spec = policy_spec(self)
        model = cast(Any, self)
        if context.learners is not None and context.count > 1:
            same_weights(model.policy.parameters(), context.learners)
            buffer = model.rollout_buffer
            buffer.learners = context.learners
            average_gradients(model.policy.optimizer, context.learners, lambda: buffer.share, model.max_grad_norm)

    def publish(self) -> None:
        """Send actors the policy as it is now."""
        self.collector.publish(self._spec, policy_weights(self))

    def collect_rollouts(self, env: Any, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        """Fill the buffer from chunks; False ends the training, and what has come is not learned from."""
        model, context = cast(Any, self), self.context
        model.policy.set_training_mode(False)
        callback.on_rollout_start()
        if context.total(int(context.stop.asked)):
            return False
        self.publish()
        began_s = time.monotonic()
        chunks = self.collector.next_batch(n_rollout_steps, context.stop)
        self.waited_s = time.monotonic() - began_s
        short = sum(chunk.size for chunk in chunks) < n_rollout_steps
        if context.total(int(short)):
            return False
        batch = ChunkBatch(chunks)
        model.num_timesteps += context.total(len(batch))
        infos, dones = ended_infos(chunks)
        model._update_info_buffer(infos, dones)
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        rollout_buffer.fill(self._arrays(batch))
        for name, value in lag_metrics(chunks, self.collector.version).items():
            model.logger.record(name, value)
        callback.on_rollout_end()
        return True

    def train(self) -> None:
        """One update; several learners normalise advantages, average gradients and clip them together."""
        model, learners = cast(Any, self), self.context.learners
        if learners is None or learners.size == 1:
            super().train()  # type: ignore[misc]
            return
        clip = model.max_grad_norm
        model.max_grad_norm, model.normalize_advantage = np.inf, False
        try:
            super().train()  # type: ignore[misc]
        finally:
            model.max_grad_norm, model.normalize_advantage = clip, True
        figures = np.array([model.logger.name_to_value[name] for name in FIGURES], np.float64)
        learners.sum(figures)
        for name, figure in zip(FIGURES, figures / learners.size, strict=True):
            model.logger.record(name, figure)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *_ATTACHED]  # type: ignore[misc]

    def _arrays(self, batch: ChunkBatch) -> Arrays:
        model = cast(Any, self)
        found = self._evaluate(batch)
        following = np.zeros((batch.columns, batch.longest), np.float32)
        columned = batch.columned(found.values)
        following[:, :-1] = columned[:, 1:]
        following[np.arange(batch.columns), batch.lengths - 1] = found.last
        following[batch.cut_at[:, 0], batch.cut_at[:, 1]] = found.cut
        flat = batch.transitions
        discounts = np.power(np.float32(model.gamma), flat["duration"]) * ~flat["terminated"]
        if not self.bootstrap:
            discounts = discounts * ~flat["truncated"]

        def corrected(rewards: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            return vtrace(
                batch.columned(found.log_probs - flat["log_prob"]).T,
                columned.T,
                following.T,
                batch.columned(rewards).T,
                batch.columned(discounts.astype(np.float32)).T,
                batch.goes_on,
                model.gae_lambda,
            )

        targets, advantages = corrected(flat["reward"])
        weight = 0.0 if self.pull is None else self.pull.weight(model.num_timesteps)
        if self.pull is not None and weight > 0.0:
            difference = found.log_probs - self._under_start(self.pull, batch, found)
            model.logger.record("learning/start_kl", float(difference.mean()))
            spread = float(batch.flattened(advantages.T).std())
            targets, advantages = corrected(flat["reward"] - np.float32(weight * spread) * difference)
        return {
            "observations": batch.observations,
            "actions": batch.actions.astype(model.action_space.dtype),
            "values": found.values,
            "log_probs": found.log_probs,
            "returns": batch.flattened(targets.T),
            "advantages": batch.flattened(advantages.T),
            **found.more,
        }

    def _under_start(self, pull: Pull, batch: ChunkBatch, found: Evaluation) -> NDArray[np.float32]:
        """Log-probabilities of the actions under the policy that the training started from, [N]."""
        rows = found.more.get("observations", batch.observations)
        return pull.log_probs(rows, self._actions(batch), found.more.get("action_masks"))

    def _evaluate(self, batch: ChunkBatch) -> Evaluation:
        policy = cast(Any, self).policy
        rows = self._tensor(np.concatenate([batch.observations, batch.last_observations, batch.cut_observations]))
        with torch.no_grad():
            values = policy.predict_values(rows).flatten().cpu().numpy()
            log_probs = policy.get_distribution(rows[: len(batch)]).log_prob(self._actions(batch)).cpu().numpy()
        values, last, cut = batch.split(values)
        return Evaluation(values, log_probs, last, cut)

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=cast(Any, self).device)

    def _actions(self, batch: ChunkBatch) -> torch.Tensor:
        actions = self._tensor(batch.actions)
        return actions.long().flatten() if isinstance(cast(Any, self).action_space, spaces.Discrete) else actions


class ActorPPO(OnPolicyFromActors, PPO):
    """PPO from the chunks of actors."""

    def _setup_model(self) -> None:
        self.rollout_buffer_class = FilledRolloutBuffer
        super()._setup_model()
