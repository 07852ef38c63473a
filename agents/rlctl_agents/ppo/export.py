"""From the trained network to plain arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from torch import nn

if TYPE_CHECKING:
    from stable_baselines3 import PPO
    from stable_baselines3.common.vec_env import VecEnv

    from rlctl.saved_policy import NumpyPolicy

NEAR_TIE = 1e-4
ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}


def actor_network(model: PPO, observation_clip: float | None) -> dict[str, Any]:
    """What the actor computes, as the manifest of a saved policy tells it.

    Raises:
        ValueError: a layer of it is neither linear nor a known activation.
    """
    layers = list(_tower(model))
    others = {type(layer) for layer in layers if not isinstance(layer, nn.Linear)}
    if len(others) > 1 or not others <= ACTIVATIONS.keys():
        raise ValueError(f"only layers with one of {sorted(ACTIVATIONS.values())} can be saved, not {layers}")
    return {
        "hidden": [layer.out_features for layer in layers if isinstance(layer, nn.Linear)],
        "activation": ACTIVATIONS[others.pop()] if others else "tanh",
        "observation_clip": observation_clip,
    }


def actor_weights(model: PPO) -> dict[str, NDArray[np.float32]]:
    """The actor of a PPO with an MLP, as ``rlctl.saved_policy.save`` takes it."""
    tower = [layer for layer in _tower(model) if isinstance(layer, nn.Linear)]
    weights = {}
    for i, layer in enumerate([*tower, cast(nn.Linear, model.policy.action_net)]):
        weights[f"{i}.weight"] = layer.weight.detach().cpu().numpy().astype(np.float32)
        weights[f"{i}.bias"] = layer.bias.detach().cpu().numpy().astype(np.float32)
    if isinstance(model.action_space, spaces.Box):
        weights["log_std"] = cast(Any, model.policy.log_std).detach().cpu().numpy().astype(np.float32)
    return weights


def played_rows(model: PPO, env: VecEnv, deterministic: bool, count: int = 2048) -> NDArray[np.float32]:
    """What the model sees while it plays on for at least ``count`` decisions, in rows as it reads them."""
    rows = cast(NDArray[np.float32], env.reset() if model._last_obs is None else model._last_obs)
    seen = [rows]
    while len(seen) * len(rows) < count:
        rows = cast(NDArray[np.float32], env.step(model.predict(rows, deterministic=deterministic)[0])[0])
        seen.append(rows)
    return np.concatenate(seen, axis=0)


def check_same_answers(model: PPO, policy: NumpyPolicy, rows: NDArray[np.float32] | None = None) -> None:
    """Compare ``policy``, which must be deterministic, with ``PPO.predict``.

    Where rounding by ``NEAR_TIE`` may exchange two choices, either counts as right.

    Args:
        rows: of [observation, mask of choices, privileged]; None: random ones.

    Raises:
        RuntimeError: an answer differs.
    """
    rows = _random_rows(model, policy) if rows is None else rows
    n_obs, n_mask = policy.observation_length, sum(policy.heads)
    expected, _ = model.predict(rows, deterministic=True)
    for row, answer in zip(rows, expected, strict=True):
        observation = row[:n_obs]
        mask = row[n_obs : n_obs + n_mask] > 0.5 if policy.heads else None
        outputs = policy.logits(observation)
        if policy.answers.margin(outputs, mask) <= NEAR_TIE:
            continue
        theirs, ours = np.ravel(answer), policy.answers.likeliest(outputs, mask)
        if not np.allclose(theirs, ours, rtol=NEAR_TIE, atol=NEAR_TIE):
            raise RuntimeError(f"the saved policy answers {ours}, PPO.predict {theirs}")


def _random_rows(model: PPO, policy: NumpyPolicy, count: int = 256, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    n_mask = sum(policy.heads)
    n_privileged = cast(spaces.Box, model.observation_space).shape[0] - policy.observation_length - n_mask
    observations = random.normal(size=(count, policy.observation_length)).astype(np.float32)
    masks = random.random((count, n_mask)) < 0.6
    if policy.heads:
        first = np.cumsum((0, *policy.heads[:-1]))
        masks[:, first + random.integers(policy.heads)] = True  # every head keeps a choice
    privileged = random.normal(size=(count, n_privileged)).astype(np.float32)
    return np.concatenate([observations, masks, privileged], axis=1, dtype=np.float32)


def _tower(model: PPO) -> nn.Sequential:
    """Hidden layers of the actor."""
    return cast(nn.Sequential, cast(Any, model.policy.mlp_extractor).policy_net)
