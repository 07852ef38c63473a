"""The update of PPO on several learners: together they are one learner with the joined batch.

Gradients are averaged by the number of samples.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.utils import explained_variance
from torch.nn import functional

from rlctl.core.errors import RlctlError
from rlctl_agents.actor_link import ActorLink
from rlctl_agents.gradient_averaging import flattened, put

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup

COMPARED_EVERY = 100
"""Gradient steps after which the learners' weights are compared."""
_FIGURES = ("policy_gradient_loss", "value_loss", "entropy_loss", "loss", "approx_kl", "clip_fraction")


class OutOfStepError(RlctlError):
    """Learners whose weights are no longer the same."""


class AveragedUpdate:
    """``train`` of Stable-Baselines3 2.9's PPO, with sums over all learners."""

    def __init__(self) -> None:
        self._steps = 0

    def train(self, model: Any, link: ActorLink) -> None:
        """One update."""
        learners = link.learners
        assert learners is not None
        model.policy.set_training_mode(True)
        model._update_learning_rate(model.policy.optimizer)
        clip = model.clip_range(model._current_progress_remaining)
        clip_vf = None if model.clip_range_vf is None else model.clip_range_vf(model._current_progress_remaining)
        buffer = model.rollout_buffer
        parts = np.array([buffer.parts(model.batch_size)])
        learners.max(parts)
        buffer.minibatches = int(parts[0])
        sums = np.zeros(7)
        goes_on = True
        for _ in range(model.n_epochs):
            for data in buffer.get(model.batch_size):
                goes_on = self._one_step(model, learners, data, clip, clip_vf, sums)
                if not goes_on:
                    break
            model._n_updates += 1
            if not goes_on:
                break
        buffer.minibatches = None
        _log(model, sums, clip, clip_vf)

    def _one_step(
        self, model: Any, learners: RankGroup, data: Any, clip: float, clip_vf: float | None, sums: NDArray[np.float64]
    ) -> bool:
        """A minibatch; False if the policy has gone too far for another one."""
        actions = data.actions
        if isinstance(model.action_space, spaces.Discrete):
            actions = actions.long().flatten()
        values, log_prob, entropy = model.evaluate_minibatch(data, actions)
        values = values.flatten()
        advantages = data.advantages
        moments = np.array(
            [len(advantages), advantages.double().sum().item(), advantages.double().square().sum().item()]
        )
        learners.sum(moments)
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
        gradient = flattened(p.grad for p in parameters)
        figures = share * np.array(
            [policy_loss.item(), value_loss.item(), entropy_loss.item(), loss.item(), kl, clipped], np.float64
        )
        everything = np.concatenate([gradient, figures.astype(np.float32)])
        learners.sum(everything)
        figures = everything[len(gradient) :].astype(np.float64)
        sums[:6] += figures
        sums[6] += 1
        if model.target_kl is not None and figures[4] > 1.5 * model.target_kl:
            return False
        put((p.grad for p in parameters), everything[: len(gradient)])
        torch.nn.utils.clip_grad_norm_(model.policy.parameters(), model.max_grad_norm)
        model.policy.optimizer.step()
        self._steps += 1
        if self._steps % COMPARED_EVERY == 0:
            require_same_weights(model, learners)
        return True


def require_same_weights(model: Any, learners: RankGroup) -> None:
    """Compare the weights of all learners.

    Raises:
        OutOfStepError: they differ.
    """
    flat = flattened(model.policy.parameters())
    both = np.concatenate([flat, -flat])
    learners.max(both)
    if not np.array_equal(both[: len(flat)], -both[len(flat) :]):
        raise OutOfStepError("the learners' weights differ: do all run the same versions on the same processors?")


def _log(model: Any, sums: NDArray[np.float64], clip: float, clip_vf: float | None) -> None:
    for name, value in zip(_FIGURES, sums[:6] / max(sums[6], 1.0), strict=True):
        model.logger.record(f"train/{name}", value)
    buffer = model.rollout_buffer
    model.logger.record(
        "train/explained_variance", explained_variance(buffer.values.flatten(), buffer.returns.flatten())
    )
    model.logger.record("train/n_updates", model._n_updates, exclude="tensorboard")
    model.logger.record("train/clip_range", clip)
    if clip_vf is not None:
        model.logger.record("train/clip_range_vf", clip_vf)
