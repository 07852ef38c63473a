"""Converts a trained model to Stable-Baselines3's own classes and the environment's own spaces.

Rows of [observation, mask, privileged], actors on ranks and learners side by side are how rlctl trains. None of it is
left here: Stable-Baselines3 and the environment, without rlctl, are enough to load the file and go on.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, cast

import cloudpickle
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.noise import VectorizedActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr

from rlctl.bundle.network import NumpyPolicy
from rlctl_agents import plain_extractors, set_networks
from rlctl_agents.row_networks import MASKED_LOGIT

MODEL, PLAIN = "model.zip", "model_plain.zip"
"""The trained model, where possible of Stable-Baselines3's own classes; where not, what acts of it, of such."""
UNFINISHED = (
    "_last_obs",
    "_last_episode_starts",
    "_last_original_obs",
    "_last_lstm_states",
    "ep_info_buffer",
    "ep_success_buffer",
)
"""What a model was in the midst of, which a loaded one does not need."""
_LIBRARIES = ("stable_baselines3", "sb3_contrib")
_OURS = ("n_obs", "n_mask", "logit_bias", "observation_clip", "attention")
"""Arguments of rlctl's own policies."""
NEAR_TIE = 1e-4
"""Answers count as the same where rounding by this may exchange two choices."""
_CRITIC = ("value_net.", "mlp_extractor.value_net.")


def own_policy(model: Any) -> bool:
    """Whether the model was trained with a policy class of Stable-Baselines3."""
    return type(model.policy).__module__.partition(".")[0] in _LIBRARIES


def readable(space: spaces.Space[Any], recurrent: bool = False) -> bool:
    """Whether Stable-Baselines3 flattens such observations as ``gymnasium.spaces.flatten`` does.

    It counts choices from 0, knows no parts within parts, and reads a picture among other parts by a network of its
    own. Before a recurrent layer sb3-contrib knows no MultiDiscrete.

    >>> readable(spaces.Dict({"a": spaces.Discrete(3)})), readable(spaces.Tuple([spaces.Discrete(3)]))
    (True, False)
    """
    if isinstance(space, spaces.Dict):
        parts = space.values()
        return not any(isinstance(part, spaces.Dict) or is_image_space(part) for part in parts) and all(
            readable(part, recurrent) for part in parts
        )
    if isinstance(space, spaces.Box):
        return space.shape != ()
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete):
        return not np.any(space.start) and not (recurrent and isinstance(space, spaces.MultiDiscrete))
    return isinstance(space, spaces.MultiBinary)


def answered(action: spaces.Space[Any]) -> spaces.Space[Any]:
    """What the plain model of an environment with these actions answers; Stable-Baselines3 counts from 0.

    Where the environment counts from more, there are choices below that are never taken; where it counts from less,
    ``gymnasium.wrappers.TransformAction`` has to subtract.
    """
    if isinstance(action, spaces.Discrete) and action.start != 0:
        return spaces.Discrete(int(action.n + max(action.start, 0)))
    return action


def plain(model: Any, observation: spaces.Space[Any], action: spaces.Space[Any]) -> Any:
    """A model of Stable-Baselines3 or sb3-contrib with its own policy class.

    It holds the actor, and where the trained critic sees no more than the observation, critic and optimisers as well.
    Observations that cannot be read are in a row, as ``gymnasium.wrappers.FlattenObservation`` gives them. Pictures
    are read in a row and not divided by 255, which is how the model was trained.

    ``observation`` and ``action`` are the environment's spaces.
    """
    kind: Any = next(k for k in type(model).__mro__ if k.__module__.partition(".")[0] in _LIBRARIES)
    lstm = "Lstm" if "MlpLstmPolicy" in kind.policy_aliases else ""
    seen = observation if readable(observation, bool(lstm)) else spaces.flatten_space(observation)
    policy_class = kind.policy_aliases[f"{'MultiInput' if isinstance(seen, spaces.Dict) else 'Mlp'}{lstm}Policy"]
    file = io.BytesIO()
    model.save(file, exclude=UNFINISHED)
    file.seek(0)
    data, parameters, variables = load_from_zip_file(file, device="cpu")
    assert data is not None
    kwargs = {name: value for name, value in data["policy_kwargs"].items() if name not in _OURS}
    if is_image_space(seen):
        kwargs["normalize_images"] = False
    sets, clip = (data["policy_kwargs"].get(name) for name in ("attention", "observation_clip"))
    if sets is not None:
        kwargs["net_arch"] = {"pi": [], "vf": [64]}
        kwargs["features_extractor_class"] = plain_extractors.Attending
        kwargs["features_extractor_kwargs"] = {"attention": sets, "clip": clip}
    elif clip is not None:
        kwargs["features_extractor_class"] = plain_extractors.Clipped
        kwargs["features_extractor_kwargs"] = {"clip": clip}
    made = kind(policy_class, env=None, device="cpu", _init_setup_model=False)
    made.__dict__ |= {name: value for name, value in data.items() if name in {*made.__dict__, "n_envs"}}
    made.observation_space, made.action_space = seen, answered(action)
    made.policy_class, made.policy_kwargs = policy_class, kwargs
    if isinstance(made, OffPolicyAlgorithm):
        made.replay_buffer_class, made.replay_buffer_kwargs = None, {}
        if isinstance(made.action_noise, VectorizedActionNoise):
            made.action_noise = made.action_noise.base_noise  # as it was given; it was for as many environments
        buffer_size, made.buffer_size = made.buffer_size, 1
        made._setup_model()
        made.buffer_size = buffer_size
    else:
        made.rollout_buffer_class = None
        made._setup_model()
    if own_policy(model) and spaces.flatdim(made.action_space) == spaces.flatdim(action):
        made.set_parameters(parameters, device="cpu")
        for name, tensor in (variables or {}).items():
            if tensor is not None:
                recursive_setattr(made, f"{name}.data", tensor.data)
    else:
        _take_actor(made, model, sets is not None)
    return made


