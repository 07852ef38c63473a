"""Policies of actors, in NumPy: a flat vector of weights, and a specification of its meaning.

A rank with PyTorch takes seconds to start and hundreds of megabytes; a forward pass of a small network on few
observations is also an order of magnitude faster without it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlctl.bundle.actions import ActionDistribution, Bernoulli, Categorical, Gaussian, Squashed
from rlctl.bundle.attention import AttentionSpec
from rlctl.bundle.policy_network import PolicyNetwork
from rlctl.distributed.comm.transition_spec import Float32

KINDS: Mapping[str, Callable[[Mapping[str, Any]], ActionDistribution]] = {
    "categorical": lambda spec: Categorical(tuple(spec["heads"])),
    "greedy": lambda spec: Categorical(tuple(spec["heads"]), greedy=True),
    "bernoulli": lambda spec: Bernoulli(spec["outputs"]),
    "gaussian": lambda spec: Gaussian(spec["low"], spec["high"]),
    "squashed_gaussian": lambda spec: Squashed(spec["low"], spec["high"], drawn=True),
    "deterministic": lambda spec: Squashed(spec["low"], spec["high"], drawn=False),
}
"""Distribution of the actions, by ``kind`` of the specification."""


@dataclass(slots=True)
class PolicyOutput:
    """Actions of a policy in n environments.

    Attributes:
        actions: [n, n_action], as ``VectorEnvironment.step`` takes them.
        buffer_actions: [n, n_action], as the algorithm stores them.
        log_probs: [n], of ``buffer_actions``; 0 where the algorithm needs none.
        state: [n, s], of a recurrent policy, for the next decision.
    """

    actions: NDArray[Any]
    buffer_actions: Float32
    log_probs: Float32
    state: Float32


class ActorPolicy:
    """A network and a distribution of actions, with weights of 0.

    Args:
        spec: ``kind`` of the distribution and its ``heads``, ``outputs`` or bounds ``low`` and ``high``; ``n_obs``,
            ``n_mask``, ``hidden``, ``activation``; ``clip`` of the observation, or None; ``lstm``: units of a recurrent
            layer before the hidden ones, or 0; ``attention``: see ``rlctl.bundle.attention.AttentionSpec``, in place of
            hidden layers, or None.

    Attributes:
        length: of the flat weights: those of the network, then extra ones of the distribution.
        state_size: numbers of a recurrent policy's state, for each environment.
        initial_state: makes the state of a number of environments at the begin of an episode.
    """

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.n_obs, self.n_mask = int(spec["n_obs"]), int(spec["n_mask"])
        self._distribution = KINDS[spec["kind"]](spec)
        attention = spec.get("attention")
        self._network = PolicyNetwork(
            self.n_obs,
            self._distribution.outputs,
            spec["hidden"],
            spec.get("activation", "tanh"),
            spec.get("clip"),
            int(spec.get("lstm") or 0),
            None if attention is None else AttentionSpec.model_validate(attention),
        )
        self.length = self._network.length + self._distribution.extra
        self.state_size = self._network.state_size
        self._flat = np.zeros(self.length, np.float32)
        self._network.view(self._flat[: self._network.length])
        self.initial_state = self._network.initial_state

    def load(self, flat: Float32) -> None:
        """Use these weights; copied."""
        self._flat[:] = flat
        self._distribution.load(self._flat[self._network.length :])

    def outputs(self, observations: Float32, state: Float32) -> tuple[Float32, Float32]:
        """Outputs of the last layer, and the new state."""
        return self._network(observations[:, : self.n_obs], state)

    def act(
        self,
        observations: Float32,
        state: Float32,
        random: np.random.Generator,
        exploration: float = 0.0,
        at_random: bool = False,
    ) -> PolicyOutput:
        """Choose actions.

        Args:
            observations: [n, width], see ``rlctl.distributed.comm.transition_spec.TransitionSpec``.
            state: [n, state_size]; 0 where an episode begins.
            exploration, at_random: see ``rlctl.distributed.learner.collector.Collector.publish``.
        """
        masks = observations[:, self.n_obs : self.n_obs + self.n_mask] > 0.5 if self.n_mask else None
        if not at_random:
            outputs, state = self.outputs(observations, state)
            return PolicyOutput(*self._distribution.sample(outputs, masks, random, exploration), state)
        if self.state_size:
            _, state = self.outputs(observations, state)
        return PolicyOutput(*self._distribution.sample_uniform(len(observations), masks, random), state)
