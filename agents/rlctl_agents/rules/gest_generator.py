"""Generators of the gest-api standard (Xopt, Optimas, libEnsemble) for searches; needs the extra ``gest``."""

from __future__ import annotations

import contextlib
import importlib
import random
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from rlctl.core.errors import ConfigError, reason
from rlctl_agents.rules.search_rule import Floats, SearchRule, SearchView
from rlctl_agents.rules.told_results import loss_vector, told

_ID = "_id"
_ATTEMPTS = 20


class GestGenerator(SearchRule):
    """Any generator of the gest-api standard, asynchronous if it is.

    It sees the unit cube: a number between 0 and 1 for each parameter, whatever its scale, and the numbers of its
    choices where these have no order. It minimizes ``f0``, ``f1`` ...; constraints ``c0`` ... are met above 0. A
    generator that cannot suggest a point until it has results is asked again at the next one. Nothing is saved: after a
    resumption a new generator is given all results.

    Args:
        generator: ``module:Class``.
        options: its arguments, besides ``vocs``.
        initial: evaluations of a Sobol sequence before it is asked, which waits for their results.

    Raises:
        ConfigError: gest-api is not installed, there is no such class, or it rejects its arguments.
    """

    name = "gest"

    def __init__(
        self, generator: str = "", options: Mapping[str, Any] | None = None, initial: int = 0, **shared: Any
    ) -> None:
        super().__init__(**shared)
        self._class, self._options, self.initial = _class(generator), dict(options or {}), initial
        self._generator: Any = None
        self._ingested: dict[int, Any] = {}
        self._proposed: list[tuple[Mapping[str, Any], Any]] = []

    def propose(self, state: SearchView, rng: np.random.Generator) -> tuple[Floats, int] | None:
        """What the generator suggests; None: it waits for results."""
        if state.started < self.initial:
            return state.space.spread(state.seed, state.started), state.counts
        if state.started == self.initial and state.running:  # generators of sequences begin with all of these
            return None
        try:
            with _seeded(int(rng.integers(2**32))):
                return self._new(state)
        except ConfigError:
            raise
        except Exception as error:  # a generator of any package
            if state.running:
                return None
            more = "" if self.initial else "; if it needs results first, set initial"
            raise ValueError(f"{self._class.__name__} suggests nothing: {reason(error)}{more}") from error

    def reset(self, seed: int) -> None:
        """Forget the generator; a new one is given the results."""
        self._generator = None

    def _new(self, state: SearchView) -> tuple[Floats, int] | None:
        """A point that was not evaluated yet; it is told at once the results of others that it suggests."""
        names, choices = list(state.space.names), _choices(state)
        self._ingest(state, names, choices)
        for _ in range(_ATTEMPTS):
            suggested = dict(self._generator.suggest(1)[0])
            point = np.array([_unit(suggested[name], choices.get(name)) for name in names])
            same = None if state.options.noisy else state.tried(point, state.counts)
            if same is not None and same.ended_s is None:
                return None  # it suggests the same until it has its result
            if same is None or same.assessment is None:
                break
            self._generator.ingest(
                [self._result(same, names, choices) | {k: v for k, v in suggested.items() if k == _ID}]
            )
        if self._class.returns_id:
            self._proposed.append((state.space.values(point), suggested[_ID]))
        return point, state.counts

    def _ingest(self, state: SearchView, names: list[str], choices: Mapping[str, int]) -> None:
        trials = [trial for trial in state.trials if trial.stage == state.counts]
        here = {trial.number: trial for trial in trials}
        if self._generator is None or any(here.get(number) is not trial for number, trial in self._ingested.items()):
            self._generator, self._ingested, self._proposed = self._make(state, names, choices), {}, []
        results = []
        for trial in told(trials):
            if trial.assessment is None or trial.number in self._ingested:
                continue
            self._ingested[trial.number] = trial
            result = self._result(trial, names, choices)
            mine = next((i for i, (values, _) in enumerate(self._proposed) if values == trial.values), None)
            if mine is not None:
                result[_ID] = self._proposed.pop(mine)[1]
            results.append(result)
        if results:
            self._generator.ingest(results)

    def _result(self, trial: Any, names: list[str], choices: Mapping[str, int]) -> dict[str, Any]:
        result: dict[str, Any] = {n: _variable(u, choices.get(n)) for n, u in zip(names, trial.point, strict=True)}
        result |= {f"f{i}": loss for i, loss in enumerate(loss_vector(trial.assessment))}
        return result | {f"c{i}": margin for i, margin in enumerate(trial.assessment.margins)}

    def _make(self, state: SearchView, names: list[str], choices: Mapping[str, int]) -> Any:
        from gest_api.vocs import VOCS

        variables = {name: set(range(choices[name])) if name in choices else [0.0, 1.0] for name in names}
        objectives = {f"f{i}": "MINIMIZE" for i in range(max(1, len(state.objective.names)))}
        constraints = {f"c{i}": ["GREATER_THAN", 0.0] for i in range(state.objective.conditions)}
        try:
            return self._class(
                vocs=VOCS(variables=variables, objectives=objectives, constraints=constraints), **self._options
            )
        except Exception as error:  # a generator of any package
            raise ConfigError(f"{self._class.__name__} cannot be made: {reason(error)}") from error


def _class(text: str) -> Any:
    module, _, name = text.partition(":")
    key = ("parameters", "generator")
    if not module or not name:
        raise ConfigError(f"{text!r} names no generator: give module:Class", key)
    try:
        from gest_api import Generator
    except ImportError:
        raise ConfigError("gest-api is not installed: pip install 'rlctl[gest]'") from None
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{text}: {reason(error)}", key) from error
    if not isinstance(found, type) or not issubclass(found, Generator):
        raise ConfigError(f"{text} is no class that derives from gest_api.Generator", key)
    return found


def _choices(state: SearchView) -> dict[str, int]:
    """How many choices parameters without order have."""
    if not state.options.parameters:
        raise ConfigError("generators choose parameters, not candidates of a table")
    given = {name: parameter.model_dump() for name, parameter in state.options.parameters.items()}
    return {name: len(kind["choices"]) for name, kind in given.items() if "choices" in kind}


def _unit(value: Any, choices: int | None) -> float:
    """A variable's place in the unit cube."""
    return float(value) if choices is None else (int(value) + 0.5) / choices


def _variable(unit: float, choices: int | None) -> float | int:
    return float(unit) if choices is None else min(int(unit * choices), choices - 1)


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of random numbers, which packages of optimisers use, and restore them afterwards."""
    plain, arrays = random.getstate(), np.random.get_state()
    torch = sys.modules.get("torch")
    tensors = torch.get_rng_state() if torch is not None else None
    random.seed(seed)
    np.random.seed(seed)
    if torch is not None:
        torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(plain)
        np.random.set_state(arrays)
        if torch is not None:
            torch.set_rng_state(tensors)
