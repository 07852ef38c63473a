"""Policies of actors, in NumPy: a flat vector of weights, and a specification of its meaning.

A rank with PyTorch takes seconds to start and hundreds of megabytes; a forward pass of a small network on few
observations is also an order of magnitude faster without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.bundle.actions import action_distribution
from rlctl.bundle.manifest import Network
from rlctl.bundle.policy_network import LOG_STD, PolicyNetwork, views, weight_shapes
from rlctl.distributed.comm.transition_spec import Float32, TransitionSpec


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
        spec: ``network``, see ``rlctl.bundle.manifest.Network``, and whether it is ``greedy``, see
            ``rlctl.bundle.actions.Categorical``.
        layout: of the observations that ``act`` gets.
        action_space: of the environments.

    Attributes:
        length: of the flat weights, which lie as ``rlctl.bundle.policy_network.weight_shapes`` says.
        state_size: numbers of a recurrent policy's state, for each environment.
        initial_state: makes the state of a number of environments at the begin of an episode.
    """

    def __init__(self, spec: Mapping[str, Any], layout: TransitionSpec, action_space: spaces.Space[Any]) -> None:
        self.n_obs, self.n_mask = layout.n_obs, layout.n_mask
        network = Network.model_validate(spec["network"])
        shapes = weight_shapes(network, self.n_obs, spaces.flatdim(action_space), isinstance(action_space, spaces.Box))
        self.length = sum(map(math.prod, shapes.values()))
        self._flat = np.zeros(self.length, np.float32)
        self._weights = views(self._flat, shapes)
        self._network = PolicyNetwork(network, self._weights)
        self._describe = partial(action_distribution, action_space, output=network.output, greedy=spec["greedy"])
        self._distribution = self._describe(self._weights.get(LOG_STD))
        self.state_size, self.initial_state = self._network.state_size, self._network.initial_state

    def load(self, flat: Float32) -> None:
        """Use these weights; copied."""
        self._flat[:] = flat
        self._distribution = self._describe(self._weights.get(LOG_STD))

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
