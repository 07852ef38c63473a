import math

import numpy as np
import pytest
import yaml

from rlctl.config import load_rule_file
from rlctl.errors import ConfigError
from rlctl.evaluation.tuning import Settings, Space, Tally, search, write_rule
from rlctl.monitoring.progress import Silent

SPACE = Space({"x": (-5.0, 5.0), "rate": (1e-4, 1.0, "log"), "age": (0, 40, "int")})
BEST = {"x": 2.0, "rate": 0.01, "age": 30}


def tally(cost, episodes):
    return Tally(price=math.exp(cost) * 1.5, successes=1, episodes=episodes, decisions=10 * episodes)


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
    tuned = search(SPACE, quadratic, Settings(generations=40, instances=2, validation=4), {}, Silent())
    assert tuned.parameters["x"] == pytest.approx(2.0, abs=0.2)
    assert tuned.parameters["rate"] == pytest.approx(0.01, rel=0.5)
    assert tuned.parameters["age"] == pytest.approx(30, abs=2)
    assert isinstance(tuned.parameters["age"], int)
    assert tuned.cost < tuned.start_cost
    assert tuned.episodes == 40 * tuned.population * 2 + 7 * 4
    assert tuned.decisions == 10 * tuned.episodes


def test_one_parameter_is_enough():
    def cost(candidates, instances):
        return [tally((c["x"] + 1) ** 2, len(instances)) for c in candidates]

    tuned = search(Space({"x": (-5.0, 5.0)}), cost, Settings(generations=25), {}, Silent())
    assert tuned.parameters == {"x": pytest.approx(-1.0, abs=0.1)}


def test_the_start_is_kept_if_nothing_beats_it():
    def cost(candidates, instances):
        return [tally(0.0 if c == BEST else 5.0, len(instances)) for c in candidates]

    tuned = search(SPACE, cost, Settings(generations=2), BEST, Silent())
    assert tuned.parameters == pytest.approx(BEST)


def test_each_generation_plays_fresh_instances_common_to_its_candidates():
    seen = []

    def cost(candidates, instances):
        seen.append(tuple(instances))
        return [tally(0.0, len(instances)) for _ in candidates]

    search(SPACE, cost, Settings(generations=5, instances=3, validation=7), {}, Silent())
    assert len(seen) == len(set(seen)) == 6
    assert [len(instances) for instances in seen] == [3] * 5 + [7]


def test_a_film_less_candidate_has_a_finite_cost_above_those_with_films():
    none, one = Tally(100.0, 0, 1, 1), Tally(100.0, 1, 1, 1)
    assert math.isfinite(none.cost)
    assert none.cost > one.cost


def test_parameters_survive_the_unit_cube():
    assert SPACE.decode(SPACE.encode(BEST)) == pytest.approx(BEST)
    assert SPACE.decode(np.zeros(3)) == pytest.approx({"x": -5.0, "rate": 1e-4, "age": 0})
    assert SPACE.decode(np.ones(3)) == pytest.approx({"x": 5.0, "rate": 1.0, "age": 40})
    with pytest.raises(ConfigError, match="exp"):
        Space({"x": (0.0, 1.0, "exp")})


def test_the_rule_file_is_written_whole_and_read_back(tmp_path):
    path = tmp_path / "rules" / "feedback.yaml"
    write_rule(path, "feedback", {"gain": 0.5}, {"generations": 3})
    write_rule(path, "feedback", {"gain": 0.6}, {"generations": 3})
    assert yaml.safe_load(path.read_text())["schema"] == 1
    assert load_rule_file(path).parameters == {"gain": 0.6}
    assert [entry.name for entry in path.parent.iterdir()] == ["feedback.yaml"]
