"""The problems of a search's twin, as the section ``twin`` of the configuration says."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from rlctl.config.twin_section import SyntheticSection, TwinSection
from rlctl.core.errors import ConfigError
from rlctl.core.task import Resources
from rlctl.plugins.table_twin import TwinColumns
from rlctl.surrogates.fitted_folder import FittedFolder, read_fitted
from rlctl.surrogates.fitted_table import FittedTable
from rlctl.surrogates.measured_scaling import MeasuredScaling
from rlctl_envs.search.evaluated_points import Space
from rlctl_envs.search.fitted_problem import FittedProblem, check_columns, search_columns
from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import SearchOptions
from rlctl_envs.search.problem import Problem
from rlctl_envs.search.recorded_problem import RecordedProblem
from rlctl_envs.search.synthetic_problem import SyntheticProblem

_MOST_KEPT = 256
"""Problems that are kept, since drawing one takes tens of milliseconds."""


class TwinProblems:
    """What evaluations give on the twin, by instance.

    Args:
        twin: the section; None: it is left out.
        options, space, objective: of the search.
        results: names of what its programs' readers find.
        resources: for each stage, what an evaluation may occupy.
        usual_s: seconds that an evaluation takes about.
    """

    def __init__(
        self,
        twin: TwinSection | None,
        options: SearchOptions,
        space: Space,
        objective: SearchObjective,
        results: Sequence[str],
        resources: Sequence[Sequence[Resources]],
        usual_s: float,
    ) -> None:
        self._twin, self._options, self._space, self._objective = twin, options, space, objective
        self._results, self._resources, self._usual_s = list(results), resources, usual_s
        self._problems: dict[int, Problem] = {}

    def check(self) -> None:
        """Refuse a twin that is not there, or of another search."""
        if self._twin is None:
            return
        if self._twin.fitted is not None:
            _ = self.fitted
        if self._twin.recorded is not None:
            _ = self._recorded
        if self._twin.synthetic is not None and self._twin.synthetic.calibration is not None:
            try:
                MeasuredScaling.read(Path(self._twin.synthetic.calibration))
            except ConfigError as error:
                raise ConfigError(error.problem, ("twin", "synthetic", "calibration")) from None

    def of(self, seed: int) -> Problem:
        """That of instance ``seed``."""
        if seed not in self._problems:
            if len(self._problems) >= _MOST_KEPT:
                del self._problems[next(iter(self._problems))]
            self._problems[seed] = self.drawn(seed)
        return self._problems[seed]

    def drawn(self, seed: int) -> Problem:
        """The same, made anew."""
        given = (self._options, self._space, self._objective, self._options.counting_stage)
        if self._twin is not None and self._twin.recorded is not None:
            return self._recorded
        if self._twin is not None and self._twin.fitted is not None:
            return FittedProblem(*given, self._resources, self.fitted.model, seed)
        ranges = (self._twin and self._twin.synthetic) or SyntheticSection()
        return SyntheticProblem(*given, seed, self._usual_s, ranges)

    @property
    def columns(self) -> TwinColumns:
        """What a twin is fitted to."""
        return search_columns(self._options, self._space, self._objective, self._results, self._resources)

    @cached_property
    def fitted(self) -> FittedFolder[FittedTable]:
        """The twin's folder; read when it is first asked for, since real campaigns can do without."""
        assert self._twin is not None
        assert self._twin.fitted is not None
        try:
            folder = read_fitted(Path(self._twin.fitted), FittedTable.kind, FittedTable.restored)
            check_columns(self.columns, folder.model)
        except ConfigError as error:
            raise ConfigError(error.problem, ("twin",)) from None
        return folder

    @cached_property
    def _recorded(self) -> RecordedProblem:
        """Likewise, the table of recorded evaluations."""
        assert self._twin is not None
        assert self._twin.recorded is not None
        path = Path(self._twin.recorded)
        try:
            return RecordedProblem(path, self._space, self._options, self._results, self._objective)
        except ConfigError as error:
            raise ConfigError(error.problem, ("twin", "recorded")) from None
