"""The network, in NumPy: what a login node or a controller needs to use a trained policy, and no more."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rlctl.bundle.actions import Categorical, Float32, Mask, action_distribution
from rlctl.bundle.arrays import Declared
from rlctl.bundle.attention import AttentionSpec
from rlctl.bundle.manifest import MAX_STATISTICS, Manifest, Network, as_data, digest
from rlctl.bundle.policy_network import LOG_STD, PolicyNetwork, weight_shapes
from rlctl.bundle.spaces import build, describe, length
from rlctl.core.campaign import Decision
from rlctl.core.errors import PolicyError

MAX_PARAMETERS = 1 << 26
"""Of the layers, and in the golden pairs: enough for pictures."""


class NumpyPolicy:
    """A multilayer perceptron and what its outputs mean in the action space.

    Attributes:
        manifest: what was saved with it.
        folder: where it was loaded from.
        digest: identifies the bundle; see ``rlctl.bundle.manifest.digest``.
        observation_space, action_space: what it was trained for.
        deterministic: whether it takes the likeliest answer, or draws one.
        distribution: of actions, on the outputs of ``network``.
    """

    def __init__(
        self, weights: Mapping[str, NDArray[Any]], manifest: Manifest, deterministic: bool | None = None
    ) -> None:
        """Check that everything fits.

        Args:
            weights: as ``declared_weights`` declares.
            deterministic: overrides the manifest.

        Raises:
            PolicyError: the arrays or spaces are not what this class computes.
        """
        self.manifest = manifest
        self.folder: Path | None = None
        self.name = manifest.name
        self.digest = digest(manifest)
        self.deterministic = manifest.deterministic if deterministic is None else deterministic
        self.observation_space: spaces.Space[Any] = build(manifest.spaces.observation)
        self.action_space: spaces.Space[Any] = build(manifest.spaces.action)
        self.observation_length = length(manifest.spaces.observation)
        self.distribution = action_distribution(self.action_space, weights.get(LOG_STD), manifest.network.output)
        figures = manifest.observations
        lengths = {len(f) for f in (figures.mean, figures.std, figures.min, figures.max)}
        if lengths not in ({self.observation_length}, {1} if self.observation_length > MAX_STATISTICS else None):
            raise PolicyError(f"policy {self.name}: statistics of other than {self.observation_length} numbers")
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise PolicyError(f"policy {self.name}: {name} has numbers that are not finite")
        self.network = PolicyNetwork(manifest.network, weights)
        self._random = np.random.default_rng(0)
        self._memory: dict[str, Float32] = {}

    @property
    def heads(self) -> tuple[int, ...]:
        """Number of choices of each head; none where actions are no choices."""
        return self.distribution.heads if isinstance(self.distribution, Categorical) else ()

    def require(
        self, campaign: str, version: int, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
    ) -> None:
        """Check that this policy was made for a campaign.

        Raises:
            PolicyError: it was made for another campaign, or for another version or other spaces of it.
        """
        made_for = self.manifest.campaign
        if (made_for.name, made_for.version) != (campaign, version):
            raise PolicyError(
                f"policy {self.name} was trained for {made_for.name} version {made_for.version}, "
                f"but the campaign is {campaign} version {version}: train it for this campaign"
            )
        if as_data(self.manifest)["spaces"] != describe(observation_space, action_space):
            raise PolicyError(
                f"policy {self.name} reads {self.observation_space} and answers {self.action_space}, but the campaign "
                f"has {observation_space} and {action_space}: use the campaign options it was trained with"
            )

    def logits(self, observation: NDArray[Any]) -> Float32:
        """Outputs of the last layer, before any mask; for one flat observation or rows of them.

        A recurrent network remembers nothing here.
        """
        x = np.asarray(observation, dtype=np.float32)
        rows = np.atleast_2d(x)
        return self.network(rows, self.network.initial_state(len(rows)))[0].reshape((*x.shape[:-1], -1))

    def predict(self, observation: Any, mask: Mask | None = None) -> Any:
        """The action for an observation, each as in its space: what ``env.step`` takes.

        Args:
            mask: allowed choices, flat over the heads; None: all.

        Raises:
            PolicyError: the observation does not fit its space.
        """
        flat = self._flat(observation)
        answer = self._answer(flat, None if mask is None else np.asarray(mask, np.bool_), "")
        if isinstance(self.action_space, spaces.Discrete):
            return answer[0] + self.action_space.start
        return answer.reshape(self.action_space.shape or ())

    def act(self, decision: Decision) -> NDArray[Any]:
        """The answer, flat: an allowed index for each head (the first of a head that allows nothing), or numbers."""
        return self._answer(decision.observation, decision.mask, decision.subject)

    def reset(self, seed: int) -> None:
        """Start the randomness anew, and forget all subjects."""
        self._random = np.random.default_rng(seed)
        self._memory = {}

    def state(self) -> Mapping[str, Any]:
        """The state of the random generator, and what a recurrent network remembers of each subject."""
        state: dict[str, Any] = {"random": self._random.bit_generator.state}
        if self.network.state_size:
            state["memory"] = {subject: memory.tolist() for subject, memory in self._memory.items()}
        return state

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state`` was taken."""
        self._random.bit_generator.state = state["random"]
        memory = state.get("memory", {})
        self._memory = {subject: np.asarray(numbers, np.float32) for subject, numbers in memory.items()}

    def _answer(self, flat: NDArray[Any], mask: Mask | None, subject: str) -> NDArray[Any]:
        if not np.isfinite(flat).all():
            bad = int(np.argmin(np.isfinite(np.ravel(flat))))
            raise PolicyError(f"policy {self.name}: the observation's number {bad} is {np.ravel(flat)[bad]}")
        state = self._memory.get(subject)
        if state is None:
            state = self.network.initial_state(1)[0]
        rows, after = self.network(np.asarray(flat, np.float32)[None], state[None])
        if self.network.state_size:
            self._memory[subject] = after[0]
        outputs = rows[0]
        if self.deterministic:
            return self.likeliest(outputs, mask)
        masks = None if mask is None else mask[None]
        drawn: NDArray[Any] = self.distribution.sample(outputs[None], masks, self._random)[0][0]
        return drawn

    def likeliest(self, outputs: Float32, mask: Mask | None) -> NDArray[Any]:
        """The likeliest action for outputs of the last layer, flat."""
        found: NDArray[Any] = self.distribution.mode(outputs[None], None if mask is None else mask[None])[0]
        return found

    def _flat(self, observation: Any) -> Float32:
        space = self.observation_space
        try:
            raw = observation if isinstance(space, spaces.Box) else spaces.flatten(space, observation)
            flat = np.asarray(raw, np.float32).reshape(-1)
        except (TypeError, ValueError, KeyError, IndexError) as error:
            raise PolicyError(f"policy {self.name}: the observation does not fit {space} ({error})") from None
        if len(flat) != self.observation_length:
            raise PolicyError(
                f"policy {self.name}: an observation of {len(flat)} numbers, not {self.observation_length}"
            )
        return flat


