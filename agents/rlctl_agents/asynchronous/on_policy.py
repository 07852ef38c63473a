"""PPO from asynchronous actors: what they did under an older policy counts as much as V-trace lets it.

Only the collection of rollouts is exchanged. The update is Stable-Baselines3's own, on the current policy's
probabilities: the proximal policy is not the one that acted (Hilton et al., arXiv:2110.00641).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO, RecurrentPPO
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback

from rlctl.bundle.actions import action_heads
from rlctl.distributed.learner.metrics import lag_metrics
from rlctl_agents.asynchronous.batch import Batch
from rlctl_agents.asynchronous.episodes import ended_infos
from rlctl_agents.asynchronous.memory import Memory
from rlctl_agents.asynchronous.rollout import (
    FilledMaskableRolloutBuffer,
    FilledRecurrentRolloutBuffer,
    FilledRolloutBuffer,
)
from rlctl_agents.asynchronous.vtrace import vtrace
from rlctl_agents.snapshot import snapshot_spec, snapshot_weights

if TYPE_CHECKING:
    from rlctl.distributed.learner.experience_source import ExperienceSource

Arrays = dict[str, NDArray[Any]]
ATTACHED = ("source", "asked_to_stop", "total", "bootstrap", "_spec", "_memory")
"""Attributes that are no part of a saved model."""


def alone(count: int) -> int:
    """The sum over all learners, where there is one."""
    return count


class FromActors:
    """Mixed into an on-policy algorithm of Stable-Baselines3.

    Attributes:
        source: of chunks.
        asked_to_stop: looked at while waiting.
        total: of a number over all learners.
        waited_s: for chunks, in the last rollout.
    """

    source: ExperienceSource
    asked_to_stop: Callable[[], bool]
    total: Callable[[int], int]
    waited_s = 0.0
    bootstrap = True

    def attach(
        self,
        source: ExperienceSource,
        asked_to_stop: Callable[[], bool] = lambda: False,
        total: Callable[[int], int] = alone,
        bootstrap: bool = True,
    ) -> None:
        """Learn from these actors; needed after construction and after ``load``.

        Args:
            total: of a number, over all learners.
            bootstrap: whether a truncated episode is worth what the critic thinks of its last state.
        """
        self.source, self.asked_to_stop, self.total, self.bootstrap = source, asked_to_stop, total, bootstrap
        self._spec = snapshot_spec(self)
        self._memory = Memory()

    def publish(self) -> None:
        """Actors act by the policy as it is now."""
        self.source.publish(self._spec, snapshot_weights(self))

    def collect_rollouts(self, env: Any, callback: BaseCallback, rollout_buffer: Any, n_rollout_steps: int) -> bool:
        """Fill the buffer from chunks; False ends the training, and what has come is not learned from."""
        model = cast(Any, self)
        model.policy.set_training_mode(False)
        callback.on_rollout_start()
        if self.total(int(self.asked_to_stop())):
            return False
        self.publish()
        began_s = time.monotonic()
        chunks = self.source.next_batch(n_rollout_steps, self.asked_to_stop)
        self.waited_s = time.monotonic() - began_s
        short = sum(chunk.size for chunk in chunks) < n_rollout_steps
        if self.total(int(short)):
            return False
        batch = Batch(chunks)
        model.num_timesteps += self.total(len(batch))
        infos, dones = ended_infos(chunks)
        model._update_info_buffer(infos, dones)
        callback.update_locals(locals())
        if not callback.on_step():
            return False
        rollout_buffer.fill(self._arrays(batch))
        for name, value in lag_metrics(chunks, self.source.version).items():
            model.logger.record(name, value)
        callback.on_rollout_end()
        return True

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), *ATTACHED]  # type: ignore[misc]

    def _arrays(self, batch: Batch) -> Arrays:
        model = cast(Any, self)
        values, log_probs, last, cut, more = self._evaluate(batch)
        following = np.zeros((batch.columns, batch.longest), np.float32)
        columned = batch.columned(values)
        following[:, :-1] = columned[:, 1:]
        following[np.arange(batch.columns), batch.lengths - 1] = last
        following[batch.cut_at[:, 0], batch.cut_at[:, 1]] = cut
        flat = batch.transitions
        discounts = np.power(np.float32(model.gamma), flat["duration"]) * ~flat["terminated"]
        if not self.bootstrap:
            discounts = discounts * ~flat["truncated"]
        targets, advantages = vtrace(
            batch.columned(log_probs - flat["log_prob"]).T,
            columned.T,
            following.T,
            batch.columned(flat["reward"]).T,
            batch.columned(discounts.astype(np.float32)).T,
            batch.goes_on,
            model.gae_lambda,
        )
        return {
            "observations": batch.observations,
            "actions": batch.actions.astype(model.action_space.dtype),
            "values": values,
            "log_probs": log_probs,
            "returns": batch.flattened(targets.T),
            "advantages": batch.flattened(advantages.T),
            **more,
        }

    def _evaluate(self, batch: Batch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], Arrays]:
        """Values [N], log-probabilities [N], values of the last rows and of the cut rows, further arrays."""
        policy = cast(Any, self).policy
        rows = self._tensor(np.concatenate([batch.observations, batch.last_observations, batch.cut_observations]))
        n, columns = len(batch), batch.columns
        with torch.no_grad():
            values = policy.predict_values(rows).flatten().cpu().numpy()
            log_probs = policy.get_distribution(rows[:n]).log_prob(self._actions(batch)).cpu().numpy()
        return values[:n], log_probs, values[n : n + columns], values[n + columns :], {}

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(array), device=cast(Any, self).device)

    def _actions(self, batch: Batch) -> torch.Tensor:
        actions = self._tensor(batch.actions)
        return actions.long().flatten() if isinstance(cast(Any, self).action_space, spaces.Discrete) else actions


class AsyncPPO(FromActors, PPO):
    """PPO from the chunks of actors."""

    def _setup_model(self) -> None:
        self.rollout_buffer_class = FilledRolloutBuffer
        super()._setup_model()


class AsyncMaskablePPO(FromActors, MaskablePPO):
    """MaskablePPO from the chunks of actors, whose rows hold the mask behind the observation, if there is one."""

    def _setup_model(self) -> None:
        self.rollout_buffer_class = FilledMaskableRolloutBuffer
        super()._setup_model()

    def collect_rollouts(
        self,
        env: Any,
        callback: BaseCallback,
        rollout_buffer: Any,
        n_rollout_steps: int,
        use_masking: bool = True,
    ) -> bool:
        """As for PPO; the masks are in the rows."""
        return super().collect_rollouts(env, callback, rollout_buffer, n_rollout_steps)

    def _evaluate(self, batch: Batch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], Arrays]:
        n, columns, n_obs = len(batch), batch.columns, self.source.transition_spec.n_obs
        n_mask = self.source.transition_spec.n_mask
        rows = self._tensor(
            np.concatenate([batch.observations, batch.last_observations, batch.cut_observations])[:, :n_obs]
        )
        masks = batch.observations[:, n_obs : n_obs + n_mask]
        if not n_mask:
            masks = np.ones((n, sum(action_heads(cast(Any, self.action_space)))), np.float32)
        with torch.no_grad():
            values = self.policy.predict_values(rows).flatten().cpu().numpy()
            distribution = self.policy.get_distribution(rows[:n], action_masks=masks)
            log_probs = distribution.log_prob(self._actions(batch)).cpu().numpy()
        more = {"observations": batch.observations[:, :n_obs], "action_masks": masks}
        return values[:n], log_probs, values[n : n + columns], values[n + columns :], more


class AsyncRecurrentPPO(FromActors, RecurrentPPO):
    """RecurrentPPO from the chunks of actors, each with the actor's memory at its begin."""

    def _setup_model(self) -> None:
        super()._setup_model()
        made: Any = self.rollout_buffer
        self.rollout_buffer = FilledRecurrentRolloutBuffer(
            1,
            self.observation_space,
            self.action_space,
            (1, *made.hidden_state_shape[1:]),
            self.device,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )

    def _evaluate(self, batch: Batch) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], Arrays]:
        found = self._memory.walk(self.policy, batch, self._actions(batch))
        more: Arrays = {
            "episode_starts": batch.starts.astype(np.float32),
            "seams": batch.seams.astype(np.float32),
            **found.states,
        }
        return found.values, found.log_probs, found.last, found.cut, more
