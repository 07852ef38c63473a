"""Whether a search has reached its goal, or ends without."""

from __future__ import annotations

from itertools import zip_longest

from rlctl_envs.search.objective import SearchObjective
from rlctl_envs.search.options import UntilOptions
from rlctl_envs.search.search_state import SearchState

MOST_FRUITLESS = 300
"""Runs in a row that may fail, be stopped, or be infeasible."""

MOST_ON_TWIN = 1000
"""Points that a search on a twin evaluates at most, should it be without end."""


class SearchGoal:
    """What ``until`` says, and on a twin, the goals of searches that have none.

    Attributes:
        number: successes that reach the goal; None: there is no such goal.
    """

    def __init__(self, until: UntilOptions, objective: SearchObjective) -> None:
        self._until, self._objective = until, objective
        self.number = until.found or (1 if until.value is not None else None)
        self._of_twin: list[bool] = []

    def moved(self, until: UntilOptions) -> SearchGoal:
        """Another goal, with what is known of that of a twin."""
        other = SearchGoal(until, self._objective)
        other._of_twin = list(self._of_twin)
        return other

    def forget(self) -> None:
        """Another search begins."""
        self._of_twin = []

    def note(self, reached: list[bool]) -> None:
        """A result on a twin, where it is known which goals it reaches."""
        self._of_twin = [old or new for old, new in zip_longest(self._of_twin, reached, fillvalue=False)]

    def best(self, state: SearchState) -> float | None:
        """The best value of the first objective; None: nothing feasible was found."""
        best = state.counted.best
        return None if best is None else self._objective.signs[0] * best[1].losses[0]

    def reached(self, state: SearchState) -> bool:
        """Whether the goal is reached."""
        until = self._until
        if until.found is not None and len(state.counted.feasible) >= until.found:
            return True
        if until.value is not None:
            best, sign = self.best(state), self._objective.signs[0]
            return best is not None and sign * best <= sign * until.value
        return self.number is None and bool(self._of_twin) and all(self._of_twin)

    def successes(self, state: SearchState) -> int:
        """Results that fulfil the condition; the goal, if it is a value or that of a twin; else feasible results."""
        if self._objective.finds or (self._until.value is None and not self._of_twin):
            return len(state.counted.feasible)
        return int(self.reached(state))

    def room(self, state: SearchState) -> bool:
        """Whether a further evaluation could count, should all that run give a result."""
        most, trials = self._until.evaluations, self._until.trials
        if trials is not None and state.submitted >= trials:
            return False
        return most is None or state.evaluated + state.awaited < most

    def over(self, state: SearchState) -> str:
        """Why the search ends, though its goal is not reached; empty: it does not.

        Points that cannot be evaluated count as evaluations.
        """
        until = self._until
        evaluations = state.evaluated
        if state.now_s >= state.deadline_s:
            return "the budget is used"
        if until.evaluations is not None and evaluations >= until.evaluations:
            return f"{evaluations} evaluations"
        if until.trials is not None and state.submitted - len(state.running) >= until.trials:
            return f"{until.trials} trials"
        if until.no_improvement is not None and (since := state.counted.since_improvement) >= until.no_improvement:
            return f"no improvement in {since} results"
        if state.fruitless >= MOST_FRUITLESS:
            return f"{state.fruitless} runs in a row without a result"
        return "a long search on the twin" if self._of_twin and state.started >= MOST_ON_TWIN else ""
