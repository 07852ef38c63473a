"""Kinds of campaign whose twin can be fitted to recorded evaluations, and whose programs can be calibrated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from rlctl.surrogates.fitted_table import FittedTable
from rlctl.surrogates.table_inputs import TableInputs


@dataclass(frozen=True, slots=True)
class TwinColumns:
    """Columns of the table of evaluations that a twin is fitted to.

    Attributes:
        inputs: parameters, and where there is a choice, ``stage``, ``cores`` and ``gpus`` (of all ranks together).
        outcomes: results that the campaign cannot do without.
        further: results that are learned where the table has them.
        cores, gpus: of all ranks together, that an evaluation may have.
    """

    inputs: TableInputs
    outcomes: tuple[str, ...]
    further: tuple[str, ...] = ()
    cores: tuple[float, ...] = (1.0,)
    gpus: tuple[float, ...] = (0.0,)


@runtime_checkable
class Fittable(Protocol):
    """A factory of such campaigns."""

    def twin_columns(self) -> TwinColumns:
        """What a twin of this campaign is fitted to."""

    def check_fitted(self, table: FittedTable) -> None:
        """Refuse models of another campaign.

        Raises:
            ConfigError: they cannot stand in for its programs.
        """

    def scaling_options(self, points: int) -> Mapping[str, Any]:
        """Options of the campaign that make it measure how its program scales, by the rule ``scaling_design``.

        Args:
            points: that are evaluated on every choice of resources.
        """
