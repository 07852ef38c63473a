"""Kinds of campaign whose twin can be fitted to recorded evaluations, and whose programs can be calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

from rlctl.plugins.recorded_table import RecordedTable
from rlctl.surrogates.fitted_folder import FittedModel
from rlctl.surrogates.held_out import Agreement


@dataclass(frozen=True, slots=True)
class TwinFit:
    """What was fitted.

    Attributes:
        model: of the recorded evaluations.
        rows, failed: that it rests on, and how many of them failed.
        held_out: how well evaluations are predicted that the model has not seen.
    """

    model: FittedModel
    rows: int
    failed: int
    held_out: Agreement


@runtime_checkable
class Fittable(Protocol):
    """A factory of campaigns whose twin can be fitted."""

    def fit_twin(self, sources: Sequence[RecordedTable], seed: int) -> TwinFit:
        """Fit a twin to recorded evaluations.

        Args:
            seed: of what is left to chance in the fit, and of the division for the held-out error.

        Raises:
            ConfigError: the sources cannot be used, or have too few evaluations.
        """

    def twin_about(self) -> Mapping[str, Any]:
        """What is known about the fitted twin that the configuration names: sources, held-out error, versions.

        Raises:
            ConfigError: it cannot stand in for the programs of this campaign.
        """

    def compare_twin(self, source: RecordedTable) -> Agreement:
        """How well that twin predicts evaluations which it was not fitted to.

        Raises:
            ConfigError: the twin or the table cannot be used, or none of its evaluations has ended.
        """


@runtime_checkable
class Scalable(Protocol):
    """A factory of campaigns whose programs can be calibrated.

    Attributes:
        scaling_rule: name of the rule that runs points on every choice of resources, one after the other.
    """

    scaling_rule: ClassVar[str]

    def scaling_options(self, points: int) -> Mapping[str, Any]:
        """Options of the campaign with which that rule measures how its program scales.

        Args:
            points: that are evaluated on every choice of resources.
        """
