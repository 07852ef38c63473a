import math
from typing import ClassVar

import numpy as np
import pytest
import yaml

import rlctl
from rlctl.config.load import game_hash, load_config, load_rule_file
from rlctl.core.errors import ConfigError
from rlctl.evaluation.tuning import CandidateCost, ParameterSpace, SearchSettings, search, write_rule
from rlctl.monitoring.progress import Silent
from rlctl.plugins.entry_points import Registered
from rlctl.plugins.registry import Rule
from rlctl_agents.rules.ensemble import Lpt
from rlctl_envs.ensemble.factory import Ensemble

SPACE = ParameterSpace({"x": (-5.0, 5.0), "rate": (1e-4, 1.0, "log"), "age": (0, 40, "int")})
BEST = {"x": 2.0, "rate": 0.01, "age": 30}


def tally(cost, episodes):
    return CandidateCost(cost=math.exp(cost) * 1.5, successes=1, episodes=episodes, decisions=10 * episodes)


def quadratic(candidates, instances):
    """Cost with its minimum at BEST, plus noise that is common to the candidates of one set of instances."""
    noise = np.random.default_rng(instances[0]).normal()
    return [
        tally(
            (c["x"] - 2) ** 2 + math.log10(c["rate"] / 0.01) ** 2 + ((c["age"] - 30) / 10) ** 2 + noise, len(instances)
        )
        for c in candidates
    ]


def test_finds_the_optimum_of_a_quadratic():
    tuned = search(SPACE, quadratic, SearchSettings(generations=40, instances=2, validation=4), {}, Silent())
    assert tuned.parameters["x"] == pytest.approx(2.0, abs=0.2)
    assert tuned.parameters["rate"] == pytest.approx(0.01, rel=0.5)
    assert tuned.parameters["age"] == pytest.approx(30, abs=2)
    assert isinstance(tuned.parameters["age"], int)
    assert tuned.cost < tuned.start_cost
    assert tuned.episodes == 40 * tuned.population * 2 + 7 * 4
    assert tuned.decisions == 10 * tuned.episodes


def test_a_budget_of_decisions_is_used_and_kept():
    """Generations of 10 * 2 episodes of 10 decisions; the 7 finalists on 4 instances take 280 of the budget."""
    budget = {"instances": 2, "validation": 4, "population": 10}
    tuned = search(SPACE, quadratic, SearchSettings(1, decisions=5000, **budget), {}, Silent())
    assert 5000 - 200 < tuned.decisions <= 5000
    assert tuned.parameters["x"] == pytest.approx(2.0, abs=0.5)
    assert search(SPACE, quadratic, SearchSettings(9, decisions=1, **budget), {}, Silent()).episodes == 10 * 2 + 3 * 2


def test_one_parameter_is_enough():
    def cost(candidates, instances):
        return [tally((c["x"] + 1) ** 2, len(instances)) for c in candidates]

    tuned = search(ParameterSpace({"x": (-5.0, 5.0)}), cost, SearchSettings(generations=25), {}, Silent())
    assert tuned.parameters == {"x": pytest.approx(-1.0, abs=0.1)}


def test_the_start_is_kept_if_nothing_beats_it():
    def cost(candidates, instances):
        return [tally(0.0 if c == BEST else 5.0, len(instances)) for c in candidates]

    tuned = search(SPACE, cost, SearchSettings(generations=2), BEST, Silent())
    assert tuned.parameters == pytest.approx(BEST)


def test_each_generation_plays_fresh_instances_common_to_its_candidates():
    seen = []

    def cost(candidates, instances):
        seen.append(tuple(instances))
        return [tally(0.0, len(instances)) for _ in candidates]

    search(SPACE, cost, SearchSettings(generations=5, instances=3, validation=7), {}, Silent())
    assert len(seen) == len(set(seen)) == 6
    assert [len(instances) for instances in seen] == [3] * 5 + [7]


def test_a_film_less_candidate_has_a_finite_cost_above_those_with_films():
    none, one = CandidateCost(100.0, 0, 1, 1), CandidateCost(100.0, 1, 1, 1)
    assert math.isfinite(none.objective)
    assert none.objective > one.objective