def save(made: BaseAlgorithm, path: Path) -> None:
    """Write the model of ``plain``; code of ours that it needs, for attention and clipping, is inside the file."""
    for module in (plain_extractors, set_networks):
        cloudpickle.register_pickle_by_value(module)
    try:
        made.save(path, exclude=UNFINISHED)
    finally:
        for module in (plain_extractors, set_networks):
            cloudpickle.unregister_pickle_by_value(module)


def batch(space: spaces.Space[Any], rows: NDArray[np.float32]) -> Any:
    """A batch of a space's observations, as ``model.predict`` takes it, from flat rows."""
    made = [cast(Any, spaces.unflatten(space, row)) for row in rows]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in made]) for key in space.spaces}
    return np.stack(made)


def check_plain_answers(made: Any, policy: NumpyPolicy, own: spaces.Space[Any], rows: NDArray[np.float32]) -> None:
    """Compare the model of ``plain`` with ``policy``, which must be deterministic, without any mask.

    Args:
        own: the environment's observation space.
        rows: flat observations; of spaces that are no Box, samples are taken.
    """
    if not isinstance(own, spaces.Box):
        own.seed(0)
        rows = np.array([spaces.flatten(own, own.sample()) for _ in range(len(rows))], np.float32)
    dtype = own.dtype if isinstance(own, spaces.Box) else np.float32
    rows = rows.astype(dtype).astype(np.float32)  # as the environment shows them
    expected, _ = made.predict(batch(made.observation_space, rows), deterministic=True)
    space = policy.action_space
    first = max(int(space.start), 0) if isinstance(space, spaces.Discrete) else 0
    require_same(made, expected, policy, rows, first=first)


def require_same(
    model: Any,
    expected: NDArray[Any],
    policy: NumpyPolicy,
    observations: NDArray[np.float32],
    masks: NDArray[np.bool_] | None = None,
    first: int = 0,
) -> None:
    """Raise RuntimeError if a model answers otherwise than a deterministic policy.

    Where rounding by ``NEAR_TIE`` may exchange two choices, either counts as right. ``first`` is the policy's choice 0
    in the model's counting.
    """
    for i, (observation, answer) in enumerate(zip(observations, expected, strict=True)):
        mask, outputs = None if masks is None else masks[i], policy.logits(observation)
        if policy.distribution.margin(outputs, mask) <= NEAR_TIE:
            continue
        theirs, ours = np.ravel(answer), policy.likeliest(outputs, mask) + first
        if not np.allclose(theirs, ours, rtol=NEAR_TIE, atol=NEAR_TIE):
            raise RuntimeError(f"the saved policy answers {ours}, {type(model).__name__}.predict {theirs}")


def _take_actor(made: Any, model: Any, attends: bool) -> None:
    """Copy the actor's weights."""
    with torch.no_grad():
        if attends:
            made.policy.features_extractor.actor.load_state_dict(model.policy.mlp_extractor.actor.state_dict())
            torch.nn.init.eye_(made.policy.action_net.weight)
            torch.nn.init.zeros_(made.policy.action_net.bias)
            return
        trained, weights = model.policy.state_dict(), made.policy.state_dict()
        for name, tensor in trained.items():
            if name.startswith(_CRITIC) or name not in weights:
                continue
            more = len(weights[name]) - len(tensor) if tensor.ndim else 0
            if more:  # choices below the first one
                fill = MASKED_LOGIT if name.endswith("bias") else 0.0
                tensor = torch.cat([torch.full((more, *tensor.shape[1:]), fill), tensor.cpu()])
            weights[name] = tensor
        made.policy.load_state_dict(weights)
