"""The split of a world into agents, learners and environments, for every shape that is small enough to look at."""

from __future__ import annotations

from collections import Counter
from itertools import product

import pytest

from rlctl.core.errors import ConfigError
from rlctl.distributed.launch.topology import RankAssignment, Role, TrainingShape, assign_roles, idle_ranks_warning

SHAPES = [TrainingShape(*sizes) for sizes in product((1, 2, 3), (1, 2, 3), (1, 2, 3, 4))]
LARGEST = 24
FITTING = [(world, shape) for shape in SHAPES for world in range(1, LARGEST + 1) if world >= shape.min_ranks]
TOO_SMALL = [(world, shape) for shape in SHAPES for world in range(1, LARGEST + 1) if world < shape.min_ranks]


def of(places: tuple[RankAssignment, ...], role: Role, agent: int) -> list[RankAssignment]:
    return [place for place in places if place.role is role and place.agent == agent]


def test_both_kinds_of_worlds_are_looked_at() -> None:
    assert len(FITTING) + len(TOO_SMALL) == len(SHAPES) * LARGEST
    assert len(FITTING) > 300
    assert len(TOO_SMALL) > 300


def test_a_world_in_which_a_learner_has_no_actor_is_refused_with_the_smallest_one() -> None:
    for world, shape in TOO_SMALL:
        with pytest.raises(ConfigError, match=rf"at least {shape.min_ranks} ranks, not {world}\b"):
            assign_roles(world, shape)
        assign_roles(shape.min_ranks, shape)


def test_every_rank_has_one_place() -> None:
    for world, shape in FITTING:
        places = assign_roles(world, shape)
        assert [place.rank for place in places] == list(range(world))
        assert places[0] == RankAssignment(0, Role.LEARNER, agent=0, learner=0)


def test_each_agent_has_its_learners_and_as_many_environments_as_the_others() -> None:
    for world, shape in FITTING:
        places = assign_roles(world, shape)
        for agent in range(shape.agents):
            assert [place.learner for place in of(places, Role.LEARNER, agent)] == list(range(shape.learners))
            actors = of(places, Role.ACTOR, agent)
            assert [place.actor for place in actors] == list(range(len(of(places, Role.ACTOR, 0))))
        assert {place.agent for place in places if place.role is not Role.SPARE} == set(range(shape.agents))


def test_an_environment_is_k_neighbouring_ranks_that_begin_with_its_actor() -> None:
    for world, shape in FITTING:
        places = assign_roles(world, shape)
        for root in (place for place in places if place.role is Role.ACTOR):
            group = places[root.rank : root.rank + shape.ranks_per_env]
            assert [place.environment_rank for place in group] == list(range(shape.ranks_per_env))
            assert {(place.agent, place.actor, place.learner) for place in group} == {
                (root.agent, root.actor, root.learner)
            }
            assert [place.role for place in group[1:]] == [Role.ENVIRONMENT] * (shape.ranks_per_env - 1)
        roots = sum(place.role is Role.ACTOR for place in places)
        assert sum(place.environment_rank >= 0 for place in places) == roots * shape.ranks_per_env


def test_actors_are_spread_evenly_over_the_learners_of_their_agent() -> None:
    for world, shape in FITTING:
        places = assign_roles(world, shape)
        for agent in range(shape.agents):
            served = Counter(place.learner for place in of(places, Role.ACTOR, agent))
            assert set(served) == set(range(shape.learners))
            assert max(served.values()) - min(served.values()) <= 1


def test_spare_ranks_are_the_last_and_too_few_for_one_more_environment_each() -> None:
    for world, shape in FITTING:
        places = assign_roles(world, shape)
        spare = [place.rank for place in places if place.role is Role.SPARE]
        assert spare == list(range(world - len(spare), world))
        assert len(spare) < shape.agents * shape.ranks_per_env
        said = idle_ranks_warning(world, shape)
        assert (said is None) == (not spare)
        if said is not None:
            less, more = world - len(spare), world - len(spare) + shape.agents * shape.ranks_per_env
            assert f"{less} or {more} ranks would all be used" in said
            assert idle_ranks_warning(less, shape) is None
            assert idle_ranks_warning(more, shape) is None


def test_several_learners_and_several_ranks_per_environment_go_together() -> None:
    """EXARL's split gets 2 learners, 4 ranks per environment and a world of 10 wrong: rank 5 talks to the learner."""
    places = assign_roles(10, TrainingShape(learners=2, ranks_per_env=4))
    assert [place.rank for place in places if place.role is Role.LEARNER] == [0, 1]
    assert [place.rank for place in places if place.role is Role.ACTOR] == [2, 6]
    assert places[5] == RankAssignment(5, Role.ENVIRONMENT, agent=0, learner=0, actor=0, environment_rank=3)
    assert [place.learner for place in places if place.role is Role.ACTOR] == [0, 1]


def test_a_rank_says_what_it_is() -> None:
    assert [str(place) for place in assign_roles(4, TrainingShape(ranks_per_env=2))] == [
        "rank 0 (learner 0 of agent 0)",
        "rank 1 (actor 0 of agent 0)",
        "rank 2 (rank 1 of environment 0 of agent 0)",
        "rank 3 (spare)",
    ]


def test_the_refusal_names_the_place_in_the_configuration() -> None:
    with pytest.raises(ConfigError) as caught:
        assign_roles(5, TrainingShape(agents=2, learners=2, ranks_per_env=2))
    assert str(caught.value) == (
        "train.distributed: 2 agents of 2 learners and environments of 2 ranks want at least 12 ranks, not 5: start "
        "more, or lower agents, learners or ranks_per_env"
    )
