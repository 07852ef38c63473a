"""From the trained network to plain arrays, for a policy that is saved."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from sb3_contrib import MaskablePPO

from rlctl.bundle.manifest import MIN_PAIRS
from rlctl.bundle.network import ATTENTION
from rlctl.core.errors import EnvironmentFault
from rlctl_agents.plain import batch
from rlctl_agents.snapshot import Part, parts, snapshot_spec

if TYPE_CHECKING:
    from rlctl.bundle.network import NumpyPolicy
    from rlctl_agents.vec_env import WorldsVecEnv

log = logging.getLogger(__name__)

NEAR_TIE = 1e-4
MOST_NUMBERS = 1 << 24
"""In the rows that a saved policy is checked with."""
_OUTPUTS = {"squashed_gaussian": "squashed_gaussian", "deterministic": "squashed"}


def actor_network(model: Any) -> dict[str, Any]:
    """What the actor computes, as the manifest of a saved policy tells it.

    Raises:
        ConfigError: no saved policy can compute that.
    """
    spec = snapshot_spec(model)
    network = {name: spec[name] for name in ("hidden", "activation")} | {"observation_clip": spec["clip"]}
    if spec["kind"] in _OUTPUTS:
        network["output"] = _OUTPUTS[spec["kind"]]
    network |= {name: spec[name] for name in ("lstm", "attention") if name in spec}
    return network


def actor_weights(model: Any) -> dict[str, NDArray[np.float32]]:
    """The actor's weights, as ``rlctl.bundle.saved_policy.save`` takes them."""
    weights: dict[str, NDArray[np.float32]] = {}
    layer = 0
    for part, tensors in parts(model):
        arrays = [tensor.detach().cpu().numpy().astype(np.float32) for tensor in tensors]
        if part is Part.LSTM:
            weights |= dict(zip(("lstm.input", "lstm.recurrent", "lstm.bias"), arrays, strict=True))
        elif part is Part.ATTENTION:
            names = model.policy.mlp_extractor.actor.spec.shapes()
            weights |= {f"{ATTENTION}{name}": array for name, array in zip(names, arrays, strict=True)}
        elif part is Part.LOG_STD:
            weights["log_std"] = arrays[0]
        else:
            weights |= {f"{layer}.weight": arrays[0], f"{layer}.bias": arrays[1]}
            layer += 1
    return weights


def most_rows(numbers: int) -> int:
    """How many rows of so many numbers are looked at, at most: pictures are long."""
    return max(MIN_PAIRS, MOST_NUMBERS // numbers)


def played_rows(model: Any, env: WorldsVecEnv, deterministic: bool, count: int = 2048) -> NDArray[np.float32]:
    """What the model sees while it plays on for at least ``count`` decisions, in rows as it reads them.

    Where an environment fails meanwhile, what was seen before is enough: the training is over.
    """
    rows = env.reset() if model._last_obs is None else model._last_obs
    seen = [rows]
    state, starts = None, np.ones(len(rows), np.bool_)
    count = min(count, most_rows(rows.shape[1]))
    while len(seen) * len(rows) < count:
        more = {"action_masks": env.action_masks()} if isinstance(model, MaskablePPO) else {}
        actions, state = model.predict(rows, state, starts, deterministic=deterministic, **more)
        try:
            rows, _, starts, _ = env.step(actions)
        except EnvironmentFault as fault:
            log.warning("%s: after the training, so the policy is saved all the same", fault)
            break
        seen.append(rows)
    found: NDArray[np.float32] = np.concatenate(seen, axis=0)
    return np.resize(found, (max(len(found), MIN_PAIRS), found.shape[1]))


def check_same_answers(model: Any, policy: NumpyPolicy, rows: NDArray[np.float32] | None = None) -> None:
    """Compare ``policy``, which must be deterministic, with ``model.predict``; recurrent ones at a first step.

    Where rounding by ``NEAR_TIE`` may exchange two choices, either counts as right.

    Args:
        rows: as the model reads them; None: random ones.

    Raises:
        RuntimeError: an answer differs.
    """
    width = int(np.prod(model.observation_space.shape))
    n_obs = policy.observation_length
    n_mask = sum(policy.heads) if width > n_obs else 0
    rows = _random_rows(policy, width, n_mask) if rows is None else rows
    expected, _ = model.predict(rows, deterministic=True)
    for row, answer in zip(rows, expected, strict=True):
        mask = row[n_obs : n_obs + n_mask] > 0.5 if n_mask else None
        outputs = policy.logits(row[:n_obs])
        if policy.distribution.margin(outputs, mask) <= NEAR_TIE:
            continue
        theirs, ours = np.ravel(answer), policy.likeliest(outputs, mask)
        if not np.allclose(theirs, ours, rtol=NEAR_TIE, atol=NEAR_TIE):
            raise RuntimeError(f"the saved policy answers {ours}, {type(model).__name__}.predict {theirs}")


def check_plain_answers(made: Any, policy: NumpyPolicy, own: spaces.Space[Any], rows: NDArray[np.float32]) -> None:
    """Compare the model of ``rlctl_agents.plain`` with ``policy``, which must be deterministic, without any mask.

    Args:
        own: the environment's observation space.
        rows: flat observations; of spaces that are no Box, samples are taken.

    Raises:
        RuntimeError: an answer differs.
    """
    if not isinstance(own, spaces.Box):
        own.seed(0)
        rows = np.array([spaces.flatten(own, own.sample()) for _ in range(len(rows))], np.float32)
    dtype = own.dtype if isinstance(own, spaces.Box) else np.float32
    rows = rows.astype(dtype).astype(np.float32)  # as the environment shows them
    expected, _ = made.predict(batch(made.observation_space, rows), deterministic=True)
    space = policy.action_space
    first = max(int(space.start), 0) if isinstance(space, spaces.Discrete) else 0
    for row, answer in zip(rows, expected, strict=True):
        outputs = policy.logits(row)
        if policy.distribution.margin(outputs, None) <= NEAR_TIE:
            continue
        theirs, ours = np.ravel(answer), policy.likeliest(outputs, None) + first
        if not np.allclose(theirs, ours, rtol=NEAR_TIE, atol=NEAR_TIE):
            raise RuntimeError(f"the saved policy answers {ours}, plain {type(made).__name__}.predict {theirs}")


def _random_rows(policy: NumpyPolicy, width: int, n_mask: int, count: int = 256, seed: int = 0) -> NDArray[np.float32]:
    random, count = np.random.default_rng(seed), min(count, most_rows(width))
    observations = random.normal(size=(count, policy.observation_length)).astype(np.float32)
    masks = random.random((count, n_mask)) < 0.6
    if n_mask:
        first = np.cumsum((0, *policy.heads[:-1]))
        masks[:, first + random.integers(policy.heads)] = True  # every head keeps a choice
    privileged = random.normal(size=(count, width - policy.observation_length - n_mask)).astype(np.float32)
    return np.concatenate([observations, masks, privileged], axis=1, dtype=np.float32)
