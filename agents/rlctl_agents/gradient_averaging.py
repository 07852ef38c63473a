"""Several learners of one policy: each learns from its own actors, and every step is that of all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup


def same_weights(parameters: Iterable[torch.Tensor], learners: RankGroup) -> None:
    """Copy the first learner's weights to all."""
    parameters = list(parameters)
    flat = flattened(parameters)
    if learners.rank:
        flat[:] = 0.0
    learners.sum(flat)
    put(parameters, flat)


def average_gradients(optimizer: torch.optim.Optimizer, learners: RankGroup) -> None:
    """Make each step of this optimiser with the mean gradient of all learners.

    For algorithms whose ``train`` is not ours: learners must make as many steps with minibatches of one size.
    Stable-Baselines3's DQN clips its gradient before the step, so that here the mean is of clipped gradients.
    """

    def average(optimizer: torch.optim.Optimizer, *arguments: Any) -> None:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        flat = flattened(gradients)
        learners.sum(flat)
        put(gradients, flat / np.float32(learners.size))

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
