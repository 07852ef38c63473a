"""Averages the gradients of several learners of one policy, each of which learns from its own actors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from rlctl.core.errors import RlctlError

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup

COMPARED_EVERY = 100
"""Gradient steps after which the learners' weights are compared."""


class OutOfStepError(RlctlError):
    """Learners whose weights are no longer the same."""


def same_weights(parameters: Iterable[torch.Tensor], learners: RankGroup) -> None:
    """Copy the first learner's weights to all."""
    parameters = list(parameters)
    flat = flattened(parameters)
    if learners.rank:
        flat[:] = 0.0
    learners.sum(flat)
    put(parameters, flat)


def require_same_weights(parameters: Iterable[torch.Tensor], learners: RankGroup) -> None:
    """Raise OutOfStepError if the weights of the learners differ."""
    flat = flattened(parameters)
    both = np.concatenate([flat, -flat])
    learners.max(both)
    if not np.array_equal(both[: len(flat)], -both[len(flat) :]):
        raise OutOfStepError("the learners' weights differ: do all run the same versions on the same processors?")


def average_gradients(
    optimizer: torch.optim.Optimizer,
    learners: RankGroup,
    share: Callable[[], float] | None = None,
    max_norm: float = math.inf,
) -> None:
    """Make each step of this optimiser with the mean gradient of all learners, which make as many steps.

    Stable-Baselines3's DQN clips its gradient before the step, so that there the mean is of clipped gradients.

    Args:
        share: of this learner's samples among those of all; None: all have as many.
        max_norm: the mean is clipped to this norm.
    """
    steps = 0

    def average(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        nonlocal steps
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = flattened(p.grad for p in parameters) * np.float32(1.0 / learners.size if share is None else share())
        learners.sum(flat)
        put((p.grad for p in parameters), flat)
        if max_norm < math.inf:
            torch.nn.utils.clip_grad_norm_(parameters, max_norm)
        steps += 1
        if steps % COMPARED_EVERY == 0:
            require_same_weights(parameters, learners)

    optimizer.register_step_pre_hook(average)


def flattened(tensors: Any) -> NDArray[np.float32]:
    """All tensors in one row."""
    with torch.no_grad():
        return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).cpu().numpy()


def put(tensors: Any, flat: NDArray[np.float32]) -> None:
    """Fill tensors from one row."""
    at = 0
    with torch.no_grad():
        for tensor in tensors:
            tensor.copy_(torch.as_tensor(flat[at : at + tensor.numel()]).view_as(tensor))
            at += tensor.numel()