def declared_weights(manifest: Manifest) -> Declared:
    """Names, shapes and type of the weights; raise PolicyError if they are too many or do not fit the spaces."""
    network, action = manifest.network, manifest.spaces.action
    inputs, outputs = length(manifest.spaces.observation), length(action)
    if network.attention is not None:
        _require_sets(network, network.attention, inputs, outputs, action.type)
    shapes = weight_shapes(network, inputs, outputs, action.type == "Box")
    if network.attention is None and sum(map(math.prod, shapes.values())) > MAX_PARAMETERS:
        raise PolicyError(
            f"the network has more than {MAX_PARAMETERS:,} weights: make its layers narrower or the observation shorter"
        )
    return {name: (shape, np.float32) for name, shape in shapes.items()}


def _require_sets(network: Network, spec: AttentionSpec, inputs: int, outputs: int, kind: str) -> None:
    problem = spec.problem()
    if problem is not None:
        raise PolicyError(problem)
    if spec.layout.length != inputs or kind == "Box":
        raise PolicyError(f"sets of {spec.layout.length} numbers for observations of {inputs}, or no choices")
    if spec.layout.choices != outputs or network.hidden or network.lstm:
        raise PolicyError(f"{spec.layout.choices} rows for {outputs} choices, or layers beside the attention")
