"""Optimisers of other projects steer searches, and are rebuilt from the trials."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from searches import search, steered

from rlctl.core.campaign import Action, Decision
from rlctl.core.errors import ConfigError
from rlctl.core.policy import SimpleRule
from rlctl.plugins.registry import policy_factory
from rlctl_envs.search.trials import TrialStatus

MIXED = {
    "parameters": {
        "x": {"low": 0.01, "high": 100.0, "log": True},
        "n": {"low": 1, "high": 9, "integer": True},
        "solver": {"choices": ["cg", "gmres", "direct"]},
        "grid": {"ordered": [8, 16, 32, 64]},
    },
    "constraints": ["x * n <= 300"],
    "objective": {"minimize": "y"},
    "until": {"value": 0.1, "evaluations": 120},
}
PLAIN = {
    "parameters": {"x": {"low": -1, "high": 2}, "z": {"low": 0, "high": 1}},
    "objective": {"minimize": "y"},
    "until": {"value": 0.003, "evaluations": 60},
}


def mixed(p: Mapping[str, Any], _: str) -> float:
    """Least value 0, at (1, 5, gmres, 32)."""
    away = np.log10(p["x"]) ** 2 + 0.1 * (p["n"] - 5) ** 2 + (p["grid"] != 32) * 0.5
    return float(away + {"cg": 0.4, "gmres": 0.0, "direct": 1.0}[p["solver"]])


def bowl(p: Mapping[str, Any], _: str) -> float:
    return float((p["x"] - 0.7) ** 2 + (p["z"] - 0.2) ** 2)


def optuna(name: str = "TPESampler", **options: Any) -> dict[str, Any]:
    pytest.importorskip("optuna", reason="optuna is not installed: pip install 'rlctl[optuna]'")
    return {"sampler": name, "options": options}


class Forgetful(SimpleRule):
    """A rule that is made anew for each decision, as if its process had been killed before it."""

    def __init__(self, rule: str, parameters: Mapping[str, Any]) -> None:
        self.rule, self.parameters = rule, parameters

    def act(self, decision: Decision) -> Action:
        return policy_factory(self.rule)(self.parameters).act(decision)


@pytest.mark.parametrize(("sampler", "reached"), [("TPESampler", True), ("RandomSampler", False)])
def test_a_sampler_of_optuna_finds_values_of_all_kinds_of_parameters(sampler: str, reached: bool) -> None:
    found = steered(search(MIXED), mixed, "optuna", seed=3, cores=4, **optuna(sampler))
    assert found.outcome().reached is reached
    assert all(trial.values["x"] * trial.values["n"] <= 300 for trial in found.state.trials)


@pytest.mark.parametrize("sampler", ["TPESampler", "CmaEsSampler"])
def test_samplers_of_optuna_are_rebuilt_from_the_trials(sampler: str) -> None:
    given = optuna(sampler)
    options = {**PLAIN, "until": {"evaluations": 14}}
    kept = steered(search(options), bowl, "optuna", cores=2, **given)
    rebuilt = steered(search(options), bowl, Forgetful("optuna", given), cores=2)
    assert [trial.values for trial in rebuilt.state.trials] == [trial.values for trial in kept.state.trials]


def test_optuna_is_told_of_constraints_on_results() -> None:
    options = {**PLAIN, "objective": {"minimize": "y", "subject_to": "m >= 0.3"}, "until": {"evaluations": 60}}
    factory = search(options, results=("y", "m"))
    found = steered(factory, lambda p, _: {"y": p["x"] + p["z"], "m": p["x"] * p["z"]}, "optuna", **optuna())
    last = found.state.trials[-30:]
    assert sum(trial.assessment is not None and trial.assessment.feasible for trial in last) > 15
    assert found.state.best is not None
    assert found.state.best.values["x"] + found.state.best.values["z"] < 1.3  # the least is 1.1


def test_infeasible_points_end_well_for_optuna() -> None:
    def half(p: Mapping[str, Any], stage: str) -> float | None:
        return None if p["x"] < 0.0 else bowl(p, stage)

    found = steered(search(PLAIN), half, "optuna", seed=2, cores=3, **optuna())  # type: ignore[arg-type]
    assert TrialStatus.INFEASIBLE in {trial.status for trial in found.state.trials}
    assert len(found.state.results) > 10


def test_optuna_steers_several_objectives() -> None:
    options = {**PLAIN, "objective": {"minimize": ["y", "m"]}, "until": {"evaluations": 40}}
    factory = search(options, results=("y", "m"))
    found = steered(
        factory, lambda p, _: {"y": p["x"] ** 2, "m": (p["x"] - 1) ** 2}, "optuna", **optuna("NSGAIISampler")
    )
    assert len(found.state.front) > 3


def generator(name: str, **parameters: Any) -> dict[str, Any]:
    pytest.importorskip("gest_api", reason="gest-api is not installed: pip install 'rlctl[gest]'")
    if name.startswith("xopt"):
        pytest.importorskip("xopt", reason="xopt is not installed: pip install xopt")
    return {"generator": name, **parameters}


def test_a_generator_of_the_gest_standard_suggests_and_is_told() -> None:
    given = generator("gest_generators:Shrinking", options={"width": 0.3})
    found = steered(search(PLAIN), bowl, "gest", cores=2, **given)
    assert found.outcome().reached
    rebuilt = steered(search(PLAIN), bowl, Forgetful("gest", given), cores=2)
    assert rebuilt.outcome().reached


def test_choices_and_constraints_reach_a_generator() -> None:
    given = generator("gest_generators:Shrinking", options={"width": 0.3})
    objective = {"maximize": "y", "subject_to": "y <= -0.01"}
    found = steered(
        search({**MIXED, "objective": objective, "until": {"evaluations": 40}}),
        lambda p, s: -mixed(p, s),
        "gest",
        **given,
    )
    assert {trial.values["solver"] for trial in found.state.trials} == {"cg", "gmres", "direct"}
    assert len(found.state.results) == 40


def test_a_generator_that_waits_for_results_is_waited_for() -> None:
    """Nelder and Mead's simplex takes one result after another, whatever room there is."""
    given = generator("xopt.generators.sequential:NelderMeadGenerator", initial=3)
    found = steered(search(PLAIN), bowl, "gest", cores=4, **given)
    assert found.outcome().reached


def test_a_generator_that_needs_results_first_says_so() -> None:
    given = generator("xopt.generators.sequential:NelderMeadGenerator")
    with pytest.raises(ValueError, match="set initial"):
        steered(search(PLAIN), bowl, "gest", **given)


@pytest.mark.parametrize(
    ("rule", "parameters", "said"),
    [
        ("optuna", {"sampler": "TPSampler"}, "no sampler 'TPSampler'; known: .*TPESampler"),
        ("optuna", {"sampler": "TPESampler", "options": {"startups": 3}}, "startups"),
        ("gest", {}, "module:Class"),
        ("gest", {"generator": "gest_generators:Nothing"}, "Nothing"),
        ("gest", {"generator": "no_such_module:Nothing"}, "no_such_module"),
        ("gest", {"generator": "pathlib:Path"}, "gest_api.Generator"),
    ],
)
def test_wrong_optimisers_are_refused(rule: str, parameters: dict[str, Any], said: str) -> None:
    pytest.importorskip("optuna" if rule == "optuna" else "gest_api", reason=f"the extra {rule} is not installed")
    with pytest.raises(ConfigError) as caught:
        policy_factory(rule)(parameters)
    assert re.search(said, str(caught.value))
