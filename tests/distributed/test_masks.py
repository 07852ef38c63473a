"""What an environment forbids is forbidden wherever it is played: alone, in a vector, on ranks, in comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import forms
import numpy as np
import pytest
from test_ways_to_train import train as train_on_ranks

import rlctl
from rlctl.config.schema import Config
from rlctl.core.campaign import Decision
from rlctl.core.errors import ConfigError, EnvironmentFault, RlctlError
from rlctl.core.machine import Capacity
from rlctl.core.policy import SimpleRule
from rlctl.distributed.actor.gymnasium_vector_env import GymnasiumVectorEnv
from rlctl.distributed.actor.vector_env import SequentialVectorEnv
from rlctl.distributed.comm.transition_spec import Seeds, VectorEnvironment
from rlctl_envs.gymnasium_id import GymnasiumId

TOLD = ("array", "list", "bools", "floats", "parts", "method")
CHOICES = ("choice", "from-2", "from-minus-1", "heads")
WAYS = ("single", "vector")
WRONG = {
    "nothing": "allows no choice",
    "short": "has 3 entries for the 4 choices of Discrete\\(4\\)",
    "nan": "booleans, or 0 and 1",
    "twos": "booleans, or 0 and 1",
    "words": "booleans, or 0 and 1",
    "object": "booleans, or 0 and 1",
}


def factory(**kwargs: Any) -> GymnasiumId:
    return GymnasiumId({"id": "Masked-v0", "module": "masked", "kwargs": kwargs})


def worlds(way: str, made: GymnasiumId, count: int = 2, with_mask: bool = True) -> VectorEnvironment:
    if way == "single":
        return SequentialVectorEnv([made.environment] * count, Seeds(5), with_mask=with_mask)
    return GymnasiumVectorEnv(made.vector_env(count, 5, Capacity()), with_mask=with_mask)


def allowed(rows: np.ndarray, heads: tuple[int, ...]) -> np.ndarray:
    """The one choice of each head, by the masks in rows; some number where actions are no choices."""
    if not heads:
        return np.zeros((len(rows), 2), np.int64)
    parts = np.split(rows[:, 2:], np.cumsum(heads)[:-1], axis=1)
    assert all((part.sum(axis=1) == 1.0).all() for part in parts)
    return np.stack([part.argmax(axis=1) for part in parts], axis=1)


@pytest.mark.parametrize("end", ["terminated", "truncated", "limit"])
@pytest.mark.parametrize("actions", CHOICES)
@pytest.mark.parametrize("told", TOLD)
def test_alone_and_in_a_vector_it_is_the_same_environment(told: str, actions: str, end: str) -> None:
    made = factory(told=told, actions=actions, end=end)
    both = [worlds(way, made) for way in WAYS]
    single, vector = both
    assert single.transition_spec == vector.transition_spec
    assert single.transition_spec.n_mask == sum(single.heads)
    assert single.action_space == vector.action_space
    rows = [one.reset() for one in both]
    ended = 0
    for _ in range(20):
        np.testing.assert_array_equal(*rows)
        actions_taken = allowed(rows[0], single.heads)  # any other raises an exception
        first, second = steps = [one.step(actions_taken) for one in both]
        rows = [step.observations for step in steps]
        for name in ("rewards", "durations", "terminated", "truncated", "tasks"):
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)
        for one, other in zip(first.episode_ends, second.episode_ends, strict=True):
            np.testing.assert_array_equal(one.observation, other.observation)
            assert (one.environment, one.episode_return, one.length) == (
                other.environment,
                other.episode_return,
                other.length,
            )
            assert one.metrics == other.metrics == {"figure": 7.0 if end == "limit" else 5.0}
            ended += 1
        assert single.episodes == vector.episodes
    assert ended >= 4
    assert single.failures == {}
    for one in both:
        one.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("told", WRONG)
def test_a_mask_that_says_nothing_usable_is_refused_with_environment_and_step(told: str, way: str) -> None:
    made = worlds(way, factory(told=told))
    rows = made.reset()
    for _ in range(2):
        rows = made.step(allowed(rows, (4,))).observations
    with pytest.raises(
        EnvironmentFault, match=f"Masked-v0, step 3 of an episode: its action mask .*{WRONG[told]}"
    ) as error:
        made.step(allowed(rows, (4,)))
    assert "\n" not in str(error.value)
    made.close()


@pytest.mark.parametrize("way", WAYS)
def test_masks_where_actions_are_no_choices(way: str) -> None:
    with pytest.raises(
        EnvironmentFault, match=r"not obeyed for actions of MultiBinary\(2\): declare MultiDiscrete\(\[2, 2\]\)"
    ):
        worlds(way, factory(actions="bits"))
    made = worlds(way, factory(actions="numbers"))
    assert made.transition_spec.n_mask == 0
    made.close()


@pytest.mark.parametrize("way", WAYS)
def test_rows_hold_masks_only_where_some_are_told_and_wanted(way: str) -> None:
    for kwargs, with_mask in (({"told": "none"}, True), ({"told": "array"}, False)):
        made = worlds(way, factory(**kwargs), with_mask=with_mask)
        assert made.transition_spec.n_mask == 0
        assert made.reset().shape == (2, 2)
        made.close()


@pytest.mark.parametrize("way", WAYS)
def test_an_environment_that_begins_to_tell_masks_later_is_refused(way: str) -> None:
    made = worlds(way, factory(told="late"))
    made.reset()
    for _ in range(2):
        made.step(np.zeros((2, 1), np.int64))
    with pytest.raises(EnvironmentFault, match="Masked-v0, step 3 of an episode: its action mask is the first one"):
        made.step(np.zeros((2, 1), np.int64))
    made.close()


def config(algorithm: str, **kwargs: Any) -> Config:
    campaign = {"name": "gymnasium", "options": {"id": "Masked-v0", "module": "masked", "kwargs": kwargs}}
    options = {"n_steps": 16, "batch_size": 32, "n_epochs": 1, "net_arch": [8]}
    train = {"algorithm": algorithm, "decisions": 128, "num_envs": 2, "validation_instances": 0, "options": options}
    return Config.model_validate({"schema": 1, "seed": 1, "campaign": campaign, "train": train})


@pytest.mark.parametrize(
    ("seen", "algorithm"),
    forms.pairs([("method", "choice"), ("list", "from-2"), ("parts", "heads")], ["ppo", "maskable_ppo"]),
)
def test_training_and_comparing_in_one_process_take_allowed_actions_only(
    tmp_path: Path, algorithm: str, seen: tuple[str, str]
) -> None:
    told, actions = seen
    asked = config(algorithm, told=told, actions=actions)
    policy = rlctl.train(asked, tmp_path / "run")  # a forbidden action raises an exception
    returns = rlctl.evaluate(asked, ["random", str(policy)], instances=4)
    assert [row.mean for row in returns.rows] == [15.0, 15.0]  # 1 + 2 + 3 + 4 + 5


@pytest.mark.parametrize("told", ["nothing", "nan", "late"])
def test_training_ends_with_one_line_at_a_wrong_mask(tmp_path: Path, told: str) -> None:
    with pytest.raises(RlctlError, match="environment Masked-v0, step 3 of an episode") as error:
        rlctl.train(config("ppo", told=told), tmp_path / "run")
    assert "\n" not in str(error.value)


class Always(SimpleRule):
    """Looks at no mask, or at it."""

    def __init__(self, obeys: bool) -> None:
        self.obeys = obeys

    def act(self, decision: Decision) -> Any:
        return np.array([decision.mask.argmax() if self.obeys else 1])


def test_rules_are_told_the_mask_and_held_to_it() -> None:
    asked = config("ppo", told="method")
    (row,) = rlctl.evaluate(asked, [Always(True)], instances=4).rows
    assert row.mean == 15.0
    with pytest.raises(ConfigError, match=r"policy rule chose .* at step \d of an episode, which .* mask forbids"):
        rlctl.evaluate(asked, [Always(False)], instances=4)


RANKS = """
schema: 1
seed: 1
campaign: {name: gymnasium, options: {id: Masked-v0, module: masked, kwargs: {told: %s, actions: heads}}}
train:
  algorithm: %s
  decisions: 256
  validation_instances: 0
  options: {n_steps: 32, batch_size: 32, n_epochs: 1, net_arch: [8]}
"""


@pytest.mark.parametrize(("mode", "algorithm"), forms.pairs(["lockstep", "asynchronous"], ["ppo", "maskable_ppo"]))
def test_training_on_ranks_takes_allowed_actions_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, algorithm: str, mode: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    way = f"--set=train.distributed.mode={mode}"
    limit = "--set=train.distributed.environment.give_up=1"  # the first exception ends it
    done = train_on_ranks(tmp_path, RANKS % ("method", algorithm), 2, way, limit)
    assert done.returncode == 0, done.stderr


def test_a_wrong_mask_on_ranks_ends_the_job_with_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    done = train_on_ranks(tmp_path, RANKS % ("nothing", "ppo"), 2)
    assert done.returncode == 2, done.stderr
    assert "environment Masked-v0, step 3 of an episode: its action mask allows no choice of head 0" in done.stderr
    assert "Traceback" not in done.stderr
