"""Samplers of Optuna for searches; needs the extra ``optuna``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from rlctl.core.errors import ConfigError, reason
from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView
from rlctl_agents.rules.told_results import loss_vector, told

if TYPE_CHECKING:
    import optuna

_VIOLATIONS = "violations"
"""Attribute of a trial of Optuna that holds how far it violates each constraint; not above 0 where it does not."""


class OptunaSampler(SearchRule):
    """Any sampler of Optuna, asynchronous: it is asked while others of its trials run.

    Its study follows from the trials of the search: each one is asked for, with the values that were evaluated, and its
    result told, in the order in which both happened. So nothing has to be saved, and a campaign that was killed goes on.
    Before each question the sampler is made anew, with a seed of its own.

    Args:
        sampler: class in ``optuna.samplers``.
        options: its arguments; ``seed`` and ``constraints_func`` are set by this rule.

    Raises:
        ConfigError: Optuna is not installed, has no such sampler, or the sampler rejects its arguments.
    """

    name = "optuna"

    def __init__(self, sampler: str = "TPESampler", options: Mapping[str, Any] | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self._class, self._options = _sampler(sampler), dict(options or {})
        self._make(0, [0.0])
        self._study: optuna.Study | None = None
        self._trials: list[Any] = []
        self._told: list[int] = []
        self._asked: list[optuna.trial.Trial] = []

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """What the sampler suggests."""
        study = self._study_of(state)
        distributions = _distributions(state)
        study.sampler = self._make(int(rng.integers(2**31)), [0.0] * state.objective.conditions)
        trial = study.ask(distributions)
        values = {name: _value(state, name, value) for name, value in trial.params.items()}
        point: Floats = state.space.point(values)
        if not state.space.allowed(values):
            point = _allowed(state, point, rng)
        self._proposal = trial, state.space.values(point)
        return point, state.counts

    def reset(self, seed: int) -> None:
        """Forget the study; it is made again from the trials."""
        self._study = None

    def _study_of(self, state: SearchView) -> optuna.Study:
        """The study, up to date with the trials of the search."""
        import optuna

        trials = [trial for trial in state.trials if trial.stage == state.counts]
        if self._study is None or any(a is not b for a, b in zip(self._trials, trials, strict=False)):
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            directions = ["minimize"] * max(1, len(state.objective.names))
            self._study = optuna.create_study(directions=directions)
            self._trials, self._told, self._asked = [], [], []
            self._proposal = None
        for trial in trials[len(self._trials) :]:
            self._tell(state, trials, before=trial.queued_s)
            self._trials.append(trial)
            self._asked.append(self._ask_for(state, trial))
        self._tell(state, trials)
        return self._study

    def _ask_for(self, state: SearchView, trial: Any) -> optuna.trial.Trial:
        """The study's trial for one of the search: the last proposal, or one that is asked for with these values."""
        import optuna

        assert self._study is not None
        proposal, self._proposal = self._proposal, None
        if proposal is not None:
            if dict(proposal[1]) == dict(trial.values):
                return proposal[0]
            self._study.tell(proposal[0], state=optuna.trial.TrialState.FAIL)
        given = {name: _parameter(state, name, value) for name, value in trial.values.items()}
        self._study.sampler = self._make(trial.number, [0.0] * state.objective.conditions)
        self._study.enqueue_trial(given)
        return self._study.ask(_distributions(state))

    def _tell(self, state: SearchView, trials: list[Any], before: float = np.inf) -> None:
        """Tell the results that were known at a time."""
        import optuna

        assert self._study is not None
        known = {trial.number: asked for trial, asked in zip(self._trials, self._asked, strict=True)}
        for trial in told(trials, before):
            if trial.number not in known or trial.number in self._told:
                continue
            self._told.append(trial.number)
            asked = known[trial.number]
            if trial.assessment is None:
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            asked.set_user_attr(_VIOLATIONS, [-margin for margin in trial.assessment.margins])
            self._study.tell(asked, loss_vector(trial.assessment))

    def _make(self, seed: int, violations: list[float]) -> optuna.samplers.BaseSampler:
        """The sampler, with what it can be given of seed and constraints."""
        takes = inspect.signature(self._class).parameters
        given: dict[str, Any] = {"seed": seed} if "seed" in takes else {}
        if violations and "constraints_func" in takes:
            given["constraints_func"] = _violations
        try:
            made: optuna.samplers.BaseSampler = self._class(**self._options, **given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"optuna's {self._class.__name__}: {reason(error)}", ("parameters", "options")) from error
        return made


def _sampler(name: str) -> Any:
    try:
        import optuna
    except ImportError:
        raise ConfigError("optuna is not installed: pip install 'rlctl[optuna]'") from None
    found = getattr(optuna.samplers, name, None)
    if not isinstance(found, type) or not issubclass(found, optuna.samplers.BaseSampler):
        known = ", ".join(sorted(n for n in vars(optuna.samplers) if n.endswith("Sampler")))
        raise ConfigError(f"optuna has no sampler {name!r}; known: {known}", ("parameters", "sampler"))
    return found


def _violations(trial: Any) -> list[float]:
    return list(trial.user_attrs[_VIOLATIONS])


def _distributions(state: SearchView) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for name, kind in _parameters(state).items():
        if "choices" in kind:
            found[name] = CategoricalDistribution(kind["choices"])
        elif "ordered" in kind:
            found[name] = IntDistribution(0, len(kind["ordered"]) - 1)
        elif kind["integer"]:
            found[name] = IntDistribution(int(kind["low"]), int(kind["high"]), log=kind["log"])
        else:
            found[name] = FloatDistribution(kind["low"], kind["high"], log=kind["log"])
    return found


def _parameters(state: SearchView) -> dict[str, dict[str, Any]]:
    parameters = {name: parameter.model_dump() for name, parameter in state.options.parameters.items()}
    if not parameters:
        raise ConfigError("samplers of Optuna choose parameters, not candidates of a table")
    return parameters


def _value(state: SearchView, name: str, value: Any) -> Any:
    """The parameter's value for Optuna's."""
    kind = _parameters(state)[name]
    return kind["ordered"][value] if "ordered" in kind else value


def _parameter(state: SearchView, name: str, value: Any) -> Any:
    """Optuna's value for the parameter's."""
    kind = _parameters(state)[name]
    return kind["ordered"].index(value) if "ordered" in kind else value


def _allowed(state: SearchView, point: Floats, rng: np.random.Generator) -> Floats:
    """A point near one that violates constraints of the parameters."""
    for width in (0.02, 0.05, 0.1, 0.2):
        near = state.space.near(point, width, rng, 64)
        if len(near):
            return np.asarray(near[int(np.argmin(((near - point) ** 2).sum(1)))])
    return np.asarray(state.space.sample(rng, 1)[0])
