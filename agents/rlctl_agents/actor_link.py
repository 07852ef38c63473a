"""What connects a model of Stable-Baselines3 with the actors whose chunks it learns from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from rlctl.distributed.comm.chunk import Chunk

if TYPE_CHECKING:
    from rlctl.distributed.comm.polling import RankGroup
    from rlctl.distributed.learner.context import LearnerContext
    from rlctl.distributed.learner.experience_source import ExperienceSource

ATTACHED = ("link", "bootstrap", "_spec", "_memory")
"""Attributes of a model that are not saved with it."""


@dataclass(slots=True)
class ActorLink:
    """Actors and fellow learners of a model.

    Attributes:
        source: of chunks.
        asked_to_stop: looked at while waiting.
        learners: of the same policy, this one among them; None: it is alone.
    """

    source: ExperienceSource
    asked_to_stop: Callable[[], bool] = lambda: False
    learners: RankGroup | None = None

    @classmethod
    def of(cls, ranks: LearnerContext) -> ActorLink:
        """The link of a learner among MPI ranks."""
        assert ranks.collector is not None
        return cls(ranks.collector, ranks.stop, ranks.learners)

    @property
    def count(self) -> int:
        """Number of learners."""
        return 1 if self.learners is None else self.learners.size

    def total(self, number: int) -> int:
        """The sum of a number over all learners."""
        return number if self.learners is None else self.learners.total(number)


def ended_infos(chunks: Sequence[Chunk]) -> tuple[list[dict[str, Any]], NDArray[np.bool_]]:
    """Ended episodes as Stable-Baselines3's callbacks read them.

    Returns:
        an info for each episode that ended, and as many times True; one empty info and False if none did.
    """
    infos: list[dict[str, Any]] = [
        {
            "episode": {"r": ended.episode_return, "l": ended.length, "t": round(time.monotonic(), 6)},
            "campaign": dict(ended.metrics),
        }
        for chunk in chunks
        for _, ended in chunk.episode_ends
    ]
    return (infos, np.ones(len(infos), np.bool_)) if infos else ([{}], np.zeros(1, np.bool_))