def test_parameters_survive_the_unit_cube():
    assert SPACE.decode(SPACE.encode(BEST)) == pytest.approx(BEST)
    assert SPACE.decode(np.zeros(3)) == pytest.approx({"x": -5.0, "rate": 1e-4, "age": 0})
    assert SPACE.decode(np.ones(3)) == pytest.approx({"x": 5.0, "rate": 1.0, "age": 40})
    with pytest.raises(ConfigError, match="exp"):
        ParameterSpace({"x": (0.0, 1.0, "exp")})


def test_the_rule_file_is_written_whole_and_read_back(tmp_path):
    path = tmp_path / "rules" / "feedback.yaml"
    write_rule(path, "feedback", {"gain": 0.5}, {"generations": 3})
    write_rule(path, "feedback", {"gain": 0.6}, {"generations": 3})
    assert yaml.safe_load(path.read_text())["schema"] == 1
    assert load_rule_file(path).parameters == {"gain": 0.6}
    assert [entry.name for entry in path.parent.iterdir()] == ["feedback.yaml"]


def rule_file(path, rule="lpt", **parameters):
    write_rule(path, rule, parameters, {})
    return path


QUEUE = """
schema: 1
seed: 1
campaign: {name: ensemble, options: {workload: {tasks: [4, 6]}}}
machine: {nodes: 16, cores: 1}
"""


def queue(tmp_path):
    (tmp_path / "queue.yaml").write_text(QUEUE)
    return load_config(tmp_path / "queue.yaml")


def test_a_search_begins_where_a_rule_file_ended(tmp_path):
    """One generation of one instance finds nothing; what it began from is kept, and its cost is told."""
    config = queue(tmp_path)
    small = {"generations": 1, "instances": 1}
    start = rule_file(tmp_path / "start.yaml", most=0.1)
    begun = rlctl.tune(config, "lpt", tmp_path / "a.yaml", start=start, **small)
    plain = rlctl.tune(config, "lpt", tmp_path / "b.yaml", **small)
    assert begun.start_cost != plain.start_cost
    again = rlctl.tune(config, "lpt", tmp_path / "c.yaml", start=rule_file(start, most=0.5), **small)
    assert again.start_cost == plain.start_cost  # 0.5 is the rule's own
    assert again.parameters == plain.parameters
    written = load_rule_file(tmp_path / "a.yaml")
    assert written.tuning["start"] == {"most": 0.1}
    assert written.tuning["game_hash"] == game_hash(config, Ensemble(config.campaign.options))
    assert "start" not in load_rule_file(tmp_path / "b.yaml").tuning


def test_parameters_that_are_not_searched_stay_as_the_file_says(tmp_path, monkeypatch):
    config, seen = queue(tmp_path), []

    class Narrow(Lpt):
        SPACE: ClassVar = {"most": (0.02, 1.0, "log")}

        def __init__(self, most=0.5, spare=0):
            super().__init__(most=most)
            seen.append(spare)

    narrow = Rule(Registered("rlctl.policies", "lpt", "test", "test:Narrow", Narrow))
    for module in ("api", "evaluation.tuning"):
        monkeypatch.setattr(f"rlctl.{module}.policy_factory", lambda name: narrow)
    start = rule_file(tmp_path / "start.yaml", most=0.1, spare=2)
    rlctl.tune(config, "lpt", tmp_path / "a.yaml", start=start, generations=1, instances=1)
    assert set(seen[2:]) == {2}
    assert load_rule_file(tmp_path / "a.yaml").parameters["spare"] == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (
            "rule: feedback\nparameters: {}",
            r"start\.yaml:2: rule: 'feedback' is not the tuned rule 'lpt'",
        ),
        (
            "rule: lpt\nparameters: {most: 99}",
            r"start\.yaml.*most: 99 is outside the search range 0.02 to 1",
        ),
        ("rule: lpt\nparameters: {mots: 9}", r"start\.yaml.* unknown parameter 'mots'"),
        ("rule: lpt\nparameters: {most: few}", r"start\.yaml.* most must be a number"),
    ],
)
def test_a_file_that_a_search_cannot_begin_from_is_refused(tmp_path, text, complaint):
    config = queue(tmp_path)
    (tmp_path / "start.yaml").write_text(f"schema: 1\n{text}\n")
    with pytest.raises(ConfigError, match=complaint) as error:
        rlctl.tune(config, "lpt", tmp_path / "a.yaml", start=tmp_path / "start.yaml")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.yaml").exists()
