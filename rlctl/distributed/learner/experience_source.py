"""The interface between a learning algorithm and its actors: chunks in, policies out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rlctl.distributed.comm.chunk import Chunk
from rlctl.distributed.comm.transition_spec import Float32, TransitionSpec


class ExperienceSource(Protocol):
    """The actors of one learner.

    Attributes:
        version: of the newest published policy; 0 before the first.
    """

    version: int

    @property
    def transition_spec(self) -> TransitionSpec:
        """Of observations and actions."""

    def publish(
        self, policy_spec: Mapping[str, Any], weights: Float32, exploration: float = 0.0, at_random: bool = False
    ) -> None:
        """Publish a policy, which every actor uses as soon as it receives it.

        Args:
            policy_spec: meaning of the weights, see ``numpy_policies``; constant within a training.
            weights: flat; copied.
            exploration: a probability of a random action or a standard deviation, depending on the kind of policy.
            at_random: whether to act at random instead.
        """

    def next_batch(self, transitions: int, stop_requested: Callable[[], bool]) -> list[Chunk]:
        """Wait, asleep, for chunks of at least so many transitions together, in the order in which they came.

        Each is acknowledged: its actor may send the next one. Nothing is dropped for its age. Fewer come back when
        ``stop_requested``.

        Raises:
            RanksLostError: there is no actor any more, and none can be started.
        """
