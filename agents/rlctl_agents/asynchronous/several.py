"""Several learners of one policy: each learns from its own actors, and every step is that of all of them.

Gradients are averaged by the number of samples, so that together they are one learner with the joined batch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.utils import explained_variance
from torch.nn import functional

from rlctl.core.errors import RlctlError
from rlctl_agents.asynchronous.on_policy import AsyncMaskablePPO, AsyncPPO

COMPARED_EVERY = 100
"""Gradient steps after which the learners' weights are compared."""


class Reducer(Protocol):
    """All learners of an agent.

    Attributes:
        size: how many.
        rank: which of them this is.
    """

    size: int
    rank: int

    def sum(self, array: NDArray[Any]) -> None:
        """Replace the array by the sum over all learners."""

    def max(self, array: NDArray[Any]) -> None:
        """Replace the array by the largest over all learners, number by number."""


class OutOfStepError(RlctlError):
    """Learners whose weights are no longer the same."""


class Together:
    """Mixed into an asynchronous PPO: ``train`` is that of Stable-Baselines3 2.9, with sums over all learners."""

    reducer: Reducer | None = None
    _steps_together = 0

    def join(self, reducer: Reducer) -> None:
        """Learn together with others; all begin with the weights of the first."""
        self.reducer = reducer
        same_weights(cast(Any, self).policy.parameters(), reducer)

    def train(self) -> None:
        """One update."""
        if self.reducer is None or self.reducer.size == 1:
            super().train()  # type: ignore[misc]
            return
        model, reducer = cast(Any, self), self.reducer
        model.policy.set_training_mode(True)
        model._update_learning_rate(model.policy.optimizer)
        clip = model.clip_range(model._current_progress_remaining)
        clip_vf = None if model.clip_range_vf is None else model.clip_range_vf(model._current_progress_remaining)
        parts = np.array([model.rollout_buffer._parts(model.batch_size)])
        reducer.max(parts)
        model.rollout_buffer.minibatches = int(parts[0])
        sums = np.zeros(7)
        goes_on = True
        for _ in range(model.n_epochs):
            for data in model.rollout_buffer.get(model.batch_size):
                goes_on = self._one_step(data, clip, clip_vf, sums)
                if not goes_on:
                    break
            model._n_updates += 1
            if not goes_on:
                break
        model.rollout_buffer.minibatches = None
        self._log(sums, clip, clip_vf)

    def _one_step(self, data: Any, clip: float, clip_vf: float | None, sums: NDArray[np.float64]) -> bool:
        """A minibatch; False if the policy has gone too far for another one."""
        model, reducer = cast(Any, self), cast(Reducer, self.reducer)
        actions = data.actions
        if isinstance(model.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, entropy = self._judge(data, actions)
        values = values.flatten()
        advantages = data.advantages
        moments = np.array(
            [len(advantages), advantages.double().sum().item(), advantages.double().square().sum().item()]
        )
        reducer.sum(moments)
        everyone, total, squares = moments
        if model.normalize_advantage and everyone > 1:
            mean = total / everyone
            spread = np.sqrt(max(squares - everyone * mean**2, 0.0) / (everyone - 1.0))
            advantages = (advantages - mean) / (spread + 1e-8)
        ratio = torch.exp(log_prob - data.old_log_prob)
        surrogate = torch.min(advantages * ratio, advantages * torch.clamp(ratio, 1 - clip, 1 + clip))
        policy_loss = -surrogate.mean()
        if clip_vf is not None:
            values = data.old_values + torch.clamp(values - data.old_values, -clip_vf, clip_vf)
        value_loss = functional.mse_loss(data.returns, values)
        entropy_loss = -torch.mean(-log_prob) if entropy is None else -torch.mean(entropy)
        loss = policy_loss + model.ent_coef * entropy_loss + model.vf_coef * value_loss
        with torch.no_grad():
            log_ratio = log_prob - data.old_log_prob
            kl = torch.mean((torch.exp(log_ratio) - 1) - log_ratio).item()
            clipped = torch.mean((torch.abs(ratio - 1) > clip).float()).item()
        share = len(data.advantages) / everyone
        model.policy.optimizer.zero_grad()
        (loss * share).backward()
        parameters = [p for p in model.policy.parameters() if p.grad is not None]
        gradient = _flat(p.grad for p in parameters)
        figures = share * np.array(
            [policy_loss.item(), value_loss.item(), entropy_loss.item(), loss.item(), kl, clipped], np.float64
        )
        everything = np.concatenate([gradient, figures.astype(np.float32)])
        reducer.sum(everything)
        figures = everything[len(gradient) :].astype(np.float64)
        sums[:6] += figures
        sums[6] += 1
        if model.target_kl is not None and figures[4] > 1.5 * model.target_kl:
            return False
        _put((p.grad for p in parameters), everything[: len(gradient)])
        torch.nn.utils.clip_grad_norm_(model.policy.parameters(), model.max_grad_norm)
        model.policy.optimizer.step()
        self._steps_together += 1
        if self._steps_together % COMPARED_EVERY == 0:
            self.compare()
        return True

    def compare(self) -> None:
        """See whether all learners still have the same weights.

        Raises:
            OutOfStepError: they do not.
        """
        flat = _flat(cast(Any, self).policy.parameters())
        both = np.concatenate([flat, -flat])
        cast(Reducer, self.reducer).max(both)
        if not np.array_equal(both[: len(flat)], -both[len(flat) :]):
            raise OutOfStepError("the learners' weights differ: do all run the same versions on the same processors?")

    def _judge(self, data: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] = cast(Any, self).policy.evaluate_actions(
            data.observations, actions
        )
        return found

    def _log(self, sums: NDArray[np.float64], clip: float, clip_vf: float | None) -> None:
        model = cast(Any, self)
        names = ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")
        for name, value in zip(names, sums[:6] / max(sums[6], 1.0), strict=True):
            model.logger.record(f"train/{name}", value)
        buffer = model.rollout_buffer
        explained = explained_variance(buffer.values.flatten(), buffer.returns.flatten())
        model.logger.record("train/explained_variance", explained)
        model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
        model.logger.record("train/clip_range", clip)
        if clip_vf is not None:
            model.logger.record("train/clip_range_vf", clip_vf)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "reducer"]  # type: ignore[misc]


