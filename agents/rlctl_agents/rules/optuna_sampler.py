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

_ONLY_RESULTS = ("TPESampler", "GPSampler", "RandomSampler")
"""Samplers that know nothing but the results; the others note at each question what they need for the next ones."""


class OptunaSampler(SearchRule):
    """Any sampler of Optuna, asynchronous: it is asked while others of its trials run.

    Its study follows from the trials of the search: for each one it is asked again, and told the result, in the order
    in which both happened. So nothing has to be saved, and a campaign that was killed goes on. Before each question the
    sampler is made anew, with a seed of its own.

    Args:
        sampler: class in ``optuna.samplers``.
        options: its arguments, besides ``seed``.

    Raises:
        ConfigError: Optuna is not installed, has no such sampler, or the sampler rejects its arguments.
    """

    name = "optuna"

    def __init__(self, sampler: str = "TPESampler", options: Mapping[str, Any] | None = None, **shared: Any) -> None:
        super().__init__(**shared)
        self._class, self._options = _sampler(sampler), dict(options or {})
        self._make(0)
        self._study: optuna.Study | None = None
        self._trials: list[Any] = []
        self._told: set[int] = set()
        self._asked: dict[int, optuna.trial.Trial] = {}
        self._proposal: optuna.trial.Trial | None = None

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int]:
        """What the sampler suggests."""
        self._study_of(state)
        trial = self._ask(state, len(state.trials))
        self._proposal = trial
        values = _values(state, trial)
        point: Floats = state.space.point(values)
        return (point if state.space.allowed(values) else _allowed(state, point, rng)), state.counts

    def reset(self, seed: int) -> None:
        """Forget the study; it is made again from the trials."""
        self._study = None

    def _study_of(self, state: SearchView) -> optuna.Study:
        """The study, up to date with the trials of the search."""
        import optuna

        trials = [trial for trial in state.trials if trial.stage == state.counts]
        if self._study is None or any(a is not b for a, b in zip(self._trials, trials, strict=False)):
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            minimize = optuna.study.StudyDirection.MINIMIZE
            self._study = optuna.create_study(directions=[minimize] * max(1, len(state.objective.names)))
            self._trials, self._told, self._asked = [], set(), {}
            self._proposal = None
        for trial in trials[len(self._trials) :]:
            self._tell(state, trials, before=trial.queued_s)
            self._trials.append(trial)
            self._asked[trial.number] = self._ask_for(state, trial)
        self._tell(state, trials)
        return self._study

    def _ask_for(self, state: SearchView, trial: Any) -> optuna.trial.Trial:
        """The study's trial for one of the search: what the sampler proposes, or the values that were evaluated."""
        import optuna

        assert self._study is not None
        proposal, self._proposal = self._proposal, None
        if proposal is None and self._class.__name__ not in _ONLY_RESULTS:
            proposal = self._ask(state, trial.number)
        if proposal is not None:
            if _values(state, proposal) == dict(trial.values):
                return proposal
            self._study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        kinds = _parameters(state)
        given = {n: kinds[n]["ordered"].index(v) if "ordered" in kinds[n] else v for n, v in trial.values.items()}
        self._study.enqueue_trial(given)
        return self._study.ask(_distributions(state))

    def _ask(self, state: SearchView, number: int) -> optuna.trial.Trial:
        """Ask for a trial of the search."""
        assert self._study is not None
        seed = int(np.random.SeedSequence([state.seed, number]).generate_state(1)[0]) >> 1
        self._study.sampler = self._make(seed)
        return self._study.ask(_distributions(state))

    def _tell(self, state: SearchView, trials: list[Any], before: float = np.inf) -> None:
        """Tell the results that were known at a time."""
        import optuna

        assert self._study is not None
        for trial in told(trials, before):
            asked = self._asked.get(trial.number)
            if asked is None or trial.number in self._told:
                continue
            self._told.add(trial.number)
            if trial.assessment is None:
                self._study.tell(asked, state=optuna.trial.TrialState.FAIL)
                continue
            for i, margin in enumerate(trial.assessment.margins):
                asked.set_constraint(f"c{i}", -margin)
            self._study.tell(asked, loss_vector(trial.assessment))

    def _make(self, seed: int) -> optuna.samplers.BaseSampler:
        """The sampler, with a seed if it takes one."""
        given = {"seed": seed} if "seed" in inspect.signature(self._class).parameters else {}
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


def _values(state: SearchView, trial: Any) -> dict[str, Any]:
    """The parameters' values for those of a trial of Optuna, as the search has them."""
    kinds = _parameters(state)
    found = {n: kinds[n]["ordered"][v] if "ordered" in kinds[n] else v for n, v in trial.params.items()}
    return dict(state.space.values(state.space.point(found)))


def _allowed(state: SearchView, point: Floats, rng: np.random.Generator) -> Floats:
    """A point near one that violates constraints of the parameters."""
    for width in (0.02, 0.05, 0.1, 0.2):
        near = state.space.near(point, width, rng, 64)
        if len(near):
            return np.asarray(near[int(np.argmin(((near - point) ** 2).sum(1)))])
    return np.asarray(state.space.sample(rng, 1)[0])
