"""Describes the acting network of a Stable-Baselines3 model, with its weights, for actors and saved policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch import nn

from rlctl.bundle.policy_network import ATTENTION, LOG_STD
from rlctl_agents.ppo.networks import PrivilegedPolicy
from rlctl_agents.set_networks import AttentionActor, SetTowers

ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}


def policy_spec(model: Any) -> dict[str, Any]:
    """What the weights of ``policy_weights`` mean, JSON-ready; see ``rlctl.distributed.actor.numpy_policies``."""
    return {"network": actor_network(model), "greedy": isinstance(model, DQN)}


def policy_weights(model: Any) -> NDArray[np.float32]:
    """The acting network's weights, flat, as ``rlctl.bundle.policy_network.weight_shapes`` orders them."""
    with torch.no_grad():
        return torch.cat([tensor.reshape(-1) for tensor in _tensors(model).values()]).cpu().numpy()


def actor_network(model: Any) -> dict[str, Any]:
    """What the actor computes, as the manifest of a saved policy tells it."""
    policy, attention = model.policy, _attention(model)
    network: dict[str, Any] = {
        "hidden": [] if attention else [len(bias) for _, bias in _layers(model)[:-1]],
        "activation": ACTIVATIONS[policy.activation_fn],
        "observation_clip": policy.observation_clip if isinstance(policy, PrivilegedPolicy) else None,
    }
    if isinstance(model, SAC | TD3):
        network["output"] = "squashed_gaussian" if isinstance(model, SAC) else "squashed"
    if attention is not None:
        network["attention"] = attention.spec.model_dump()
    if isinstance(policy, RecurrentActorCriticPolicy):
        network["lstm"] = policy.lstm_actor.hidden_size
    return network


def actor_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    """The actor's weights, as ``rlctl.bundle.saved_policy.save`` takes them."""
    return {name: tensor.detach().cpu().numpy().astype(np.float32) for name, tensor in _tensors(model).items()}


def _tensors(model: Any) -> dict[str, torch.Tensor]:
    """The acting network's weights by the names and in the order of ``weight_shapes``."""
    attention = _attention(model)
    if attention is not None:
        return {f"{ATTENTION}{name}": tensor for name, tensor in attention.weights()}
    found: dict[str, torch.Tensor] = {}
    if isinstance(model.policy, RecurrentActorCriticPolicy):
        lstm: Any = model.policy.lstm_actor
        found |= {"lstm.input": lstm.weight_ih_l0, "lstm.recurrent": lstm.weight_hh_l0}
        found["lstm.bias"] = lstm.bias_ih_l0 + lstm.bias_hh_l0
    for i, (weight, bias) in enumerate(_layers(model)):
        found |= {f"{i}.weight": weight, f"{i}.bias": bias}
    if isinstance(model.action_space, spaces.Box) and not isinstance(model, OffPolicyAlgorithm):
        found[LOG_STD] = model.policy.log_std
    return found


def _layers(model: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Matrix and bias of each linear layer of the acting network."""
    modules: Sequence[nn.Module]
    if isinstance(model, DQN):
        modules = cast(Any, model.q_net).q_net
    elif isinstance(model, TD3):
        modules = cast(Any, model.actor).mu
    elif isinstance(model, SAC):
        modules = cast(Any, model.actor).latent_pi
    else:
        modules = [*model.policy.mlp_extractor.policy_net, model.policy.action_net]
    layers: list[tuple[torch.Tensor, torch.Tensor]] = [
        (layer.weight, layer.bias) for layer in modules if isinstance(layer, nn.Linear)
    ]
    if isinstance(model, SAC):  # its last layer are two: means, then logarithms of deviations
        mean, std = cast(Any, model.actor).mu, cast(Any, model.actor).log_std
        layers.append((torch.cat([mean.weight, std.weight]), torch.cat([mean.bias, std.bias])))
    return layers


def _attention(model: Any) -> AttentionActor | None:
    """The acting network, if it attends over sets."""
    towers = None if isinstance(model, OffPolicyAlgorithm) else model.policy.mlp_extractor
    return towers.actor if isinstance(towers, SetTowers) else None
