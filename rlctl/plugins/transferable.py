"""Kinds of campaign of which a prior can be learned, from earlier ones or from their twin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from rlctl.core.machine import Capacity
from rlctl.plugins.recorded_table import RecordedTable
from rlctl.surrogates.campaign_prior import SearchGround
from rlctl.surrogates.search_model import Evaluated


class Transfer(Protocol):
    """Earlier campaigns of one kind, as models read them."""

    @property
    def inputs(self) -> Mapping[str, Any]:
        """What the campaigns must have in common, for JSON: parameters, stages and objective."""

    def recorded(self, source: RecordedTable) -> Evaluated:
        """A recorded campaign: the evaluations that have ended by themselves, in their order.

        Raises:
            ConfigError: the source lacks a column, or has a cell that cannot be used; it names file and line.
        """

    def drawn(self, count: int, evaluations: int, seed: int) -> Sequence[Evaluated]:
        """Campaigns on problems of the twin, their points spread over the space.

        Args:
            count: of problems.
            evaluations: of each.
            seed: of problems and points.
        """

    def ground(self, seed: int) -> SearchGround:
        """Where campaigns take place; ``seed``: of the points that stand for the space."""


@runtime_checkable
class Transferable(Protocol):
    """A factory of campaigns that can begin with what earlier ones say."""

    def transfer(self, capacity: Capacity) -> Transfer:
        """Reads and plays earlier campaigns.

        Args:
            capacity: the allocation, whose nodes costs are counted in.
        """

    def prior_digest(self) -> str | None:
        """SHA-256 of the prior that the configuration names; None: it names none.

        Raises:
            ConfigError: it cannot be read, or is of other campaigns.
        """
