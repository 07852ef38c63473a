"""From the trained network to plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

from rlctl.campaign import Decision
from rlctl_agents.ppo.network import PrivilegedPolicy

if TYPE_CHECKING:
    from stable_baselines3 import PPO

    from rlctl.saved_policy import NumpyPolicy

NEAR_TIE = 1e-4


def actor_weights(model: PPO) -> dict[str, NDArray[np.float32]]:
    """The actor of a PPO with ``PrivilegedPolicy``, as ``rlctl.saved_policy.save`` takes it."""
    network = cast(PrivilegedPolicy, model.policy)
    tower = [layer for layer in network.towers.policy_net if isinstance(layer, nn.Linear)]
    weights = {}
    for i, layer in enumerate([*tower, cast(nn.Linear, network.action_net)]):
        weights[f"{i}.weight"] = layer.weight.detach().cpu().numpy().astype(np.float32)
        weights[f"{i}.bias"] = layer.bias.detach().cpu().numpy().astype(np.float32)
    return weights


def check_same_answers(model: PPO, policy: NumpyPolicy, count: int = 256, seed: int = 0) -> None:
    """Compare ``policy``, which must be deterministic, with ``PPO.predict`` on random observations and masks.

    Two choices whose logits differ by less than ``NEAR_TIE`` count as the same: rounding may swap them.

    Raises:
        RuntimeError: an answer differs.
    """
    random = np.random.default_rng(seed)
    n_mask = sum(policy.heads)
    n_privileged = cast(spaces.Box, model.observation_space).shape[0] - policy.observation_length - n_mask
    observations = random.normal(size=(count, policy.observation_length)).astype(np.float32)
    masks = random.random((count, n_mask)) < 0.6
    first = np.cumsum((0, *policy.heads[:-1]))
    masks[:, first + random.integers(policy.heads)] = True  # every head keeps a choice
    privileged = random.normal(size=(count, n_privileged)).astype(np.float32)
    expected, _ = model.predict(np.concatenate([observations, masks, privileged], axis=1), deterministic=True)
    answers = [policy.act(Decision("", 0.0, {}, *pair)) for pair in zip(observations, masks, strict=True)]
    logits = policy.logits(observations)
    for row in range(count):
        theirs, ours = logits[row, first + expected[row]], logits[row, first + answers[row]]
        if not masks[row, first + expected[row]].all() or np.abs(theirs - ours).max() > NEAR_TIE:
            raise RuntimeError(f"the saved policy answers {answers[row]}, PPO.predict {expected[row]}")
