"""What a learning algorithm sees of its actors: chunks come in, policies go out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from rlctl.distributed.comm.chunk import Chunk
from rlctl.distributed.comm.transition_spec import Float32, Layout


class Source(Protocol):
    """The actors of one learner.

    Attributes:
        version: of the newest published policy; 0 before the first.
    """

    version: int

    @property
    def layout(self) -> Layout:
        """Of rows and actions."""

    def publish(
        self, spec: Mapping[str, Any], weights: Float32, exploration: float = 0.0, at_random: bool = False
    ) -> None:
        """A new policy, which every actor takes up as soon as it hears of it.

        Args:
            spec: what the weights mean, see ``numpy_policies``; never changes within a training.
            weights: flat; copied.
            exploration: what the kind of policy makes of it: a probability of a random action, or a standard deviation.
            at_random: act at random, whatever the weights.
        """

    def gather(self, transitions: int, asked_to_stop: Callable[[], bool]) -> list[Chunk]:
        """Wait, asleep, for chunks of at least so many transitions together, in the order in which they came.

        Each is acknowledged: its actor may send the next one. Nothing is dropped for its age. Fewer come back when
        ``asked_to_stop``.

        Raises:
            ActorsLost: there is no actor any more, and none can be started.
        """