class ParallelPPO(Together, AsyncPPO):
    """AsyncPPO on several learners."""


class ParallelMaskablePPO(Together, AsyncMaskablePPO):
    """AsyncMaskablePPO on several learners."""

    def _judge(self, data: Any, actions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        found: tuple[torch.Tensor, torch.Tensor, torch.Tensor | None] = self.policy.evaluate_actions(
            data.observations, actions, action_masks=data.action_masks
        )
        return found


def same_weights(parameters: Iterable[torch.Tensor], reducer: Reducer) -> None:
    """Everyone gets those of the first learner."""
    parameters = list(parameters)
    flat = _flat(parameters)
    if reducer.rank:
        flat[:] = 0.0
    reducer.sum(flat)
    _put(parameters, flat)


def average_gradients(optimizer: torch.optim.Optimizer, reducer: Reducer) -> None:
    """From now on each step of this optimiser is made with the mean gradient of all learners.

    For algorithms whose ``train`` is not ours: learners must make as many steps with minibatches of one size.
    Stable-Baselines3's DQN clips its gradient before the step, so that here the mean is of clipped gradients.
    """

    def average(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = _flat(gradients)
        reducer.sum(flat)
        _put(gradients, flat / np.float32(reducer.size))

    optimizer.register_step_pre_hook(average)


def _flat(tensors: Any) -> NDArray[np.float32]:
    with torch.no_grad():
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu().numpy()


def _put(tensors: Any, flat: NDArray[np.float32]) -> None:
    at = 0
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.as_tensor(flat[at : at + tensor.numel()]).view_as(tensor))
            at += tensor.numel()
