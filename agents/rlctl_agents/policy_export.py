"""From a model of Stable-Baselines3 to what an actor, or a saved policy, computes in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from rlctl.core.errors import ConfigError
from rlctl_agents.algorithm import OPTIONS
from rlctl_agents.set_networks import AttentionActor, SetTowers
from rlctl_agents.vec_env import RemoteEnvSpec

ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}


@runtime_checkable
class ReadsRows(Protocol):
    """A policy network that reads rows of [observation, mask, privileged], and says how long the parts are."""

    n_obs: int
    n_mask: int
    observation_clip: float | None


def policy_spec(model: Any) -> dict[str, Any]:
    """What the weights of ``policy_weights`` mean, JSON-ready; see ``rlctl.distributed.actor.numpy_policies``.

    Raises:
        ConfigError: actors cannot compute this policy.
    """
    policy, space = model.policy, model.action_space
    if isinstance(model, OnPolicyAlgorithm | SAC) and model.use_sde:
        raise ConfigError("actors do not compute gSDE: use lock-step", OPTIONS)
    extractor = _actor(model).features_extractor
    if not isinstance(extractor, FlattenExtractor | CombinedExtractor):
        raise ConfigError(f"actors cannot compute {type(extractor).__name__}: use lock-step", OPTIONS)
    rows = policy if isinstance(policy, ReadsRows) else None
    n_mask = 0 if rows is None else rows.n_mask
    if isinstance(policy, MaskableActorCriticPolicy):  # it is given masks beside the observation, where there are some
        env = model.get_env()
        n_mask = env.n_mask if isinstance(env, RemoteEnvSpec) else _choices(space)
    attention = _attention(model)
    hidden = [] if attention else [layer for layer in _layers(model)[:-1] if isinstance(layer, nn.Linear)]
    spec: dict[str, Any] = {
        **_head(model, space),
        "n_obs": int(spaces.flatdim(model.observation_space)) if rows is None else rows.n_obs,
        "n_mask": n_mask,
        "hidden": [layer.out_features for layer in hidden],
        "activation": "tanh" if attention else _activation(model),
        "clip": None if rows is None else rows.observation_clip,
    }
    if attention is not None:
        spec["attention"] = attention.spec.model_dump()
    if isinstance(policy, RecurrentActorCriticPolicy):
        if policy.lstm_actor.num_layers != 1:
            raise ConfigError("actors compute one recurrent layer: set n_lstm_layers to 1", OPTIONS)
        spec["lstm"] = policy.lstm_actor.hidden_size
    return spec


def policy_weights(model: Any) -> NDArray[np.float32]:
    """The acting network's weights, flat, in the order of ``rlctl.distributed.actor.numpy_policies.ActorPolicy``."""
    with torch.no_grad():
        return torch.cat([tensor.reshape(-1) for _, tensors in parts(model) for tensor in tensors]).cpu().numpy()


class PolicyPart(StrEnum):
    """Kinds of weights in an acting network."""

    LSTM = "lstm"
    ATTENTION = "attention"
    LAYER = "layer"
    LOG_STD = "log_std"


def parts(model: Any) -> list[tuple[PolicyPart, tuple[torch.Tensor, ...]]]:
    """The acting network's weights in order: recurrent layer, matrix and bias of each layer, standard deviations."""
    found: list[tuple[PolicyPart, tuple[torch.Tensor, ...]]] = []
    policy = model.policy
    if isinstance(policy, RecurrentActorCriticPolicy):
        lstm: Any = policy.lstm_actor
        # PyTorch's order of the gates is input, forget, cell, output.
        found.append((PolicyPart.LSTM, (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)))
    if (attention := _attention(model)) is not None:
        return [*found, (PolicyPart.ATTENTION, tuple(tensor for _, tensor in attention.weights()))]
    layers: list[tuple[torch.Tensor, ...]] = [
        (layer.weight, layer.bias) for layer in _layers(model) if isinstance(layer, nn.Linear)
    ]
    if isinstance(model, SAC):  # its last layer are two: means, then logarithms of deviations
        mean, std = cast(Any, model.actor).mu, cast(Any, model.actor).log_std
        layers[-1] = (torch.cat([mean.weight, std.weight]), torch.cat([mean.bias, std.bias]))
    found += [(PolicyPart.LAYER, layer) for layer in layers]
    if isinstance(model, OnPolicyAlgorithm) and isinstance(model.action_space, spaces.Box):
        found.append((PolicyPart.LOG_STD, (policy.log_std,)))
    return found


def _attention(model: Any) -> AttentionActor | None:
    """The acting network, if it attends over sets."""
    towers = model.policy.mlp_extractor if isinstance(model, OnPolicyAlgorithm) else None
    return towers.actor if isinstance(towers, SetTowers) else None


def _actor(model: Any) -> Any:
    """The module that acts."""
    return model.q_net if isinstance(model, DQN) else model.actor if isinstance(model, SAC | TD3) else model.policy


def _layers(model: Any) -> Sequence[nn.Module]:
    """The acting network's layers, the last one linear; TD3's final hyperbolic tangent belongs to the head."""
    actor = _actor(model)
    if isinstance(model, DQN):
        return list(actor.q_net)
    if isinstance(model, TD3):
        return list(actor.mu)[:-1]
    if isinstance(model, SAC):
        return [*actor.latent_pi, actor.mu]
    return [*actor.mlp_extractor.policy_net, actor.action_net]


def _activation(model: Any) -> str:
    kinds = {type(layer) for layer in _layers(model) if not isinstance(layer, nn.Linear)}
    if len(kinds) > 1 or not kinds <= ACTIVATIONS.keys():
        names = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ConfigError(f"actors compute tanh or relu between linear layers, not {names}", OPTIONS)
    return ACTIVATIONS[kinds.pop()] if kinds else "tanh"


def _head(model: Any, space: spaces.Space[Any]) -> dict[str, Any]:
    if isinstance(model, DQN):
        return {"kind": "greedy", "heads": [_choices(space)]}
    if isinstance(space, spaces.Box):
        kind = (
            "squashed_gaussian" if isinstance(model, SAC) else "deterministic" if isinstance(model, TD3) else "gaussian"
        )
        low, high = (np.ravel(bound).astype(float).tolist() for bound in (space.low, space.high))
        return {"kind": kind, "low": low, "high": high}
    if isinstance(space, spaces.MultiBinary):
        return {"kind": "bernoulli", "outputs": int(np.prod(space.shape))}
    if isinstance(space, spaces.Discrete):
        return {"kind": "categorical", "heads": [int(space.n)]}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "categorical", "heads": [int(n) for n in space.nvec]}
    raise ConfigError(f"actors do not answer {space}", OPTIONS)


def _choices(space: spaces.Space[Any]) -> int:
    return int(np.sum(space.nvec)) if isinstance(space, spaces.MultiDiscrete) else int(cast(spaces.Discrete, space).n)
