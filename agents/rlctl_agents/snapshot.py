"""From a model of Stable-Baselines3 to what an actor computes in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3 import DQN, SAC, TD3
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from rlctl.core.errors import ConfigError

ACTIVATIONS = {nn.Tanh: "tanh", nn.ReLU: "relu"}
OPTIONS = ("train", "options")


def snapshot_spec(model: Any) -> dict[str, Any]:
    """What the weights of ``snapshot_weights`` mean, JSON-ready.

    Raises:
        ConfigError: actors cannot compute this policy.
    """
    policy, space = model.policy, model.action_space
    if getattr(model, "use_sde", False):
        raise ConfigError("actors do not compute gSDE: use lock-step", OPTIONS)
    extractor = getattr(_actor(model), "features_extractor", None) or getattr(policy, "features_extractor", None)
    if extractor is not None and not isinstance(extractor, FlattenExtractor | CombinedExtractor):
        raise ConfigError(f"actors cannot compute {type(extractor).__name__}: use lock-step", OPTIONS)
    # A policy that reads rows of [observation, mask, privileged] says how long the parts are.
    n_obs = int(getattr(policy, "n_obs", spaces.flatdim(model.observation_space)))
    n_mask = int(getattr(policy, "n_mask", 0))
    if _is_maskable(policy):  # it is given masks beside the observation, where there are some
        n_mask = int(getattr(model.get_env(), "n_mask", _choices(space)))
    sets = _attention(model)
    hidden = [] if sets else [layer for layer in _layers(model)[:-1] if isinstance(layer, nn.Linear)]
    spec: dict[str, Any] = {
        **_head(model, space),
        "n_obs": n_obs,
        "n_mask": n_mask,
        "hidden": [layer.out_features for layer in hidden],
        "activation": "tanh" if sets else _activation(model),
        "clip": getattr(policy, "observation_clip", None),
    }
    if sets is not None:
        spec["attention"] = sets.spec.model_dump()
    if isinstance(policy, RecurrentActorCriticPolicy):
        if policy.lstm_actor.num_layers != 1:
            raise ConfigError("actors compute one recurrent layer: set n_lstm_layers to 1", OPTIONS)
        spec["lstm"] = policy.lstm_actor.hidden_size
    return spec


def snapshot_weights(model: Any, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """The weights of what acts, flat, in the order of ``rlctl.distributed.actor.numpy_policies.ActorPolicy``."""
    with torch.no_grad():
        flat = torch.cat([tensor.reshape(-1) for _, tensors in parts(model) for tensor in tensors])
        weights: NDArray[np.float32] = flat.cpu().numpy()
    if out is None:
        return weights
    out[:] = weights
    return out


class Part(StrEnum):
    """Of what acts."""

    LSTM = "lstm"
    ATTENTION = "attention"
    LAYER = "layer"
    LOG_STD = "log_std"


def parts(model: Any) -> list[tuple[Part, tuple[torch.Tensor, ...]]]:
    """Weights of what acts, in order: a recurrent layer's, matrix and bias of each layer, deviations of their own."""
    found: list[tuple[Part, tuple[torch.Tensor, ...]]] = []
    policy = model.policy
    if isinstance(policy, RecurrentActorCriticPolicy):
        lstm: Any = policy.lstm_actor
        # PyTorch's order of the gates is input, forget, cell, output.
        found.append((Part.LSTM, (lstm.weight_ih_l0, lstm.weight_hh_l0, lstm.bias_ih_l0 + lstm.bias_hh_l0)))
    if (sets := _attention(model)) is not None:
        return [*found, (Part.ATTENTION, tuple(tensor for _, tensor in sets.weights()))]
    layers: list[tuple[torch.Tensor, ...]] = [
        (layer.weight, layer.bias) for layer in _layers(model) if isinstance(layer, nn.Linear)
    ]
    if isinstance(model, SAC):  # its last layer are two: means, then logarithms of deviations
        mean, std = cast(Any, model.actor).mu, cast(Any, model.actor).log_std
        layers[-1] = (torch.cat([mean.weight, std.weight]), torch.cat([mean.bias, std.bias]))
    found += [(Part.LAYER, layer) for layer in layers]
    if isinstance(getattr(policy, "log_std", None), torch.Tensor):
        found.append((Part.LOG_STD, (policy.log_std,)))
    return found


def _attention(model: Any) -> Any:
    """What acts, if it attends to sets."""
    return getattr(getattr(model.policy, "mlp_extractor", None), "actor", None)


def _actor(model: Any) -> Any:
    """The part that acts, where it is one of its own."""
    return model.q_net if isinstance(model, DQN) else model.actor if isinstance(model, SAC | TD3) else model.policy


def _layers(model: Any) -> Sequence[nn.Module]:
    """Of what acts, the last one linear; TD3's ends with a hyperbolic tangent, which belongs to the head."""
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
        return {"kind": "greedy", "heads": [int(cast(spaces.Discrete, space).n)]}
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


def _is_maskable(policy: Any) -> bool:
    from sb3_contrib.common.maskable.policies import MaskableActorCriticPolicy

    return isinstance(policy, MaskableActorCriticPolicy)
